"""What the tests of the doctor share: asking one question about a host below a folder, and a host
that was prepared as the README says."""

from __future__ import annotations

from collections.abc import Callable

from deepops_fixtures.cluster import topology
from deepops_fixtures.doctor import run
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Check
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.selection import Request
from deepops_fixtures.settings import Settings
from tests.harness.unit.pci_trees import HostTree

MODULES = ("pci_stub", "vfio", "vfio_iommu_type1", "vfio_pci", "kvm", "kvm_intel")
Ask = Callable[..., Check]


def case(tree: HostTree, gpu: str = "", **settings: object) -> Case:
    """Return the examination of a tree for cluster 'debian', with these GPUs asked for."""
    spec = topology.load("debian")
    return Case(Host(tree.root), Settings.load(settings), spec, Request.parse(gpu))


def ask(tree: HostTree, name: str, gpu: str = "auto", **settings: object) -> Check:
    """Return the check of that name."""
    questions = [question for question in run.QUESTIONS if question.name == name]
    (check,) = run.examine(case(tree, gpu, **settings), questions)
    return check


def prepared(tree: HostTree) -> HostTree:
    """Put the README's lines into a tree of an Intel host with V100, and boot it."""
    tree.file("/etc/modules", "\n".join(("# a comment", *MODULES)) + "\n")
    tree.file("/etc/modules-load.d/vfio-pci.conf", "vfio-pci\n")
    tree.file("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:1db1,10de:1ac1\n")
    tree.file("/etc/modprobe.d/nvidia.conf", "softdep nvidia pre: vfio-pci\n")
    tree.file(
        "/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet splash intel_iommu=on iommu=pt"\n'
    )
    tree.file("/proc/interrupts", "  1:  0  4  IR-IO-APIC  1-edge  i8042\n")
    tree.file("/var/log/dmesg", LOG)
    return tree.module(*MODULES)


LOG = """\
[    0.000000] Linux version 6.1.0-18-amd64
[   15.668150] vfio_pci: add [10de:1db1[ffff:ffff]] class 0x000000/00000000
[   15.736099] vfio_pci: add [10de:1ac1[ffff:ffff]] class 0x000000/00000000
"""
