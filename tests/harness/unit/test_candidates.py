"""Which devices may be handed through, and the sentence with which the others are refused."""

import json

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.candidates import Candidate, candidates, units
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.pci import Bdf, Host
from tests.harness.unit import pci_trees as trees
from tests.harness.unit.pci_trees import HostTree

E1000E = "8086:10d3"


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path)


def found(tree: HostTree, **more) -> dict[str, Candidate]:
    return {item.bdf: item for item in candidates(Host(tree.root), **more)}


def reason(tree: HostTree, bdf: str, **more) -> str:
    item = found(tree, **more)[bdf]
    assert not item.assignable
    return item.reason


def a_network_card(tree: HostTree, name: str = "", bdf: str = "0000:04:00.0", group: int = 14):
    tree.pci(bdf, E1000E, trees.NIC_CLASS, driver="e1000e", group=group)
    return tree.net(name, bdf) if name else tree


# -- what is assignable ---------------------------------------------------------------------


def test_all_of_a_dgx_is_assignable_in_groups_of_its_own(tree):
    items = found(trees.dgx2(tree))
    assert len(items) == 11
    assert all(item.assignable and item.lease is None for item in items.values())
    assert items["0000:08:00.0"].reason == ""
    assert items["0000:10:00.0"].reason == "goes along when one node gets every GPU of this host"


def test_a_line_has_the_fields_that_scripts_read(tree):
    (item,) = candidates(Host(trees.amd_iommu(tree).root))
    assert json.loads(item.model_dump_json()) == {
        "bdf": "0000:c1:00.0",
        "id": "10de:20b2",
        "class": "3D controller",
        "name": "GA100 [A100 SXM4 80GB]",
        "driver": "vfio-pci",
        "iommu_group": 30,
        "group_members": ["0000:c1:00.0"],
        "assignable": True,
        "reason": "",
        "lease": None,
    }
    assert Candidate.model_validate_json(item.model_dump_json()) == item


def test_a_card_goes_with_its_audio_function_and_leaves_the_bridge(tree):
    _, second = units(Host(trees.workstation(tree).root))
    assert list(map(str, second.bdfs)) == ["0000:02:00.0", "0000:02:00.1"]
    assert second.groups == (11,) and second.foreign == ()
    item = found(tree)["0000:02:00.0"]
    assert item.assignable
    assert item.group_members == ["0000:00:02.0", "0000:02:00.0", "0000:02:00.1"]


def test_functions_of_one_card_go_together_from_several_groups(tree):
    trees.gpu(trees.server(tree), "0000:05:00.0", group=12)
    tree.pci("0000:05:00.1", "10de:10ef", trees.AUDIO_CLASS, group=13)
    tree.pci("0000:05:00.2", "10de:1ad8", trees.USB_CLASS, group=14)
    (unit,) = units(Host(tree.root))
    assert unit.groups == (12, 13, 14) and len(unit.devices) == 3 and len(unit.wanted) == 1


def test_two_gpus_in_one_group_go_together(tree):
    trees.gpu(trees.server(tree), "0000:05:00.0", group=12)
    trees.gpu(tree, "0000:06:00.0", group=12)
    items = found(tree)
    assert items["0000:05:00.0"].assignable
    assert items["0000:05:00.0"].reason == "goes together with 0000:06:00.0"
    assert len(units(Host(tree.root))) == 1


def test_devices_that_are_no_gpus_are_shown_when_their_id_is_named(tree):
    trees.server(tree)
    assert found(a_network_card(tree)) == {}
    assert found(tree, extra_ids=[E1000E.upper()])["0000:04:00.0"].assignable
    with pytest.raises(UsageProblem, match="'e1000e' is not a device ID"):
        found(tree, extra_ids=["e1000e"])


# -- what never is --------------------------------------------------------------------------


def test_the_boot_display_is_refused(tree):
    assert reason(trees.workstation(tree), "0000:01:00.0") == (
        "'0000:01:00.0' is the boot display of this host."
    )


def test_a_group_with_something_else_is_refused_listing_it(tree):
    assert reason(trees.gpu_sharing_group_with_nic(tree), "0000:05:00.0") == (
        "IOMMU group 12 of '0000:05:00.0' also holds '0000:06:00.0' (Ethernet controller "
        "15b3:1017, driver 'mlx5_core'); a group is handed through whole or not at all."
    )


