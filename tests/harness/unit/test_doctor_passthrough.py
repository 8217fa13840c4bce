"""The doctor on hosts with GPUs, each a folder: what it sees of the BIOS and the IOMMU, and
what it says mends it. Every check is seen to be content and to object."""

import pytest

from deepops_fixtures.doctor import run
from tests.harness.unit import pci_trees
from tests.harness.unit.doctors import ask, prepared
from tests.harness.unit.pci_trees import GIB, GPU_CLASS, MIB, HostTree, dgx2

ABOUT_PASSTHROUGH = (
    "bios", "iommu-table", "iommu-groups", "kernel-command-line", "boot-loader",
    "interrupt-remapping", "mmio-above-4g", "preparation", "etc-modules",
    "vfio-modules", "vfio-on-boot", "vfio-ids", "driver-softdep", "driver-in-use", "vfio-log",
    "gpus",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path / "host")


@pytest.fixture
def ready(tree):
    """A DGX-2 that was prepared as the README says."""
    return prepared(dgx2(tree))


def without_iommu(tree: HostTree) -> HostTree:
    """A V100 behind an IOMMU that is off in the BIOS."""
    return pci_trees.no_iommu(tree).acpi_table("APIC")


def test_a_prepared_dgx2_is_ready(ready):
    checks = [ask(ready, name, gpu="8") for name in ABOUT_PASSTHROUGH]
    others = {check.name: check for check in checks if (check.status, check.fix) != ("ok", "")}
    assert list(others) == ["preparation"]
    assert others["preparation"].detail == "'gpu prepare' was not used on this host"


def test_a_host_without_gpu_has_nothing_to_say_when_none_is_asked_for(tree):
    pci_trees.server(tree)
    checks = [ask(tree, name, gpu="") for name in ABOUT_PASSTHROUGH]
    assert {(check.status, check.detail) for check in checks} == {
        ("skip", "no GPU is asked for, and this host has none")
    }


def test_these_are_all_the_checks_about_passthrough():
    names = [item.name for item in run.QUESTIONS if item.about == "passthrough"]
    assert names == list(ABOUT_PASSTHROUGH)


def test_passthrough_only_warns_while_no_gpu_is_asked_for(tree):
    without_iommu(tree)
    assert ask(tree, "iommu-groups", gpu="").status == "warn"
    assert ask(tree, "iommu-groups", gpu="auto").status == "fail"


# -- the BIOS -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "menus"),
    [
        ("DGX-1 with V100-32", {
            "cpu-flags": "VT-x: Intel RC Setup -> Processor Configuration -> VMX",
            "iommu-table": "VT-d: Intel RC Setup -> IIO Configuration -> VT-d",
            "mmio-above-4g": "MMIO above 4G: Advanced -> PCI Subsystem Setting -> "
                             "Above 4G Encoding",
        }),
        ("NVIDIA DGX-1", {"iommu-table": "DGX-1/1V SBIOS, then restart: VT-d: Intel RC Setup"}),
        ("DGX-2", {
            "cpu-flags": "DGX-2 SBIOS, then restart: VT-x: enable",
            "iommu-table": "VT-d: enable",
            "mmio-above-4g": "MMIO above 4G: enable",
            "bios": "VT-x: enable; VT-d: enable; Intel AMT: disable",
        }),
        ("NVIDIA DGX-2H", {"iommu-table": "DGX-2 SBIOS, then restart: VT-d: enable"}),
        ("DGX Station", {
            "iommu-table": "DGX Station SBIOS, then restart: VT-d: enable (its menu is not on "
                           "record)",
            "mmio-above-4g": "verify virtualization support is enabled in the BIOS",
        }),
        ("DGXA100 920-23687-2531-001", {"iommu-table": "enable in the BIOS, then restart: "}),
        ("DGXH100", {"iommu-table": "enable in the BIOS, then restart: Intel VT-d"}),
        ("DGX Station A100 920-23487-2530-000", {"iommu-table": "enable in the BIOS, then re"}),
        ("DGX Station GB300", {"iommu-table": "enable in the BIOS, then restart: Intel VT-d"}),
        ("PowerEdge C4140", {
            "cpu-flags": "enable in the BIOS, then restart: Intel VT-x",
            "iommu-table": "enable in the BIOS, then restart: Intel VT-d",
            "mmio-above-4g": "'MMIO above 4G' ('Above 4G encoding', 'Above 4G decoding')",
        }),
    ],
)  # fmt: skip
def test_the_readmes_menus_are_named_for_the_machine(tree, product, menus):
    without_iommu(tree).dmi(product).cpu("")
    (tree.place("0000:08:00.0") / "resource").write_text("0x0 0x0 0x0\n" * 6)
    for name, text in menus.items():
        check = ask(tree, name, accelerator="kvm")
        assert check.status in ("fail", "warn")
        assert text in check.fix, name


