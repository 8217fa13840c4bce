"""A host as a folder: the files of sysfs, proc and etc that the code under test reads, in their
real shape. Whole hosts are in pci_trees.py.

A driver's 'bind' and the like are plain files: `Kernel` in test_binding.py plays the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

BRIDGE_CLASS = 0x060400
#: A 64-bit, prefetchable memory window: start, size.
Window = tuple[int, int]


class HostTree:
    """A host below a folder. Every method returns the tree, or the folder it made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        pci, groups = "sys/bus/pci", "sys/kernel/iommu_groups"
        etc = "etc/modprobe.d"
        for name in (f"{pci}/devices", f"{pci}/drivers", groups, "proc", etc, "dev", "run"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._where: dict[str, Path] = {}

    # -- plain files ------------------------------------------------------------------------

    def file(self, name: str, text: str) -> HostTree:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def link(self, name: str, target: Path) -> HostTree:
        """Make a relative link, as those of sysfs are."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(target, path.parent))
        return self

    def cmdline(self, *parameters: str) -> HostTree:
        words = ["BOOT_IMAGE=/vmlinuz", "root=/dev/sda2", "ro", *parameters]
        return self.file("/proc/cmdline", " ".join(words) + "\n")

    def cpu(self, flag: str = "vmx", count: int = 4) -> HostTree:
        """Write /proc/cpuinfo: Intel with 'vmx', AMD with 'svm', '' for none of them."""
        vendor = "AuthenticAMD" if flag == "svm" else "GenuineIntel"
        text = "".join(
            f"processor\t: {number}\nvendor_id\t: {vendor}\nmodel name\t: A processor\n"
            f"flags\t\t: fpu msr pae sse2 {flag} lm\n\n"
            for number in range(count)
        )
        return self.file("/proc/cpuinfo", text)

    def dmi(self, product: str, vendor: str = "NVIDIA") -> HostTree:
        self.file("/sys/class/dmi/id/product_name", f"{product}\n")
        return self.file("/sys/class/dmi/id/sys_vendor", f"{vendor}\n")

    def os_release(self, name: str = "debian", like: str = "", version: str = "12") -> HostTree:
        text = f'ID={name}\nID_LIKE="{like}"\nVERSION_ID="{version}"\n'
        return self.file("/etc/os-release", f'{text}PRETTY_NAME="{name} {version}"\n')

    def module(self, *names: str) -> HostTree:
        """Load kernel modules."""
        for name in names:
            (self.root / "sys/module" / name).mkdir(parents=True, exist_ok=True)
        return self

    def acpi_table(self, name: str) -> HostTree:
        """Give the firmware a table, as in 'DMAR' or 'IVRS'."""
        return self.file(f"/sys/firmware/acpi/tables/{name}", name)

    def iommu(self, name: str = "dmar0", *, interrupt_remapping: bool = True) -> HostTree:
        """Add an IOMMU to /sys/class/iommu; 'ivhd0' and the like are AMD's."""
        if name.startswith("dmar"):
            ecap = 0xF020DF | 0x8 if interrupt_remapping else 0xF020DF & ~0x8
            folder = f"/sys/devices/virtual/iommu/{name}"
            self.file(f"{folder}/intel-iommu/ecap", f"{ecap:x}\n")
        else:
            folder = f"/sys/devices/pci0000:00/0000:00:00.2/iommu/{name}"
            self.file(f"{folder}/amd-iommu/features", "4f77ef22294ada:0\n")
        return self.link(f"/sys/class/iommu/{name}", self.root / folder.lstrip("/"))

    # -- devices ----------------------------------------------------------------------------

    def pci(
        self,
        bdf: str,
        device_id: str,
        cls: int,
        *,
        driver: str = "",
        group: int | None = None,
        under: str = "",
        boot_vga: bool | None = None,
        numa: int = -1,
        bars: Sequence[Window | None] = (),
        subsystem: str = "",
        physfn: str = "",
        link: tuple[str, str] | None = None,
        width: tuple[int, int] | None = None,
    ) -> Path:
        """Add a function; ``under`` is the bridge above it. ``bars`` are (start, size) of windows.

        ``link`` and ``width`` are the current and the greatest speed and width.
        """
        bus = bdf[: bdf.rindex(":")]
        above = self._where[under] if under else self.root / f"sys/devices/pci{bus}"
        folder = above / bdf
        folder.mkdir(parents=True)
        self._where[bdf] = folder
        vendor, device = device_id.split(":")
        files = {
            "vendor": f"0x{vendor}",
            "device": f"0x{device}",
            "class": f"0x{cls:06x}",
            "numa_node": str(numa),
            "driver_override": "(null)",
            "resource": _resource(bars),
        }
        if subsystem:
            files["subsystem_vendor"], files["subsystem_device"] = (
                f"0x{part}" for part in subsystem.split(":")
            )
        if boot_vga is not None:
            files["boot_vga"] = str(int(boot_vga))
        if link:
            files["current_link_speed"], files["max_link_speed"] = link
        if width:
            files["current_link_width"], files["max_link_width"] = map(str, width)
        for name, text in files.items():
            (folder / name).write_text(text + "\n")
        self.link(f"/sys/bus/pci/devices/{bdf}", folder)
        if group is not None:
            self.group(bdf, group)
        if driver:
            self.bind(bdf, driver)
        if physfn:
            self._virtual_function(folder, self._where[physfn])
        return folder

    def group(self, bdf: str, number: int) -> HostTree:
        """Put a function into an IOMMU group."""
        folder = self.root / f"sys/kernel/iommu_groups/{number}"
        (folder / "devices").mkdir(parents=True, exist_ok=True)
        (folder / "type").write_text("DMA\n")
        self.link(f"/sys/kernel/iommu_groups/{number}/devices/{bdf}", self._where[bdf])
        link = (self._where[bdf] / "iommu_group").relative_to(self.root)
        return self.link(str(link), folder)

    def driver(self, name: str) -> Path:
        """Register a driver that has no device yet."""
        folder = self.root / "sys/bus/pci/drivers" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("bind", "unbind", "new_id"):
            (folder / file).touch()
        return folder

    def bind(self, bdf: str, name: str) -> HostTree:
        """Give a function to a driver, '' for none."""
        place = self._where[bdf]
        link = place / "driver"
        if link.is_symlink():
            (place / link.readlink() / bdf).unlink()
            link.unlink()
        if name:
            folder = self.driver(name)
            self.link(str(link.relative_to(self.root)), folder)
            self.link(str((folder / bdf).relative_to(self.root)), place)
        return self

    def has(self, bdf: str) -> bool:
        return bdf in self._where

    def place(self, bdf: str) -> Path:
        """Return the folder of a function below sys/devices."""
        return self._where[bdf]

    def bridge(self, bdf: str, *, group: int | None = None, under: str = "") -> Path:
        """Add a PCI bridge, driven by pcieport."""
        return self.pci(
            bdf, "8086:6f04", BRIDGE_CLASS, driver="pcieport", group=group, under=under
        )

    def _virtual_function(self, virtual: Path, physical: Path) -> None:
        number = len(list(physical.glob("virtfn*")))
        self.link(str((virtual / "physfn").relative_to(self.root)), physical)
        self.link(str((physical / f"virtfn{number}").relative_to(self.root)), virtual)

    # -- what the host uses -----------------------------------------------------------------

    def root_disk(self, controller: str, name: str = "sda", *, mapped: bool = False) -> HostTree:
        """Put '/' on a partition of a disk of this controller; ``mapped``: through dm-0 (LVM)."""
        disk = self._where[controller] / "ata1/host0/target0:0:0/0:0:0:0/block" / name
        source, number = f"/dev/{name}2", "8:2"
        self.block(disk, "8:0").block(disk / f"{name}2", number)
        if mapped:
            source, number = "/dev/mapper/host-root", "253:0"
            mapper = self.root / "sys/devices/virtual/block/dm-0"
            self.block(mapper, number)
            place = (mapper / "slaves" / f"{name}2").relative_to(self.root)
            self.link(str(place), disk / f"{name}2")
        return self.mount("/", source, number)

    def block(self, folder: Path, number: str) -> HostTree:
        """Add a block device, or a partition inside one, with its MAJOR:MINOR."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dev").write_text(f"{number}\n")
        (folder / "slaves").mkdir(exist_ok=True)
        self.link(f"/sys/class/block/{folder.name}", folder)
        return self.link(f"/sys/dev/block/{number}", folder)

    def mount(self, where: str, source: str, number: str, kind: str = "ext4") -> HostTree:
        path = self.root / "proc/self/mountinfo"
        before = path.read_text() if path.exists() else ""
        line = f"{22 + before.count(chr(10))} 1 {number} / {where} rw - {kind} {source} rw\n"
        return self.file("/proc/self/mountinfo", before + line)

    def net(
        self, name: str, controller: str = "", *, lower: Iterable[str] = (), default: bool = False
    ) -> HostTree:
        """Add a network interface of a device, or one on top of others (bond, bridge, VLAN)."""
        if controller:
            folder = self._where[controller] / "net" / name
        else:
            folder = self.root / "sys/devices/virtual/net" / name
        folder.mkdir(parents=True)
        self.link(f"/sys/class/net/{name}", folder)
        for other in lower:
            below = self.root / "sys/class/net" / other
            target = (below.parent / below.readlink()).resolve()
            self.link(str((folder / f"lower_{other}").relative_to(self.root)), target)
        if default:
            self.route(name)
        return self

    def route(self, name: str, destination: str = "00000000", mask: str = "00000000") -> HostTree:
        """Add a route to /proc/net/route (hexadecimal, little-endian); the default one if none."""
        path = self.root / "proc/net/route"
        head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        before = path.read_text() if path.exists() else head
        line = f"{name}\t{destination}\t0100000A\t0003\t0\t0\t100\t{mask}\t0\t0\t0\n"
        return self.file("/proc/net/route", before + line)

    def process(self, pid: int, command: str, opens: Iterable[str] = ()) -> HostTree:
        """Add a process that has these files open."""
        self.file(f"/proc/{pid}/comm", f"{command.split()[0].rsplit('/', 1)[-1][:15]}\n")
        self.file(f"/proc/{pid}/cmdline", command.replace(" ", "\0") + "\0")
        for number, name in enumerate(opens, 3):
            path = self.root / f"proc/{pid}/fd/{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(name)
        return self

    def nvidia_minor(self, bdf: str, minor: int) -> HostTree:
        """Say which /dev/nvidiaN the nvidia driver gave to a GPU."""
        text = f"Model: \t\t A GPU\nBus Location: \t {bdf}\nDevice Minor: \t {minor}\n"
        return self.file(f"/proc/driver/nvidia/gpus/{bdf}/information", text)


def _resource(bars: Sequence[Window | None]) -> str:
    lines = ["0x" + "0" * 16 + (" 0x" + "0" * 16) * 2] * 7
    for index, bar in enumerate(bars):
        if bar:
            start, size = bar
            flags = 0x14220C if start >= 1 << 32 else 0x40200
            lines[index] = f"0x{start:016x} 0x{start + size - 1:016x} 0x{flags:016x}"
    return "\n".join(lines)