def test_a_host_bridge_that_nobody_drives_is_no_obstacle_in_the_group(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=12, bridge_group=12)
    tree.pci("0000:00:01.0", "1022:1632", 0x060000, group=12)
    assert found(tree)["0000:08:00.0"].assignable
    tree.bind("0000:00:01.0", "agpgart-amd64")
    assert "also holds '0000:00:01.0' (Host bridge 1022:1632" in reason(tree, "0000:08:00.0")


def test_a_bridge_counts_when_a_driver_other_than_pcieport_has_it(tree):
    trees.gpu(trees.server(tree), "0000:05:00.0", group=12, bridge_group=12)
    tree.bind("0000:00:05.0", "shpchp")
    assert "also holds '0000:00:05.0' (PCI bridge" in reason(tree, "0000:05:00.0")


@pytest.mark.parametrize(
    ("code", "name"),
    [(0x060400, "PCI bridge"), (0x060000, "Host bridge"), (0x060100, "ISA bridge")],
)
def test_a_part_of_the_board_is_refused_though_its_id_is_named(tree, code, name):
    trees.server(tree).pci("0000:00:1c.0", "8086:a110", code, group=20)
    said = reason(tree, "0000:00:1c.0", extra_ids=["8086:a110"])
    assert said == f"'0000:00:1c.0' is a part of this host's board ({name})."


def test_without_iommu_no_device_is_assignable(tree):
    assert reason(trees.no_iommu(tree), "0000:08:00.0") == (
        "'0000:08:00.0' is in no IOMMU group: the IOMMU is off, in the BIOS or on the kernel's "
        "command line."
    )


def test_a_device_outside_the_groups_of_others_is_told_apart_from_no_iommu(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=None)
    assert "other devices of this host are in one" in reason(tree, "0000:08:00.0")


#: A card of AMD, whose virtual functions are GPUs of their own.
INSTINCT = "1002:692f"


