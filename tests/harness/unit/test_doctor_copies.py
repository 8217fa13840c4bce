"""The doctor on copies of hosts that are not whole, and on hosts that are no PCs: what cannot be
known is said to be unknown, and no advice is given that is for other machines."""

import shutil

import pytest

from deepops_fixtures.doctor import run
from deepops_fixtures.passthrough import platform_facts
from deepops_fixtures.passthrough.pci import Host
from tests.harness.unit import pci_trees
from tests.harness.unit.doctors import ask, case
from tests.harness.unit.pci_trees import HostTree


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path / "host")


@pytest.fixture
def bare(tree):
    """A host with a V100 whose IOMMU is off."""
    return pci_trees.no_iommu(tree)


# -- what a copy lacks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "files", "unknown"),
    [
        ("iommu-groups", "/sys/kernel/iommu_groups", "whether the IOMMU is on"),
        ("vfio-modules", "/sys/module", "which modules are loaded"),
        ("etc-modules", "/etc/modules", "what is loaded at boot"),
        ("vfio-on-boot", "/etc/modules", "what is loaded at boot"),
        ("vfio-ids", "/etc/modprobe.d", "what vfio-pci takes"),
        ("driver-softdep", "/etc/modprobe.d", "whether others wait for vfio-pci"),
        ("boot-loader", "/etc/os-release", "what this host runs"),
    ],
)
def test_what_was_not_copied_is_not_judged(bare, name, files, unknown):
    bare.module("nvidia").file("/etc/modules", "loop\n")
    assert ask(bare, name, gpu="08:00.0").status != "skip" or name == "boot-loader"
    place = bare.root / files.lstrip("/")
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    check = ask(bare, name, gpu="08:00.0")
    assert (check.status, check.fix) == ("skip", "")
    assert check.detail.startswith(f"'{bare.root}' has no '{files}'")
    assert f"so that it is not known {unknown}" in check.detail


def test_drivers_that_were_not_copied_are_not_missing(bare):
    (bare.place("0000:08:00.0") / "driver").unlink()
    assert ask(bare, "driver-in-use", gpu="08:00.0").status == "warn"
    shutil.rmtree(bare.root / "sys/bus/pci/drivers")
    check = ask(bare, "driver-in-use", gpu="08:00.0")
    assert (check.status, "it is not known which drivers" in check.detail) == ("skip", True)


def test_without_cpuinfo_nothing_is_said_of_the_maker(bare):
    (bare.root / "proc/cpuinfo").unlink()
    assert ask(bare, "kernel-command-line").status == "skip"
    assert ask(bare, "boot-loader").status == "skip"
    bare.file("/etc/modules", "loop\n")
    assert ask(bare, "etc-modules").detail == (
        "neither '/etc/modules' nor modules-load.d has pci_stub, vfio, vfio_iommu_type1, "
        "vfio_pci, kvm"
    )
    assert ask(bare.acpi_table("APIC"), "iommu-table").fix == (
        "enable in the BIOS, then restart: Intel VT-d or AMD-Vi ('IOMMU')"
    )


def test_a_copy_without_pci_is_skipped_or_refused_and_never_said_to_have_no_gpu(deepops, bare):
    shutil.rmtree(bare.root / "sys/bus")
    said = f"'{bare.root}' has no '/sys/bus/pci/devices', so that its devices are not known"
    root = ("--root", str(bare.root))
    for words in (
        ("doctor", "--gpu", "auto"),
        ("gpu", "list"),
        ("gpu", "prepare", "-d", "10de:1db1"),
    ):
        status, out, err = deepops(*words, *root)
        assert (status, out, said in err) == (2, "", True), words
    assert deepops("doctor", *root)[0] == 0
    checks = run.examine(case(bare), [item for item in run.QUESTIONS if item.name == "gpus"])
    assert [(check.status, check.detail) for check in checks] == [("skip", said)]


def test_commands_that_change_a_host_are_for_that_host(deepops, bare):
    bare.module("nvidia")
    _, out, _ = deepops("doctor", "--gpu", "08:00.0", "--root", str(bare.root))
    assert "    on that host: sudo modprobe vfio-pci\n" in out
    assert "    on that host: sudo deepops-virtual gpu prepare --device 10de:1db1 --apply" in out
    assert f"    deepops-virtual gpu list --root {bare.root}\n" in out


# -- hosts that are no PCs ------------------------------------------------------------------

CPUINFO = {
    "x86": "processor\t: 0\nvendor_id\t: HygonGenuine\nflags\t\t: fpu svm\n",
    "Arm": "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n",
    "POWER": "processor\t: 0\ncpu\t\t: POWER9\nrevision\t: 2.1 (pvr 004e 1201)\n",
    "s390": "vendor_id       : IBM/S390\nfeatures\t: esan3\n",
    "Itanium": "processor  : 0\nvendor     : GenuineIntel\narch       : IA-64\n",
    "": "processor\t: 0\nsystem type\t: MIPS\n",
}


@pytest.mark.parametrize(("kind", "text"), CPUINFO.items(), ids=[*list(CPUINFO)[:-1], "other"])
def test_the_processors_are_told_by_what_cpuinfo_says(tree, kind, text):
    tree.file("/proc/cpuinfo", text)
    assert platform_facts.architecture(Host(tree.root)) == kind


def test_an_arm_host_with_a_gpu_gets_one_reason_and_no_advice_for_intel(deepops, tree):
    pci_trees.grace_hopper(tree)
    status, out, _ = deepops("doctor", "--gpu", "auto", "--root", str(tree.root))
    assert (status, "1 check fails." in out) == (1, True)
    assert ask(tree, "cpu-flags").detail == (
        "GPUs are handed through on x86_64 alone, and this host is Arm"
    )
    assert not {word for word in ("intel", "vmx", "svm", "VT-", "cpuinfo", "BIOS") if word in out}


def test_the_gpus_of_an_arm_host_are_refused(deepops, tree):
    pci_trees.grace_hopper(tree)
    _, out, _ = deepops("gpu", "list", "--root", str(tree.root))
    assert out.splitlines()[-1] == "GPUs are handed through on x86_64 alone, and this host is Arm."


def test_without_gpus_an_arm_host_emulates(tree):
    pci_trees.grace_hopper(tree)
    check = ask(tree, "cpu-flags", gpu="")
    assert (check.status, "virtual machines are emulated" in check.detail) == ("warn", True)
    assert ask(tree, "cpu-flags", gpu="", accelerator="tcg").status == "ok"
    assert ask(tree, "cpu-flags", gpu="", accelerator="kvm").status == "fail"


def test_an_arm_host_is_not_prepared_and_told_why(deepops, tree):
    pci_trees.grace_hopper(tree).file("/etc/default/grub", "")
    status, _, err = deepops("gpu", "prepare", "-d", "10de:2342", "--root", str(tree.root))
    assert status == 2
    assert "is of Arm processors; passthrough is prepared for Intel and AMD only." in err
    assert "Next: take a host with processors of Intel or AMD" in err
