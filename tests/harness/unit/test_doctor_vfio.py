"""The doctor on hosts with GPUs, each a folder: which driver has the devices now and after the
next boot, and which GPUs a run would get."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.passthrough import prepared as prepared_by
from deepops_fixtures.passthrough.backup import MANIFEST
from deepops_fixtures.passthrough.pci import Host
from tests.harness.unit import pci_trees
from tests.harness.unit.doctors import LOG, MODULES, ask, case, prepared
from tests.harness.unit.pci_trees import GPU_CLASS, HostTree, dgx1v, dgx2


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path / "host")


@pytest.fixture
def ready(tree):
    """A DGX-2 that was prepared as the README says."""
    return prepared(dgx2(tree))


# -- vfio -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["vfio", "vfio_iommu_type1", "vfio_pci"])
def test_a_module_that_is_not_loaded_is_named(ready, gone):
    (ready.root / "sys/module" / gone).rmdir()
    check = ask(ready, "vfio-modules")
    assert (check.status, check.detail, check.fix) == (
        "fail",
        f"not loaded: {gone}",
        "sudo modprobe vfio-pci",
    )


def test_modules_built_into_the_kernel_count(ready):
    for name in MODULES:
        (ready.root / "sys/module" / name).rmdir()
    ready.file("/proc/sys/kernel/osrelease", "6.1.0\n").file("/etc/modules", "")
    (ready.root / "etc/modules-load.d/vfio-pci.conf").unlink()
    ready.file("/lib/modules/6.1.0/modules.builtin", "".join(
        f"kernel/drivers/x/{name.replace('_', '-')}.ko\n" for name in MODULES))  # fmt: skip
    for name in ("vfio-modules", "etc-modules", "vfio-on-boot"):
        assert ask(ready, name).status == "ok", name


def test_missing_lines_of_etc_modules_are_named(ready):
    ready.file("/etc/modules", "vfio\nkvm\n")
    check = ask(ready, "etc-modules")
    assert check.status == "warn"
    assert "has pci_stub, vfio_iommu_type1, kvm_intel;" in check.detail
    (ready.root / "sys/module/vfio_iommu_type1").rmdir()
    assert ask(ready, "etc-modules").status == "fail"


def test_vfio_pci_has_to_come_at_boot(ready):
    (ready.root / "etc/modules-load.d/vfio-pci.conf").unlink()
    ready.file("/etc/modules", "vfio\n")
    assert ask(ready, "vfio-on-boot").status == "warn"
    (ready.root / "sys/module/vfio_pci").rmdir()
    check = ask(ready, "vfio-on-boot", gpu="8")
    assert (check.status, "gpu prepare --device 10de:1db1" in check.fix) == ("fail", True)


def test_ids_that_vfio_pci_is_not_given_are_named(ready):
    ready.file("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:1ac1\n")
    check = ask(ready, "vfio-ids")
    assert (check.status, "has 10de:1db1;" in check.detail) == ("warn", True)
    ready.bind("0000:08:00.0", "nvidia")
    assert ask(ready, "vfio-ids", gpu="08:00.0").status == "fail"


def test_ids_on_the_kernels_command_line_count(ready):
    (ready.root / "etc/modprobe.d/vfio.conf").unlink()
    ready.cmdline("intel_iommu=on", "vfio-pci.ids=10DE:1DB1,10de:1ac1")
    assert ask(ready, "vfio-ids", gpu="8").status == "ok"


@pytest.mark.parametrize("built_in", [False, True])
def test_ids_of_modprobe_d_do_not_count_beside_those_of_the_command_line(ready, built_in):
    if built_in:
        ready.file("/lib/modules/6.1/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    else:
        ready.cmdline("intel_iommu=on", "vfio-pci.ids=8086:10d3")
    check = ask(ready, "vfio-ids", gpu="8")
    assert check.status == "warn"
    assert "on the kernel's command line lacks 10de:1db1, 10de:1ac1, and counts" in check.detail


@pytest.fixture
def taken(tree):
    """A DGX-1V whose GPUs the nvidia driver took at boot."""
    return pci_trees.nvidia_bound(tree)


def test_the_nvidia_driver_instead_of_vfio_pci_is_named(taken):
    check = ask(taken, "driver-in-use", gpu="0a:00.0")
    assert check.detail == ("kernel driver in use: 'nvidia' for 0000:0a:00.0 instead of vfio-pci")
    assert check.status == "fail"
    assert check.fix.endswith("sudo deepops-virtual gpu bind 0000:0a:00.0")


def test_a_driver_that_comes_first_is_held_back_by_a_softdep(taken):
    check = ask(taken, "driver-softdep", gpu="0a:00.0")
    assert (check.status, "driver 'nvidia' may take the devices first" in check.detail) == (
        "fail",
        True,
    )
    taken.file("/etc/modprobe.d/nvidia.conf", "softdep nvidia pre: vfio-pci\n")
    check = ask(taken, "driver-softdep", gpu="0a:00.0")
    assert (check.status, check.detail) == ("ok", "held back in '/etc/modprobe.d': nvidia")


def test_a_driver_that_was_blacklisted_is_held_back(taken):
    taken.file("/etc/modprobe.d/blacklist.conf", "blacklist nvidia\n")
    assert ask(taken, "driver-softdep", gpu="0a:00.0").status == "ok"


def test_a_driver_that_has_nothing_yet_is_a_warning(ready):
    (ready.root / "etc/modprobe.d/nvidia.conf").unlink()
    ready.file(
        "/lib/modules/6.1.0/modules.alias", "alias pci:v000010DEd*sv*sd*bc03sc02i00* nvidia\n"
    )
    assert ask(ready, "driver-softdep", gpu="0a:00.0").status == "warn"


def test_a_device_without_a_driver_may_be_bound_now(ready):
    ready.bind("0000:08:00.0", "")
    check = ask(ready, "driver-in-use", gpu="08:00.0")
    assert (check.status, check.fix) == ("warn", "sudo deepops-virtual gpu bind 0000:08:00.0")


def test_libvirt_moves_what_is_no_gpu(ready):
    ready.pci("0000:07:00.0", "8086:10d3", 0x020000, group=70, driver="e1000e")
    check = ask(ready, "driver-in-use", gpu="8086:10d3")
    assert check.status == "warn"
    assert check.fix.endswith("sudo deepops-virtual gpu bind --device 8086:10d3 0000:07:00.0")


def test_the_audio_function_is_looked_at_with_its_gpu(tree):
    pci_trees.workstation(tree).bind("0000:02:00.1", "snd_hda_intel")
    check = ask(tree, "driver-in-use", gpu="02:00.0")
    assert (check.status, "'snd_hda_intel' for 0000:02:00.1" in check.detail) == ("warn", True)


def test_the_screens_gpu_is_left_out_of_it(tree):
    pci_trees.workstation(tree)
    assert [str(unit) for unit in case(tree).units] == ["0000:02:00.0"]


def test_the_kernel_log_tells_what_vfio_pci_took(ready):
    ready.file("/var/log/dmesg", LOG.splitlines(keepends=True)[0])
    assert ask(ready, "vfio-log", gpu="08:00.0").detail.endswith("but vfio-pci has the devices")
    ready.bind("0000:08:00.0", "nvidia")
    check = ask(ready, "vfio-log", gpu="08:00.0")
    assert (check.status, "no 'vfio_pci: add' for 10de:1db1" in check.detail) == ("warn", True)


def test_only_the_last_boot_of_a_log_counts(ready):
    (ready.root / "var/log/dmesg").unlink()
    again = "Nov 25 host kernel: Linux version 6.1.0\n"
    ready.file("/var/log/kern.log", f"{LOG}{again}").bind("0000:08:00.0", "")
    assert ask(ready, "vfio-log", gpu="08:00.0").status == "warn"


def test_without_a_log_nothing_is_said_of_it(ready):
    (ready.root / "var/log/dmesg").unlink()
    assert ask(ready, "vfio-log").status == "skip"


# -- the GPUs -------------------------------------------------------------------------------


def test_it_is_told_which_node_would_get_which_gpu(tree):
    check = ask(dgx1v(tree), "gpus", gpu="8a:00.0,0a:00.0".replace("8a", "08"))
    assert check.detail == "'virtual-gpu01' would get 0000:08:00.0, 0000:0a:00.0"


def test_switches_that_stay_behind_are_a_warning(ready):
    check = ask(ready, "gpus", gpu="2")
    assert (check.status, "the NVSwitches stay behind" in check.detail) == ("warn", True)


@pytest.mark.parametrize(
    ("host", "gpu", "said"),
    [
        (pci_trees.dgx1v, "9", "9 GPUs are needed"),
        (pci_trees.dgx1v, "09:00.0", "There is no PCI device '0000:09:00.0'"),
        (pci_trees.workstation, "01:00.0", "the boot display of this host"),
        (pci_trees.gpu_sharing_group_with_nic, "05:00.0", "also holds '0000:06:00.0'"),
        (pci_trees.no_iommu, "auto", "is in no IOMMU group"),
        (pci_trees.nvidia_bound, "08:00.0", "in use on this host by '/usr/bin/python3 train.py'"),
    ],
)
def test_gpus_that_cannot_be_had_are_refused_with_the_reason(tree, host, gpu, said):
    check = ask(host(tree), "gpus", gpu=gpu)
    assert (check.status, said in check.detail) == ("fail", True), check.detail


def test_without_a_request_all_gpus_are_counted(tree):
    assert ask(dgx1v(tree), "gpus", gpu="").detail == (
        "8 GPUs; 8 of 8 units may be handed through"
    )
    tree.pci("0000:07:00.0", "10de:1db1", GPU_CLASS)
    check = ask(tree, "gpus", gpu="")
    assert (
        check.status,
        "8 of 9 units may be handed through: '0000:07:00.0' is" in check.detail,
    ) == (
        "warn",
        True,
    )


def test_a_domain_other_than_zero_is_understood(tree):
    prepared(pci_trees.nonzero_domain(tree))
    assert "would get 0001:08:00.0" in ask(tree, "gpus", gpu="0001:08:00.0").detail
    assert ask(tree, "driver-in-use", gpu="0001:08:00.0").status == "ok"


# -- after gpu prepare ----------------------------------------------------------------------


@pytest.fixture
def bare(tree, monkeypatch):
    """A server with a V100 that nobody has prepared; its BIOS is set."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    pci_trees.no_iommu(tree).acpi_table("DMAR")
    tree.file("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    return tree.file("/etc/modules", "").file("/proc/sys/kernel/random/boot_id", "first\n")


def prepare(tree: HostTree, status: int = 0) -> None:
    with suppress(DeepopsError):
        prepared_by.apply(Host(tree.root), ["10de:1db1"], run=lambda _argv, _log: status)


WRITTEN = ("etc-modules", "vfio-on-boot", "vfio-ids", "driver-softdep")


def test_the_doctor_asks_for_what_gpu_prepare_does(bare):
    assert {ask(bare, name).status for name in WRITTEN} == {"fail"}
    prepare(bare)
    assert {ask(bare, name).status for name in WRITTEN} == {"ok"}
    assert ask(bare, "preparation").fix == "sudo reboot"
    assert "not rebooted since" in ask(bare, "boot-loader").detail
    bare.file("/proc/sys/kernel/random/boot_id", "second\n")
    bare.cmdline("intel_iommu=on", "iommu=pt").module(*MODULES)
    for name in ("preparation", "boot-loader", "kernel-command-line", "vfio-modules"):
        assert ask(bare, name).status == "ok", name


def test_a_preparation_that_was_stopped_is_to_be_finished(bare):
    prepare(bare, status=1)
    check = ask(bare, "preparation")
    assert (check.status, check.fix) == (
        "fail",
        "sudo deepops-virtual gpu prepare --device 10de:1db1 --apply, then reboot",
    )


def test_a_preparation_that_was_taken_back_half_way_is_to_be_taken_back(bare):
    prepare(bare)
    manifest = bare.root / MANIFEST.lstrip("/")
    manifest.write_text(manifest.read_text().replace('"applied"', '"undoing"'))
    check = ask(bare, "preparation")
    assert (check.status, check.fix) == ("fail", "sudo deepops-virtual gpu prepare --undo")


def test_a_preparation_that_only_root_may_read_is_not_judged(bare, monkeypatch):
    prepare(bare)

    def refused(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    check = ask(bare, "preparation")
    assert check.status == "skip"
    assert check.detail.endswith(f"As root: sudo deepops-virtual doctor --root {bare.root}")


def test_a_prepared_file_that_somebody_changed_is_named(bare):
    prepare(bare)
    bare.file("/etc/modprobe.d/vfio.conf", "# nothing\n")
    check = ask(bare, "preparation")
    assert (check.status, "/etc/modprobe.d/vfio.conf" in check.detail) == ("warn", True)
