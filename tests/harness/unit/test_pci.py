"""Reading PCI devices from sysfs: addresses, groups, names, and trees that hold what they should
not."""

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.pci import Bdf, Host, device_id
from tests.harness.unit import pci_trees as trees
from tests.harness.unit.pci_trees import HostTree


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path)


def at(host: Host, text: str):
    return host.get(Bdf.parse(text))


# -- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("08:00.0", "0000:08:00.0"),
        ("0000:08:00.0", "0000:08:00.0"),
        ("0001:AF:1F.7", "0001:af:1f.7"),
        (" 10000:e1:00.0 ", "10000:e1:00.0"),
    ],
)
def test_an_address_is_read_with_and_without_its_domain(text, full):
    assert str(Bdf.parse(text)) == full


@pytest.mark.parametrize("text", ["", "08", "08:00", "08:00.8", "08:20.0", "8:0.0", "10de:1db1"])
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(UsageProblem, match=f"'{text}' is not a PCI address") as refused:
        Bdf.parse(text)
    assert "08:00.0" in refused.value.hint


def test_addresses_are_ordered_by_domain_bus_slot_function():
    texts = ["0001:00:00.0", "0000:0a:00.1", "0000:0a:00.0", "0000:08:1f.0"]
    assert [str(item) for item in sorted(map(Bdf.parse, texts))] == sorted(texts)


def test_a_device_id_is_read_in_either_case_and_nothing_else_is():
    assert device_id("10DE:1DB1") == "10de:1db1"
    for text in ("10de", "10de:", "10de:1db", "0x10de:0x1db1", "08:00.0"):
        with pytest.raises(UsageProblem, match="is not a device ID"):
            device_id(text)


# -- devices --------------------------------------------------------------------------------


def test_the_listing_of_the_seed_is_eight_gpus_and_three_switches(tree):
    host = Host(trees.dgx2(tree).root)
    gpus = [item for item in host.devices.values() if item.is_gpu]
    switches = [item for item in host.devices.values() if item.is_nvswitch]
    assert [f"{item.bdf.bus:02x}" for item in gpus] == list(trees.V100_BUSES)
    assert [f"{item.bdf.bus:02x}" for item in switches] == list(trees.NVSWITCH_BUSES)
    assert {item.id for item in gpus} == {"10de:1db1"}
    assert {item.id for item in switches} == {"10de:1ac1"}


def test_a_device_says_all_that_sysfs_says_of_it(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=40, numa=1)
    gpu = at(Host(tree.root), "08:00.0")
    assert (gpu.class_code, gpu.class_name, gpu.driver) == (0x030200, "3D controller", "vfio-pci")
    assert (gpu.iommu_group, gpu.numa_node, gpu.boot_vga) == (40, 1, False)
    assert (gpu.subsystem_vendor, gpu.subsystem_device) == (0x10DE, 0x1212)
    assert (gpu.link_speed, gpu.link_speed_max) == (8.0, 8.0)
    assert (gpu.link_width, gpu.link_width_max) == (16, 16)
    assert str(gpu.parent) == "0000:80:08.0"


def test_windows_are_told_with_their_size_and_whether_they_lie_above_4g(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=40)
    small, large, _ = at(Host(tree.root), "08:00.0").bars
    assert (small.index, small.size, small.above_4g) == (0, 16 * trees.MIB, False)
    assert (large.index, large.size, large.above_4g) == (1, 16 * trees.GIB, True)
    assert large.is_64bit and large.is_memory and large.assigned


def test_a_window_without_a_place_is_not_assigned(tree):
    tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS, bars=[(0, trees.GIB)])
    (bar,) = at(Host(tree.root), "08:00.0").bars
    assert not bar.assigned and bar.size == trees.GIB


def test_a_device_without_driver_group_and_memory_node_says_so(tree):
    tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS)
    gpu = at(Host(tree.root), "08:00.0")
    assert (gpu.driver, gpu.iommu_group, gpu.numa_node, gpu.parent) == ("", None, None, None)
    assert Host(tree.root).groups == {}


def test_a_group_of_the_unsafe_mode_without_iommu_is_none(tree):
    tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS, group=0)
    name = tree.root / "sys/kernel/iommu_groups/0/name"
    name.write_bytes(b"\xff\n")
    assert at(Host(tree.root), "08:00.0").iommu_group == 0
    name.write_text("vfio-noiommu\n")
    assert at(Host(tree.root), "08:00.0").iommu_group is None


def test_groups_hold_their_devices_and_bridges(tree):
    host = Host(trees.workstation(tree).root)
    assert [str(item.bdf) for item in host.groups[11]] == [
        "0000:00:02.0",
        "0000:02:00.0",
        "0000:02:00.1",
    ]


def test_the_functions_of_a_card_are_found_and_virtual_ones_stand_alone(tree):
    trees.workstation(tree)
    tree.pci("0000:03:00.0", "10de:20b2", trees.GPU_CLASS, driver="nvidia")
    tree.pci("0000:03:00.4", "10de:20b2", trees.GPU_CLASS, physfn="0000:03:00.0")
    host = Host(tree.root)
    card = host.functions(at(host, "02:00.1"))
    assert [str(item.bdf) for item in card] == ["0000:02:00.0", "0000:02:00.1"]
    physical, virtual = at(host, "03:00.0"), at(host, "03:00.4")
    assert host.functions(physical) == (physical,)
    assert host.functions(virtual) == (virtual,)
    assert physical.virtfns == (virtual.bdf,) and virtual.physfn == physical.bdf


