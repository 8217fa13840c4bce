"""The hosts that tests are about, each built on the `HostTree` it is given."""

from __future__ import annotations

from pathlib import Path

from tests.harness.unit.host_tree import HostTree, Window

GPU_CLASS = 0x030200
VGA_CLASS = 0x030000
AUDIO_CLASS = 0x040300
USB_CLASS = 0x0C0330
NIC_CLASS = 0x020000
NVME_CLASS = 0x010802
NVSWITCH_CLASS = 0x068000

MIB, GIB = 1024**2, 1024**3

# -- the named hosts ------------------------------------------------------------------------

#: What a server's own parts are called below: the bridge, disk and network of every host here.
DISK, NIC = "0000:00:17.0", "0000:00:1f.6"

V100_BUSES = ("08", "0a", "18", "1a", "89", "8b", "92", "94")
NVSWITCH_BUSES = ("10", "11", "12")
V100, NVSWITCH = "10de:1db1", "10de:1ac1"
#: A GPU's windows: registers, memory (large, above 4 GiB), registers.
GPU_BARS: tuple[Window | None, ...] = (
    (0x9A00_0000, 16 * MIB),
    (0x3820_0000_0000, 16 * GIB),
    None,
    (0x3824_0000_0000, 32 * MIB),
)


def server(tree: HostTree, *, groups: bool = True) -> HostTree:
    """An Intel server that boots from a SATA disk and talks through one port; no GPU yet."""
    tree.cpu("vmx").os_release()
    tree.pci(DISK, "8086:a102", 0x010601, driver="ahci", group=2 if groups else None)
    tree.pci(NIC, "8086:15b7", NIC_CLASS, driver="e1000e", group=3 if groups else None)
    if groups:
        tree.cmdline("intel_iommu=on", "iommu=pt").acpi_table("DMAR").iommu()
    else:
        tree.cmdline()
    return tree.root_disk(DISK).net("eno1", NIC, default=True)


def gpu(
    tree: HostTree,
    bdf: str,
    *,
    device_id: str = V100,
    group: int | None,
    cls: int = GPU_CLASS,
    driver: str = "vfio-pci",
    numa: int = 0,
    boot_vga: bool | None = None,
    bridge_group: int | None = None,
) -> Path:
    """Add a GPU behind a root port of its own, 'DDDD:00:BB.0' for the bus BB % 32."""
    domain, bus = bdf.split(":")[:2]
    port = f"{domain}:{'00' if numa == 0 else '80'}:{int(bus, 16) % 32:02x}.0"
    if not tree.has(port):
        tree.bridge(port, group=bridge_group)
    return tree.pci(
        bdf,
        device_id,
        cls,
        driver=driver,
        group=group,
        under=port,
        numa=numa,
        boot_vga=boot_vga,
        bars=GPU_BARS,
        subsystem="10de:1212",
        link=("8.0 GT/s PCIe", "8.0 GT/s PCIe"),
        width=(16, 16),
    )


def eight_v100(tree: HostTree, driver: str) -> HostTree:
    """The eight GPUs that `lspci` shows in the seed's chapter on the DGX."""
    for number, bus in enumerate(V100_BUSES):
        node = 0 if number < 4 else 1
        gpu(tree, f"0000:{bus}:00.0", group=40 + number, driver=driver, numa=node)
    return tree


def dgx1v(tree: HostTree, driver: str = "vfio-pci") -> HostTree:
    """A DGX-1V: eight V100, no NVSwitch."""
    return eight_v100(server(tree).dmi("DGX-1 with V100"), driver)


def dgx2(tree: HostTree, driver: str = "vfio-pci") -> HostTree:
    """What the seed lists: eight V100 (10de:1db1) and three NVSwitches (10de:1ac1)."""
    eight_v100(server(tree).dmi("DGX-2"), driver)
    for number, bus in enumerate(NVSWITCH_BUSES):
        port = f"0000:00:{int(bus, 16):02x}.0"
        tree.bridge(port)
        tree.pci(
            f"0000:{bus}:00.0",
            NVSWITCH,
            NVSWITCH_CLASS,
            driver=driver,
            group=60 + number,
            under=port,
            numa=0,
            bars=((0x9C00_0000 + number * 32 * MIB, 32 * MIB),),
        )
    return tree


def nvidia_bound(tree: HostTree) -> HostTree:
    """A DGX-1V whose GPUs the nvidia driver took, with a program on the first of them."""
    dgx1v(tree, driver="nvidia").module("nvidia", "nvidia_uvm")
    for minor, bus in enumerate(V100_BUSES):
        tree.nvidia_minor(f"0000:{bus}:00.0", minor)
    return tree.process(4711, "/usr/bin/python3 train.py", ["/dev/nvidiactl", "/dev/nvidia0"])


