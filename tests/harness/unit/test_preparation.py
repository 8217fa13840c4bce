"""What has to change on a host for passthrough: every form that the files may have, both families
of distributions, both makers of CPUs, and what is refused."""

import struct
from pathlib import Path

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import modprobe, platform_facts
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.preparation import plan
from tests.harness.unit import pci_trees
from tests.harness.unit.pci_trees import NVSWITCH, V100, HostTree

GRUB = "GRUB_CMDLINE_LINUX_DEFAULT"


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A Debian host with a V100 and an NVSwitch, never prepared."""
    tree = pci_trees.server(HostTree(tmp_path / "host"))
    pci_trees.gpu(tree, "0000:08:00.0", group=40, driver="")
    tree.pci("0000:10:00.0", NVSWITCH, pci_trees.NVSWITCH_CLASS, group=60)
    tree.file("/etc/modules", "# /etc/modules: kernel modules to load at boot time.\nloop\n")
    tree.file("/etc/default/grub", f'GRUB_TIMEOUT=5\n{GRUB}="quiet"\nGRUB_CMDLINE_LINUX=""\n')
    return tree


def planned(tree: HostTree, *devices: str, softdep: bool = True) -> dict[str, str]:
    preparation = plan(Host(tree.root), devices or (V100, NVSWITCH), softdep=softdep)
    return {item.path: item.after or "" for item in preparation.files}


def as_rhel(tree: HostTree, *options: str) -> HostTree:
    (tree.root / "etc/modules").unlink()
    for number, words in enumerate(options or ("ro quiet",)):
        name = f"/boot/loader/entries/abc-5.14.0-{number}.x86_64.conf"
        tree.file(name, f"title Rocky\nlinux /vmlinuz\noptions root=/dev/sda2 {words}\n")
    return tree.os_release("rocky", "rhel centos fedora", "9.4")


# -- what the seed names ----------------------------------------------------------------------


def test_a_debian_host_gets_what_the_guide_says(tree):
    preparation = plan(Host(tree.root), [V100, NVSWITCH])
    assert {item.path: item.after for item in preparation.files} == {
        "/etc/modules": "# /etc/modules: kernel modules to load at boot time.\nloop\n"
        "pci_stub\nvfio\nvfio_iommu_type1\nvfio_pci\nkvm\nkvm_intel\n",
        "/etc/modules-load.d/vfio-pci.conf": "# Made by 'deepops-virtual gpu prepare'; "
        "'deepops-virtual gpu prepare --undo' removes it.\nvfio-pci\n",
        "/etc/modprobe.d/vfio.conf": "# Made by 'deepops-virtual gpu prepare'; "
        "'deepops-virtual gpu prepare --undo' removes it.\n"
        "options vfio-pci ids=10de:1db1,10de:1ac1\n",
        "/etc/default/grub": f'GRUB_TIMEOUT=5\n{GRUB}="quiet intel_iommu=on iommu=pt"\n'
        'GRUB_CMDLINE_LINUX=""\n',
    }
    assert [item.shown for item in preparation.commands] == [
        "update-grub",
        "update-initramfs -u -k all",
    ]
    assert {item.path: item.action for item in preparation.files}["/etc/modules"] == "edit"
    assert all(item.why for item in preparation.files)


def test_the_diff_shows_one_file_made_and_one_edited(tree):
    files = {item.path: item for item in plan(Host(tree.root), [V100]).files}
    assert (
        "--- /dev/null\n+++ /etc/modprobe.d/vfio.conf\n" in files["/etc/modprobe.d/vfio.conf"].diff
    )
    assert '-GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n+' in files["/etc/default/grub"].diff


def test_a_host_made_ready_by_hand_is_left_alone(tree):
    for path, text in planned(tree).items():
        tree.file(path, text)
    assert not plan(Host(tree.root), [NVSWITCH, V100]).changed


def test_an_rhel_host_has_its_modules_in_one_place_and_is_started_by_grubby(tree):
    preparation = plan(Host(as_rhel(tree).root), [V100])
    files = {item.path: item.after or "" for item in preparation.files}
    assert set(files) == {
        "/etc/modules-load.d/vfio-pci.conf",
        "/etc/modprobe.d/vfio.conf",
        "/etc/dracut.conf.d/deepops-passthrough.conf",
    }
    lines = files["/etc/modules-load.d/vfio-pci.conf"].splitlines()[1:]
    assert lines == ["pci_stub", "vfio", "vfio_iommu_type1", "vfio-pci", "kvm", "kvm_intel"]
    grubby, dracut = preparation.commands
    assert grubby.argv == ("grubby", "--update-kernel=ALL", "--args=intel_iommu=on iommu=pt")
    assert grubby.undo == ("grubby", "--update-kernel=ALL", "--remove-args=intel_iommu iommu")
    assert dracut.argv == ("dracut", "-f", "--regenerate-all")


def test_grubby_brings_back_a_value_that_was_there(tree):
    host = Host(as_rhel(tree, "intel_iommu=off", "intel_iommu=off iommu=pt").root)
    assert plan(host, [V100]).commands[0].undo == (
        "grubby", "--update-kernel=ALL", "--args=intel_iommu=off iommu=pt",
    )  # fmt: skip


def test_entries_that_have_the_parameters_need_no_grubby(tree):
    as_rhel(tree, "$kernelopts", "intel_iommu=on iommu=pt")
    tree.file("/boot/grub2/grubenv", "# GRUB\nkernelopts=ro intel_iommu=on iommu=pt\n")
    assert [item.argv[0] for item in plan(Host(tree.root), [V100]).commands] == ["dracut"]


def test_an_amd_host_gets_amd_parameters_and_modules(tmp_path):
    tree = pci_trees.amd_iommu(HostTree(tmp_path / "host"))
    tree.file("/etc/modules", "").file("/etc/default/grub", f'{GRUB}="quiet"\n')
    files = planned(tree, "10de:20b2")
    assert files["/etc/default/grub"] == f'{GRUB}="quiet amd_iommu=on iommu=pt"\n'
    assert files["/etc/modules"].endswith("kvm\nkvm_amd\n")


def test_the_firmware_tells_whose_iommu_it_is_and_not_the_processor(tree):
    tree.cpu("svm")
    assert "intel_iommu=on" in planned(tree)["/etc/default/grub"]
    (tree.root / "sys/firmware/acpi/tables/DMAR").unlink()
    assert "amd_iommu=on" in planned(tree)["/etc/default/grub"]


def test_debian_without_etc_modules_has_all_of_them_in_modules_load_d(tree):
    (tree.root / "etc/modules").unlink()
    files = planned(tree)
    assert "/etc/modules" not in files
    assert files["/etc/modules-load.d/vfio-pci.conf"].splitlines()[1] == "pci_stub"


def test_bytes_that_are_no_utf8_stay(tree):
    (tree.root / "etc/modules").write_bytes(b"# Gr\xfc\xdfe\r\nloop")
    change = next(it for it in plan(Host(tree.root), [V100]).files if it.path == "/etc/modules")
    data = (change.after or "").encode("utf-8", "surrogateescape")
    assert data.startswith(b"# Gr\xfc\xdfe\r\nloop\npci_stub\n")


# -- modules ----------------------------------------------------------------------------------


def test_a_module_is_listed_whatever_its_dash_and_comments():
    text = "# kvm\n; vfio\n  vfio-pci ids=1:2\nkvm_intel\n"
    assert modprobe.missing_modules(text, ["kvm", "vfio", "vfio_pci", "kvm-intel"]) == (
        "kvm",
        "vfio",
    )


def test_a_module_is_added_after_a_last_line_without_an_end():
    assert modprobe.with_lines("loop", ["kvm"]) == "loop\nkvm\n"
    assert modprobe.with_lines("kvm", []) == "kvm"


# -- modprobe.d -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "options vfio-pci ids=10de:1db1\n"),
        ("# mine\n", "# mine\noptions vfio-pci ids=10de:1db1\n"),
        ("options vfio-pci disable_vga=1\n",
         "options vfio-pci disable_vga=1\noptions vfio-pci ids=10de:1db1\n"),
        ("options vfio_pci ids=8086:10d3 disable_vga=1\n",
         "options vfio_pci ids=8086:10d3,10de:1db1 disable_vga=1\n"),
        ("options vfio-pci disable_vga=1 \\\n  ids=8086:10d3\nx y\n",
         "options vfio-pci disable_vga=1 \\\n  ids=8086:10d3,10de:1db1\nx y\n"),
        ('options vfio-pci ids="8086:10d3"\n', 'options vfio-pci ids="8086:10d3,10de:1db1"\n'),
        ("options vfio-pci ids=\n", "options vfio-pci ids=10de:1db1\n"),
        ("options vfio-pci ids=10DE:1DB1\n", "options vfio-pci ids=10DE:1DB1\n"),
        ("#options vfio-pci ids=10de:1db1\n",
         "#options vfio-pci ids=10de:1db1\noptions vfio-pci ids=10de:1db1\n"),
    ],
)  # fmt: skip
def test_ids_join_those_that_are_there(before, after):
    assert modprobe.with_ids(before, ["10de:1db1"]) == after


def test_ids_go_into_the_file_that_is_read_last(tree):
    tree.file("/etc/modprobe.d/zz-mine.conf", "options vfio-pci ids=8086:10d3\n")
    files = planned(tree, V100)
    assert files["/etc/modprobe.d/zz-mine.conf"] == "options vfio-pci ids=8086:10d3,10de:1db1\n"
    assert "/etc/modprobe.d/vfio.conf" not in files


def test_ids_in_a_file_of_a_package_are_refused(tree):
    tree.file("/usr/lib/modprobe.d/zz.conf", "options vfio-pci ids=8086:10d3\n")
    with pytest.raises(UsageProblem, match="not a file of yours to change"):
        plan(Host(tree.root), [V100])


def test_where_vfio_is_built_in_the_ids_are_on_the_command_line(tree):
    tree.file("/lib/modules/6.8.0/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    files = planned(tree)
    ids = "vfio-pci.ids=10de:1db1,10de:1ac1"
    assert files["/etc/default/grub"].splitlines()[1] == (
        f'{GRUB}="quiet intel_iommu=on iommu=pt {ids}"'
    )
    tree.file("/etc/default/grub", f'{GRUB}="vfio_pci.ids=8086:10d3 intel_iommu=on iommu=pt"\n')
    assert "vfio_pci.ids=8086:10d3,10de:1db1 intel" in planned(tree, V100)["/etc/default/grub"]


def test_a_driver_that_has_the_device_has_to_wait_for_vfio(tmp_path):
    tree = pci_trees.nvidia_bound(HostTree(tmp_path / "host"))
    tree.file("/etc/default/grub", f'{GRUB}=""\n')
    path = "/etc/modprobe.d/00-deepops-passthrough.conf"
    assert planned(tree, V100)[path].splitlines()[1:] == ["softdep nvidia pre: vfio-pci"]
    assert path not in planned(tree, V100, softdep=False)


def test_drivers_that_would_take_the_device_are_found_by_the_kernels_own_list(tree):
    tree.file(
        "/lib/modules/6.1.0/modules.alias",
        "# Aliases\n"
        "alias pci:v000010DEd*sv*sd*bc03sc02i00* nvidia\n"
        "alias pci:v000010DEd*sv*sd*bc03sc00i00* nvidiafb\n"
        "alias pci:v000010DEd*sv*sd*bc03* nouveau\n"
        "alias pci:v*d*sv*sd*bc06sc80i* anything\n"
        "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n"
        "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n",
    )
    host = Host(tree.root)
    assert platform_facts.rival_modules(host, host.with_id(V100)) == ("nouveau", "nvidia")
    assert platform_facts.rival_modules(host, host.with_id(NVSWITCH)) == ("anything",)


SOFTDEPS = "/etc/modprobe.d/00-deepops-passthrough.conf"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\n\nsoftdep nvidia pre: i2c\n",
         "# mine\n\nsoftdep nvidia pre: i2c vfio-pci\nsoftdep nvidia pre: i2c\n"),
        ("softdep nvidia pre: i2c", "softdep nvidia pre: i2c vfio-pci\nsoftdep nvidia pre: i2c"),
        ("# mine\n# no break", "# mine\n# no break\nsoftdep nvidia pre: vfio-pci\n"),
        ("", "softdep nvidia pre: vfio-pci\n"),
    ],
)  # fmt: skip
def test_a_softdep_comes_before_the_line_that_counted(tree, before, after):
    tree.bind("0000:08:00.0", "nvidia").file(SOFTDEPS, before)
    assert planned(tree, V100)[SOFTDEPS] == after
    tree.file(SOFTDEPS, after)
    assert SOFTDEPS not in planned(tree, V100)


def test_a_softdep_of_a_file_that_is_read_earlier_is_refused_with_the_line(tree):
    tree.bind("0000:08:00.0", "nvidia").file("/etc/modprobe.d/00-a.conf", "softdep nv* pre: i2c\n")
    with pytest.raises(UsageProblem, match=r"00-a\.conf' says before any other") as refused:
        plan(Host(tree.root), [V100])
    assert refused.value.hint.startswith("write there: softdep nvidia pre: i2c vfio-pci ")
    tree.file("/etc/modprobe.d/00-a.conf", "softdep nv* pre: i2c vfio-pci\n")
    assert SOFTDEPS not in planned(tree, V100)


def test_a_softdep_takes_over_what_counted_before_and_leaves_the_blacklisted_out():
    files = {
        "/etc/modprobe.d/a.conf": "softdep nvidia post: nvidia-uvm\nblacklist nouveau\n",
        "/etc/modprobe.d/b.conf": "softdep nvidia pre: vfio-pci\nsoftdep ahci pre: vfio_pci\n",
    }
    found = modprobe.missing_softdeps(files, ["nvidia", "nouveau", "ahci"])
    assert list(map(str, found)) == ["softdep nvidia pre: vfio-pci post: nvidia-uvm"]


# -- interrupt remapping ----------------------------------------------------------------------


def dmar(tree: HostTree, flags: int) -> HostTree:
    for link in (tree.root / "sys/class/iommu").glob("*"):
        link.unlink()
    table = b"DMAR" + struct.pack("<I", 48) + bytes(28) + bytes([38, flags]) + bytes(10)
    (tree.root / "sys/firmware/acpi/tables/DMAR").write_bytes(table)
    return tree


def test_unsafe_interrupts_are_allowed_only_where_there_is_no_remapping(tree):
    without = plan(Host(dmar(tree, 0).root), [V100])
    text = next(item for item in without.files if item.path == "/etc/default/grub")
    assert 'iommu=pt vfio_iommu_type1.allow_unsafe_interrupts=1"' in (text.after or "")
    assert "cannot remap interrupts" in " ".join(text.why)
    assert "unsafe" not in planned(dmar(tree, 1))["/etc/default/grub"]


def test_remapping_that_cannot_be_told_yet_is_noted(tree):
    (dmar(tree, 1).root / "sys/firmware/acpi/tables/DMAR").unlink()
    preparation = plan(Host(tree.root), [V100])
    assert "allow_unsafe_interrupts" in preparation.notes[-1]
    assert "unsafe" not in planned(tree)["/etc/default/grub"]


def test_an_iommu_that_is_on_tells_itself(tree):
    assert platform_facts.interrupt_remapping(Host(tree.root)) is True
    tree.iommu("dmar1", interrupt_remapping=False)
    assert platform_facts.interrupt_remapping(Host(tree.root)) is False


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("10de", "'10de' is not a device ID"),
        ("10de:1dbx", "is not a device ID"),
        ("08:00.0", "is an address; a host is prepared for all devices of a vendor:device"),
        ("10de:ffff", "This host has no device '10de:ffff'"),
        ("8086:a102", "'0000:00:17.0' is the controller of the root disk"),
        ("8086:15b7", "is the network card of the default route .'eno1'."),
        ("8086:6f04", r"is a part of the board \(PCI bridge\), which stays"),
    ],
)
def test_an_id_that_cannot_be_had_is_refused(tree, device, why):
    with pytest.raises(UsageProblem, match=why):
        plan(Host(tree.root), [V100, device])


def test_a_host_without_grub_is_refused(tree):
    (tree.root / "etc/default/grub").unlink()
    with pytest.raises(UsageProblem, match="only GRUB can be prepared"):
        plan(Host(tree.root), [V100])


def test_an_id_that_the_boot_display_shares_is_refused(tmp_path):
    tree = pci_trees.workstation(HostTree(tmp_path / "host"))
    with pytest.raises(UsageProblem) as caught:
        plan(Host(tree.root), ["10de:1b06"])
    assert caught.value.message == (
        "'10de:1b06' is refused: '0000:01:00.0', one of 2, is the boot display, and vfio-pci "
        "takes every device of an ID at boot."
    )


def test_a_network_card_in_use_is_noted_and_not_refused(tree):
    tree.pci("0000:04:00.0", "8086:10d3", pci_trees.NIC_CLASS, driver="e1000e", group=70)
    tree.net("enp4s0", "0000:04:00.0")
    assert plan(Host(tree.root), ["8086:10d3"]).notes == ()
    tree.file("/sys/class/net/enp4s0/operstate", "up\n")
    (note,) = plan(Host(tree.root), ["8086:10d3"]).notes
    assert note == (
        "'0000:04:00.0' (Ethernet controller) is up now: 'enp4s0'. From the next boot on this "
        "host is without it."
    )
    tree.route("enp4s0", "0000A8C0", "00FFFFFF")
    assert " carries traffic now: 'enp4s0'. " in plan(Host(tree.root), ["8086:10d3"]).notes[0]


def test_what_goes_along_with_a_device_is_noted(tmp_path):
    tree = pci_trees.workstation(HostTree(tmp_path / "host"))
    (tree.place("0000:01:00.0") / "boot_vga").write_text("0\n")
    tree.file("/etc/default/grub", f'{GRUB}=""\n')
    notes = plan(Host(tree.root), ["10de:1b06"]).notes
    assert "add --device 10de:10ef" in notes[0]
    assert not plan(Host(tree.root), ["10de:1b06", "10de:10ef"]).notes


def test_nvswitches_that_are_not_named_with_their_gpus_are_noted(tree):
    (note,) = plan(Host(tree.root), [V100]).notes
    assert note.startswith("The NVSwitches of this host go along when one node gets every GPU: ")
    assert note.endswith(f"add --device {NVSWITCH}.")
    assert not plan(Host(tree.root), [V100, NVSWITCH]).notes
    assert not plan(Host(tree.root), [NVSWITCH]).notes


def test_a_host_without_groups_yet_can_be_prepared(tmp_path):
    tree = pci_trees.no_iommu(HostTree(tmp_path / "host"))
    tree.file("/etc/default/grub", f'{GRUB}=""\n')
    assert "intel_iommu=on" in planned(tree, V100)["/etc/default/grub"]


def test_an_unknown_system_and_cpu_are_refused(tree):
    tree.os_release("alpine", "", "3.20")
    with pytest.raises(UsageProblem, match=r"This host runs alpine 3\.20; only Debian"):
        plan(Host(tree.root), [V100])
    tree.os_release().file("/proc/cpuinfo", "vendor_id\t: CentaurHauls\n")
    with pytest.raises(UsageProblem, match="says 'CentaurHauls'"):
        plan(Host(tree.root), [V100])


def test_a_file_that_is_a_link_is_refused(tree):
    place = tree.root / "etc/default/grub"
    place.rename(tree.root / "etc/default/real")
    place.symlink_to("real")
    with pytest.raises(UsageProblem, match="is a link to 'real'; only plain files"):
        plan(Host(tree.root), [V100])