def test_amd_has_other_words_for_the_same_settings(tree):
    without_iommu(tree).cpu("svm").dmi("R282-Z93", "GIGABYTE")
    assert ask(tree, "iommu-table").fix == ("enable in the BIOS, then restart: AMD-Vi ('IOMMU')")


def test_a_virtual_machine_is_mended_beneath_it(tree):
    without_iommu(tree).file("/proc/cpuinfo", "processor: 0\nflags: hypervisor vmx\n")
    assert "on the host beneath" in ask(tree, "iommu-table").fix
    assert "-device intel-iommu" in ask(tree, "iommu-table").fix


def test_an_iommu_without_a_table_of_the_firmware_is_one_all_the_same(ready):
    (ready.root / "sys/firmware/acpi/tables/DMAR").unlink()
    assert ask(ready, "iommu-table").status == "ok"


def test_a_saved_tree_without_the_firmwares_tables_is_not_judged_by_them(tree):
    pci_trees.no_iommu(tree).dmi("DGX-2")
    assert ask(tree, "iommu-table").status == "skip"
    assert "not to be seen from here: VT-d" in ask(tree, "bios").detail


def test_a_machine_that_does_not_say_its_name_has_no_menus(tree):
    assert ask(pci_trees.nonzero_domain(tree), "bios").status == "skip"


# -- the IOMMU ------------------------------------------------------------------------------


def test_no_table_of_the_firmware_is_an_iommu_that_is_off(tree):
    check = ask(without_iommu(tree), "iommu-table")
    assert (check.status, "no ACPI table DMAR or IVRS" in check.detail) == ("fail", True)


def test_groups_are_missing_while_the_kernel_does_not_use_the_iommu(tree):
    check = ask(without_iommu(tree).acpi_table("DMAR"), "iommu-groups")
    assert check.status == "fail"
    assert check.fix == (
        "sudo deepops-virtual gpu prepare --device 10de:1db1 --apply, then reboot"
    )


def test_a_kernel_that_was_told_and_makes_no_groups_says_why_in_its_log(tree):
    without_iommu(tree).acpi_table("DMAR").cmdline("intel_iommu=on")
    assert "sudo dmesg" in ask(tree, "iommu-groups").fix


@pytest.mark.parametrize(
    ("parameters", "status", "said"),
    [
        (("intel_iommu=on",), "ok", "started with 'intel_iommu=on'"),
        (("intel_iommu=on,sm_on",), "ok", "started with 'intel_iommu=on'"),
        ((), "fail", "started without 'intel_iommu=on'"),
        (("intel_iommu=on", "intel_iommu=off"), "fail", "started with 'intel_iommu=off'"),
        (("iommu=off",), "fail", "started with 'iommu=off'"),
    ],
)
def test_the_kernel_is_told_to_use_the_iommu(tree, parameters, status, said):
    check = ask(without_iommu(tree).cmdline(*parameters), "kernel-command-line")
    assert (check.status, said in check.detail) == (status, True), check.detail