def workstation(tree: HostTree) -> HostTree:
    """Two GeForce cards with their audio functions; the screen is on the first."""
    server(tree).dmi("Precision 7820 Tower", "Dell Inc.")
    for bdf, group, driver, boot in (("01", 10, "nouveau", True), ("02", 11, "vfio-pci", False)):
        sound = "snd_hda_intel" if boot else "vfio-pci"
        gpu(
            tree,
            f"0000:{bdf}:00.0",
            device_id="10de:1b06",
            group=group,
            cls=VGA_CLASS,
            driver=driver,
            boot_vga=boot,
            bridge_group=group,
        )
        tree.pci(
            f"0000:{bdf}:00.1",
            "10de:10ef",
            AUDIO_CLASS,
            driver=sound,
            group=group,
            under=f"0000:00:{bdf}.0",
            numa=0,
        )
    return tree


def gpu_sharing_group_with_nic(tree: HostTree) -> HostTree:
    """A GPU and an unused network card in one IOMMU group: a board without ACS."""
    server(tree)
    gpu(tree, "0000:05:00.0", group=12, bridge_group=12)
    tree.pci(
        "0000:06:00.0",
        "15b3:1017",
        NIC_CLASS,
        driver="mlx5_core",
        group=12,
        numa=0,
    )
    return tree.net("enp6s0", "0000:06:00.0")


def amd_iommu(tree: HostTree) -> HostTree:
    """An AMD server with one A100."""
    server(tree).cpu("svm").cmdline("iommu=pt")
    (tree.root / "sys/firmware/acpi/tables/DMAR").unlink()
    (tree.root / "sys/class/iommu/dmar0").unlink()
    tree.acpi_table("IVRS").iommu("ivhd0")
    gpu(tree, "0000:c1:00.0", device_id="10de:20b2", group=30)
    return tree


def no_iommu(tree: HostTree) -> HostTree:
    """A server with one V100 whose IOMMU is off: no group anywhere."""
    server(tree, groups=False)
    gpu(tree, "0000:08:00.0", group=None, driver="nvidia")
    return tree


def nonzero_domain(tree: HostTree) -> HostTree:
    """Two GPUs at the same bus and slot of two PCI domains."""
    server(tree)
    gpu(tree, "0000:08:00.0", group=20)
    gpu(tree, "0001:08:00.0", group=21)
    return tree


def a100_with_virtual_functions(tree: HostTree) -> HostTree:
    """A server with one A100 that NVIDIA's vGPU driver has split into 16 virtual functions."""
    server(tree)
    gpu(tree, "0000:41:00.0", device_id="10de:20b5", group=30, driver="nvidia")
    for number in range(4, 20):
        tree.pci(
            f"0000:41:{number // 8:02x}.{number % 8}",
            "10de:20b5",
            GPU_CLASS,
            driver="nvidia",
            group=31 + number,
            physfn="0000:41:00.0",
        )
    return tree


def hgx_h200(tree: HostTree) -> HostTree:
    """Eight H200 in groups of their own, and four NVSwitches that share one with the ports of the
    PCIe switch above them."""
    server(tree)
    for number, bus in enumerate(V100_BUSES):
        node = 0 if number < 4 else 1
        bdf = f"0001:{bus}:00.0"
        gpu(tree, bdf, device_id="10de:2335", group=40 + number, driver="nvidia", numa=node)
    tree.bridge("0000:03:00.0", group=60)
    for number in range(4):
        port = f"0000:04:{number:02x}.0"
        tree.bridge(port, group=60, under="0000:03:00.0")
        bdf = f"0000:{5 + number:02x}:00.0"
        tree.pci(bdf, "10de:22a3", NVSWITCH_CLASS, driver="nvidia-nvswitch", group=60, under=port)
    return tree


def grace_hopper(tree: HostTree) -> HostTree:
    """An Arm server whose IOMMU (an SMMU, described by the table IORT) is on, with a GPU."""
    lines = "Features\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    tree.file("/proc/cpuinfo", "".join(f"processor\t: {item}\n{lines}\n" for item in range(72)))
    tree.os_release("ubuntu", "debian", "22.04").dmi("GH200").cmdline("iommu.passthrough=1")
    tree.acpi_table("IORT").file("/proc/interrupts", " 9:  0  GICv3  25 Level  vgic\n")
    gpu(tree, "0009:01:00.0", device_id="10de:2342", group=15, driver="nvidia")
    return tree