def test_a_physical_function_with_virtual_ones_is_refused_and_they_are_not(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", device_id=INSTINCT, group=20, driver="gim")
    tree.pci("0000:08:00.4", INSTINCT, trees.GPU_CLASS, group=21, physfn="0000:08:00.0")
    assert reason(tree, "0000:08:00.0") == (
        "'0000:08:00.0' has virtual functions, which would vanish with it: 0000:08:00.4."
    )
    assert found(tree)["0000:08:00.4"].assignable


@pytest.mark.parametrize("driver", ["", "vfio-pci"])
def test_a_virtual_function_is_refused_when_nothing_drives_its_physical_one(tree, driver):
    trees.gpu(trees.server(tree), "0000:08:00.0", device_id=INSTINCT, group=20, driver=driver)
    tree.pci("0000:08:00.4", INSTINCT, trees.GPU_CLASS, group=21, physfn="0000:08:00.0")
    assert "whose physical one, '0000:08:00.0', has no driver" in reason(tree, "0000:08:00.4")


def test_virtual_functions_of_an_a100_are_for_vgpus_and_of_many_a_few_are_named(tree):
    trees.a100_with_virtual_functions(tree)
    assert reason(tree, "0000:41:00.0") == (
        "'0000:41:00.0' has virtual functions, which would vanish with it: 0000:41:00.4, "
        "0000:41:00.5, 0000:41:00.6, 0000:41:00.7 and 12 more."
    )
    reasons = {item.reason for bdf, item in found(tree).items() if bdf != "0000:41:00.0"}
    (why,) = reasons
    assert why == (
        "The virtual functions of '0000:41:00.0' are for vGPUs of NVIDIA's own driver on this "
        "host, and no GPUs without it."
    )


def test_a_gpu_that_is_divided_into_vgpus_is_in_use(tree):
    trees.gpu(trees.server(tree), "0000:3b:00.0", device_id="10de:1eb8", group=40, driver="nvidia")
    assert found(tree)["0000:3b:00.0"].assignable
    card = tree.place("0000:3b:00.0").relative_to(tree.root)
    kind = tree.root / card / "mdev_supported_types/nvidia-222"
    kind.mkdir(parents=True)
    tree.link(f"{card}/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001/mdev_type", kind)
    assert reason(tree, "0000:3b:00.0") == (
        "'0000:3b:00.0' is divided into vGPUs: 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001."
    )


def test_the_nvswitches_of_an_hgx_may_share_a_group(tree):
    trees.hgx_h200(tree)
    switches = [item for item in found(tree).values() if item.id == "10de:22a3"]
    assert [item.bdf for item in switches] == [
        f"0000:{bus}:00.0" for bus in ("05", "06", "07", "08")
    ]
    assert all(item.assignable and "goes along when one node" in item.reason for item in switches)


# -- the root disk --------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True], ids=["partition", "lvm"])
def test_the_controller_of_the_root_disk_is_refused(tree, mapped):
    trees.server(tree)
    (tree.root / "proc/self/mountinfo").unlink()
    tree.pci("0000:03:00.0", "1000:005d", 0x010400, driver="megaraid_sas", group=9)
    tree.root_disk("0000:03:00.0", "sdb", mapped=mapped)
    assert reason(tree, "0000:03:00.0", extra_ids=["1000:005d"]) == (
        "'0000:03:00.0' is the controller of the root disk."
    )


def test_a_gpu_in_one_group_with_the_root_disk_is_refused_for_that(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=2)
    assert reason(tree, "0000:08:00.0") == (
        "IOMMU group 2 of '0000:08:00.0' holds the controller of the root disk, '0000:00:17.0'."
    )


def test_a_controller_with_a_mounted_file_system_is_refused_and_one_without_is_not(tree):
    trees.server(tree)
    for number, group in ((1, 21), (2, 22)):
        bdf = f"0000:0{number}:00.0"
        place = tree.pci(bdf, "8086:5845", trees.NVME_CLASS, driver="nvme", group=group)
        tree.block(place / f"nvme/nvme{number}/nvme{number}n1", f"259:{number}")
    tree.mount("/scratch space".replace(" ", "\\040"), "/dev/nvme1n1", "259:1", "xfs")
    items = found(tree, extra_ids=["8086:5845"])
    assert items["0000:01:00.0"].reason == (
        "'0000:01:00.0' is the controller of the file system at '/scratch space'."
    )
    assert items["0000:02:00.0"].assignable


def test_a_disk_of_a_multipath_subsystem_leads_to_its_controllers(tree):
    trees.server(tree)
    place = tree.pci("0000:01:00.0", "8086:5845", trees.NVME_CLASS, driver="nvme", group=21)
    (place / "nvme/nvme0").mkdir(parents=True)
    subsystem = tree.root / "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    tree.block(subsystem / "nvme0n1", "259:0").mount("/data", "/dev/nvme0n1", "259:0")
    tree.link(str((subsystem / "nvme0").relative_to(tree.root)), place / "nvme/nvme0")
    assert "the file system at '/data'" in reason(tree, "0000:01:00.0", extra_ids=["8086:5845"])


def test_btrfs_is_found_by_its_source_and_swap_counts(tree):
    trees.server(tree)
    for number in (1, 2):
        bdf = f"0000:0{number}:00.0"
        place = tree.pci(bdf, "8086:5845", trees.NVME_CLASS, driver="nvme", group=20 + number)
        tree.block(place / f"nvme/nvme{number}/nvme{number}n1", f"259:{number}")
    tree.mount("/home", "/dev/nvme1n1", "0:44", "btrfs")
    tree.file(
        "/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme2n1 partition 1 0 -2\n"
    )
    items = found(tree, extra_ids=["8086:5845"])
    assert "file system at '/home'" in items["0000:01:00.0"].reason
    assert "file system at 'swap'" in items["0000:02:00.0"].reason


def test_no_storage_controller_is_given_away_while_the_root_disk_is_not_known(tree):
    trees.server(tree)
    (tree.root / "proc/self/mountinfo").unlink()
    tree.mount("/", "rpool/ROOT/debian", "0:25", "zfs")
    tree.pci("0000:01:00.0", "8086:5845", trees.NVME_CLASS, driver="nvme", group=21)
    trees.gpu(tree, "0000:08:00.0", group=22)
    assert "The disk that '/' is on cannot be told" in reason(
        tree, "0000:01:00.0", extra_ids=["8086:5845"]
    )
    assert found(tree)["0000:08:00.0"].assignable


def test_a_mount_table_that_cannot_be_read_is_named(tree):
    trees.dgx1v(tree).file("/proc/self/mountinfo", "22 1 8:2\n")
    with pytest.raises(UsageProblem, match="mountinfo' holds a line that cannot be read"):
        found(tree)


# -- the network ----------------------------------------------------------------------------


def test_the_card_of_the_default_route_is_refused(tree):
    trees.server(tree)
    (tree.root / "proc/net/route").unlink()
    a_network_card(tree, "enp4s0").route("enp4s0")
    assert reason(tree, "0000:04:00.0", extra_ids=[E1000E]) == (
        "'0000:04:00.0' is the network card of the default route ('enp4s0')."
    )


def test_the_default_route_is_followed_through_vlan_bridge_and_bond(tree):
    trees.server(tree)
    (tree.root / "proc/net/route").unlink()
    a_network_card(tree, "enp4s0")
    tree.net("bond0", lower=["enp4s0"]).net("bond0.7", lower=["bond0"])
    tree.net("br0", lower=["bond0.7"], default=True)
    assert "the default route ('br0')" in reason(tree, "0000:04:00.0", extra_ids=[E1000E])


def test_the_default_route_of_ipv6_counts(tree):
    trees.server(tree)
    zero = "0" * 32
    a_network_card(tree, "enp4s0").file(
        "/proc/net/ipv6_route",
        f"{zero} 00 {zero} 00 fe80{'0' * 27}1 00000400 00000001 00000000 00000003   enp4s0\n",
    )
    assert "the default route ('enp4s0')" in reason(tree, "0000:04:00.0", extra_ids=[E1000E])


def test_a_gpu_in_one_group_with_the_default_route_is_refused_for_that(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=3)
    assert "holds the network card of the default route ('eno1'), '0000:00:1f.6'" in reason(
        tree, "0000:08:00.0"
    )


def test_a_card_with_any_other_route_is_in_use_and_one_without_is_free(tree):
    trees.server(tree)
    a_network_card(tree, "enp4s0")
    a_network_card(tree, "enp5s0", "0000:05:00.0", 15).route("enp5s0", "0000A8C0", "00FFFFFF")
    items = found(tree, extra_ids=[E1000E])
    assert items["0000:04:00.0"].assignable
    assert items["0000:05:00.0"].reason == (
        "'0000:05:00.0' carries traffic of this host ('enp5s0')."
    )


def test_a_card_under_a_bridge_without_address_is_in_use(tree):
    a_network_card(trees.server(tree), "enp4s0").net("br7", lower=["enp4s0"])
    assert reason(tree, "0000:04:00.0", extra_ids=[E1000E]) == (
        "'0000:04:00.0' carries traffic of this host ('br7')."
    )


def test_a_route_table_that_cannot_be_read_is_named(tree):
    trees.dgx1v(tree).file("/proc/net/route", "Iface\neno1\t0\t0\tUG\t0\t0\t0\t0\n")
    with pytest.raises(UsageProblem, match="route' holds a line that cannot be read: 'UG'"):
        found(tree)


# -- in use ---------------------------------------------------------------------------------


def test_a_gpu_that_a_program_has_open_is_refused_naming_the_program(tree):
    items = found(trees.nvidia_bound(tree))
    assert items["0000:08:00.0"].reason == (
        "'0000:08:00.0' is in use on this host by '/usr/bin/python3 train.py' (process 4711)."
    )
    assert items["0000:0a:00.0"].assignable


def test_where_the_driver_gives_no_minors_any_gpu_may_be_meant(tree):
    trees.dgx1v(tree, driver="nvidia").process(12, "burn", ["/dev/nvidia3"])
    assert not any(item.assignable for item in found(tree).values())


def test_a_screen_on_the_second_card_is_use(tree):
    trees.workstation(tree).process(99, "/usr/bin/Xorg :1", ["/dev/dri/card1"])
    (tree.place("0000:02:00.0") / "drm/card1").mkdir(parents=True)
    assert "'/usr/bin/Xorg :1' (process 99)" in reason(tree, "0000:02:00.0")


def test_the_fabric_manager_keeps_the_nvswitches(tree):
    trees.dgx2(tree, driver="nvidia").process(7, "nv-fabricmanager", ["/dev/nvidia-nvswitch0"])
    assert "'nv-fabricmanager' (process 7)" in reason(tree, "0000:10:00.0")


def test_a_group_that_another_program_has_open_is_refused(tree):
    trees.dgx1v(tree).process(55, "qemu-system-x86_64 -name other", ["/dev/vfio/40"])
    assert "'qemu-system-x86_64 -name other' (process 55)" in reason(tree, "0000:08:00.0")


def test_a_device_in_a_virtual_machine_is_refused(tree):
    guests = {Bdf.parse("08:00.0"): "win10"}
    assert reason(trees.dgx1v(tree), "0000:08:00.0", guests=guests) == (
        "'0000:08:00.0' is in the virtual machine 'win10'."
    )


def test_a_leased_device_says_who_holds_it_since_when(tree):
    holder = Holder(
        instance="ab12", user="ada", pid=77, process_started=5, since=1_790_000_000.0, domains=()
    )
    item = found(trees.dgx1v(tree), holders={40: holder})["0000:08:00.0"]
    assert not item.assignable and item.lease == holder
    assert item.reason == (
        f"'0000:08:00.0' is leased to cluster 'ab12' of user 'ada' since {holder.since_text}."
    )