def test_a_kernel_that_uses_the_iommu_by_itself_needs_no_parameter(ready):
    ready.cmdline().file("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    for name in ("kernel-command-line", "boot-loader"):
        check = ask(ready, name)
        assert check.status == "ok"
        assert "this kernel turns the IOMMU on by itself" in check.detail


def test_amd_needs_no_parameter(tree):
    pci_trees.amd_iommu(tree)
    assert ask(tree, "iommu-table").detail == "the firmware has an ACPI table IVRS"
    assert ask(tree, "kernel-command-line").status == "ok"
    assert ask(tree, "interrupt-remapping").status == "ok"


GRUB = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet {}"\n'


@pytest.mark.parametrize(
    ("running", "written", "status", "said"),
    [
        ("quiet", "intel_iommu=on", "fail", "not rebooted since"),
        ("quiet", "", "fail", "the boot loader's settings lack 'intel_iommu=on'"),
        ("intel_iommu=on", "", "warn", "gone after the next boot"),
        ("intel_iommu=on", "intel_iommu=on iommu=pt", "ok", "was started so"),
    ],
)
def test_the_boot_loader_is_compared_with_the_running_kernel(tree, running, written, status, said):
    without_iommu(tree).cmdline(running).file("/etc/default/grub", GRUB.format(written))
    check = ask(tree, "boot-loader")
    assert (check.status, said in check.detail) == (status, True), check.detail


def test_on_the_rhel_family_the_boot_entries_are_read(tree):
    without_iommu(tree).os_release("rocky", "rhel centos fedora", "9").cmdline()
    tree.file("/boot/loader/entries/a.conf", "title Rocky\noptions root=/dev/sda2 ro\n")
    assert "settings lack 'intel_iommu=on'" in ask(tree, "boot-loader").detail
    tree.file("/boot/loader/entries/a.conf", "title Rocky\noptions ro intel_iommu=on\n")
    check = ask(tree, "boot-loader")
    assert (check.status, check.fix) == ("fail", "reboot")


def test_another_boot_loader_is_not_judged(ready):
    (ready.root / "etc/default/grub").unlink()
    assert ask(ready, "boot-loader").status == "skip"


def test_interrupts_that_bypass_the_iommu_are_refused_by_vfio(ready):
    ready.file("/proc/interrupts", "  1:  0  4  IO-APIC  1-edge  i8042\n")
    check = ask(ready, "interrupt-remapping")
    assert check.status == "fail"
    assert "the hardware could, the kernel does not" in check.detail
    assert "vfio_iommu_type1.allow_unsafe_interrupts=1" in check.fix


def test_unsafe_interrupts_that_were_allowed_are_a_warning(ready):
    ready.file("/proc/interrupts", "  1:  0  4  IO-APIC  1-edge  i8042\n")
    ready.file("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")
    check = ask(ready, "interrupt-remapping")
    assert (check.status, "a guest could disturb this host" in check.detail) == ("warn", True)


@pytest.mark.parametrize(
    "line",
    ["DMAR-IR: Enabled IRQ remapping in x2apic mode", "AMD-Vi: Interrupt remapping enabled"],
)
def test_the_kernel_log_tells_of_interrupt_remapping(ready, line):
    (ready.root / "proc/interrupts").unlink()
    check = ask(ready.file("/var/log/dmesg", f"[    0.3] {line}\n"), "interrupt-remapping")
    assert (check.status, check.detail) == ("ok", f"the kernel log says '{line}'")


def test_without_an_iommu_interrupts_are_not_judged(tree):
    assert ask(without_iommu(tree), "interrupt-remapping").status == "skip"


# -- large windows --------------------------------------------------------------------------


def test_a_large_window_without_an_address_is_a_bios_setting(ready):
    lines = (ready.place("0000:0a:00.0") / "resource").read_text().splitlines()
    lines[1] = f"0x{0:016x} 0x{16 * GIB - 1:016x} 0x000000002014220c"
    (ready.place("0000:0a:00.0") / "resource").write_text("\n".join(lines))
    check = ask(ready, "mmio-above-4g", gpu="0a:00.0")
    assert check.detail == "no address for BAR 1 of '0000:0a:00.0' (16 GiB)"
    assert (check.status, check.fix) == (
        "fail",
        "DGX-2 SBIOS, then restart: MMIO above 4G: enable",
    )
    assert ask(ready, "mmio-above-4g", gpu="08:00.0").status == "ok"


def test_a_window_that_the_kernel_wiped_out_is_missed(ready):
    lines = (ready.place("0000:0a:00.0") / "resource").read_text().splitlines()
    lines[1] = lines[2]
    (ready.place("0000:0a:00.0") / "resource").write_text("\n".join(lines))
    check = ask(ready, "mmio-above-4g", gpu="0a:00.0")
    assert (check.status, check.detail) == ("fail", "no address for BAR 1 of '0000:0a:00.0'")


def test_the_memory_of_a_hopper_is_its_window_2(ready):
    port = "0000:00:0f.0"
    ready.bridge(port)
    windows = [(0x2280_4200_0000, 16 * MIB), None, (0x2200_0000_0000, 128 * GIB)]
    h100 = ready.pci("0000:0f:00.0", "10de:2330", GPU_CLASS, group=80, under=port, bars=windows)
    assert ask(ready, "mmio-above-4g", gpu="0f:00.0").status == "ok"
    lines = (h100 / "resource").read_text().splitlines()
    lines[2] = lines[1]
    (h100 / "resource").write_text("\n".join(lines))
    assert ask(ready, "mmio-above-4g", gpu="0f:00.0").detail == (
        "no address for BAR 2 of '0000:0f:00.0'"
    )


def test_devices_with_small_windows_need_no_room_above_4_gib(ready):
    ready.pci("0000:07:00.0", "8086:10d3", 0x020000, group=70, bars=[(0x9000_0000, 131072)])
    check = ask(ready, "mmio-above-4g", gpu="8086:10d3")
    assert check.detail == "none of the 1 devices has a window of 256 MiB or more"