def test_two_domains_may_have_the_same_bus_and_slot(tree):
    host = Host(trees.nonzero_domain(tree).root)
    assert [str(item.bdf) for item in host.with_id("10de:1db1")] == [
        "0000:08:00.0",
        "0001:08:00.0",
    ]
    assert len(host.functions(at(host, "0001:08:00.0"))) == 1


@pytest.mark.parametrize(
    ("device", "class_code", "is_one"),
    [
        ("10de:1ac1", trees.NVSWITCH_CLASS, True),  # DGX-2
        ("10de:1af1", trees.NVSWITCH_CLASS, True),  # DGX A100
        ("10de:22a3", trees.NVSWITCH_CLASS, True),  # DGX H100
        ("10de:0369", trees.NVSWITCH_CLASS, False),  # a bridge of an old chipset of NVIDIA's
        ("10de:22a3", 0x060400, False),
        ("8086:1ac1", trees.NVSWITCH_CLASS, False),
    ],
)
def test_an_nvswitch_is_told_by_maker_class_and_number(tree, device, class_code, is_one):
    tree.pci("0000:00:01.0", device, class_code)
    assert at(Host(tree.root), "00:01.0").is_nvswitch is is_one


def test_a_device_that_is_not_there_is_refused_naming_what_is_near(tree):
    host = Host(trees.nonzero_domain(tree).root)
    with pytest.raises(UsageProblem, match=r"no PCI device '0002:08:00.0'.*0000:08:00.0, 0001:08"):
        host.get(Bdf.parse("0002:08:00.0"))


# -- names ----------------------------------------------------------------------------------


def test_names_come_from_the_hosts_pci_ids_where_there_is_one(tree):
    trees.workstation(tree)
    text = "# a comment\n10de  NVIDIA Corporation\n\t1b06  GP102 [GeForce GTX 1080 Ti]\n"
    text += "\t\t10de 120f  A board\nC 03  Display controller\n\t00  VGA compatible controller\n"
    tree.file("/usr/share/misc/pci.ids", text)
    host = Host(tree.root)
    assert host.name(at(host, "02:00.0")) == "GP102 [GeForce GTX 1080 Ti]"
    assert host.name(at(host, "02:00.1")) == "Audio device"


def test_without_pci_ids_cards_of_data_centres_are_known_and_others_go_by_their_class(tree):
    trees.gpu(trees.workstation(tree), "0000:08:00.0", group=40)
    host = Host(tree.root)
    assert host.name(at(host, "08:00.0")) == "GV100GL [Tesla V100 SXM2 16GB]"
    assert host.name(at(host, "02:00.0")) == "VGA compatible controller"


# -- trees that hold what they should not ----------------------------------------------------


def test_a_copy_that_lacks_the_devices_says_so_and_not_that_there_are_none(tmp_path):
    (tmp_path / "sys").mkdir()
    with pytest.raises(UsageProblem) as caught:
        _ = Host(tmp_path).devices
    assert caught.value.message == (
        f"'{tmp_path}' has no '/sys/bus/pci/devices', so that its devices are not known."
    )
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    assert Host(tmp_path).devices == {}


def test_a_domain_may_have_more_than_four_digits(tree):
    tree.pci("10000:e1:00.0", "10de:1db1", trees.GPU_CLASS)
    (device,) = Host(tree.root).devices.values()
    assert (str(device.bdf), device.bdf.domain) == ("10000:e1:00.0", 0x10000)


def test_a_hint_names_the_copy_that_it_is_about():
    assert Host("/").reading("gpu list") == "deepops-virtual gpu list"
    assert Host("/tmp/a dump").reading("gpu list") == (
        "deepops-virtual gpu list --root '/tmp/a dump'"
    )


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("vendor", "nvidia\n", "holds 'nvidia', which is not a number"),
        ("class", "", "holds '', which is not a number"),
        ("numa_node", "left\n", "holds 'left', which is not a number"),
        ("resource", "0x0 0x0\n", "holds '0x0 0x0', which is not a line 'start end flags'"),
        (
            "device",
            "<p>not\n\nfound</p>\n" * 9,
            "holds '<p>not found</p> .{36,45}…', which is not",
        ),
        ("driver", "vfio-pci", "is not a symbolic link"),
        ("iommu_group", "40", "is not a symbolic link"),
    ],
)
def test_a_file_that_holds_something_else_is_named(tree, file, text, said):
    place = tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS)
    (place / file).write_text(text)
    with pytest.raises(UsageProblem, match=said) as refused:
        _ = Host(tree.root).devices
    assert file in refused.value.message and "0000:08:00.0" in refused.value.message


def test_files_that_tar_filled_up_with_zeros_are_read(tree):
    trees.dgx2(tree)
    before = Host(tree.root).devices
    for path in (tree.root / "sys").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(path.read_bytes().ljust(4096, b"\0"))
    host = Host(tree.root)
    assert host.devices == before
    assert host.text("/sys/class/dmi/id/product_name") == "DGX-2\n"


def test_a_missing_vendor_is_named(tree):
    (tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS) / "vendor").unlink()
    with pytest.raises(UsageProblem, match=r"0000:08:00\.0/vendor' is missing"):
        _ = Host(tree.root).devices


def test_a_group_that_is_no_number_is_named(tree):
    place = tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS)
    (place / "iommu_group").symlink_to("../../kernel/iommu_groups/none")
    with pytest.raises(UsageProblem, match="'none', which is not the number of an IOMMU group"):
        _ = Host(tree.root).devices
