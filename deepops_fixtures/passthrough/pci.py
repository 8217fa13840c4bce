"""The PCI devices of a host as sysfs tells them: addresses, classes, drivers, IOMMU groups.

It reads and never writes, it runs no program, and it looks at nothing but files below a root, so
that a saved tree can be read like a living host. Whether a device may be handed to a guest is
decided in `candidates`. Sources: Documentation/ABI/testing/sysfs-bus-pci,
Documentation/PCI/sysfs-pci.rst, include/linux/ioport.h of the kernel.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deepops_fixtures import facts
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import sysfs
from deepops_fixtures.passthrough.names import Names, class_name

#: The driver that gives devices to guests.
VFIO = "vfio-pci"
NVIDIA = 0x10DE
#: PCI class codes without the programming interface (pci.ids, class section).
VGA, THREE_D, DISPLAY = 0x0300, 0x0302, 0x0380
BRIDGES, PCI_BRIDGE, OTHER_BRIDGE = 0x06, 0x0604, 0x0680

_ADDRESS = re.compile(
    r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<bus>[0-9a-f]{2}):(?P<slot>[0-9a-f]{2})\.(?P<function>[0-7])"
)
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_MEMORY, _MEMORY_64, _UNSET = 0x200, 0x0010_0000, 0x2000_0000  # IORESOURCE_*
_BARS = 6
PCI_DEVICES = "/sys/bus/pci/devices"
#: There, and empty, on a host whose IOMMU is off.
IOMMU_GROUPS = "/sys/kernel/iommu_groups"


@dataclass(frozen=True, order=True)
class Bdf:
    """The address of one function of a device: domain, bus, slot (device), function.

    >>> str(Bdf.parse("08:00.0"))
    '0000:08:00.0'
    """

    domain: int
    bus: int
    slot: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Bdf:
        """Read '08:00.0' or '0000:08:00.0'. Raises UsageProblem."""
        found = cls.match(text)
        if not found:
            raise UsageProblem(
                f"'{text}' is not a PCI address.",
                hint="write it as 'bus:slot.function' in hexadecimal, as in '08:00.0' or "
                "'0000:08:00.0'",
            )
        return found

    @classmethod
    def match(cls, text: str) -> Bdf | None:
        """Return the address that this text is, None when it is none."""
        found = _ADDRESS.fullmatch(text.strip().lower())
        if not found:
            return None
        numbers = [int(found[name] or "0", 16) for name in ("domain", "bus", "slot", "function")]
        return cls(*numbers) if numbers[2] < 32 else None

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


@dataclass(frozen=True)
class Bar:
    """A base address register (memory or port window) of a device; sizes in bytes."""

    index: int
    start: int
    size: int
    flags: int

    @property
    def is_memory(self) -> bool:
        """Whether it is a memory window, not one of I/O ports."""
        return bool(self.flags & _MEMORY)

    @property
    def is_64bit(self) -> bool:
        """Whether it may lie above 4 GiB."""
        return bool(self.flags & _MEMORY_64)

    @property
    def above_4g(self) -> bool:
        """Whether it does lie above 4 GiB."""
        return self.start >= 1 << 32

    @property
    def assigned(self) -> bool:
        """Whether firmware or kernel found a place for it."""
        return self.start > 0 and not self.flags & _UNSET


@dataclass(frozen=True)
class PciDevice:
    """One function of a PCI device, as it was when the host was read."""

    bdf: Bdf
    vendor: int
    device: int
    #: 24 bits: class, subclass, programming interface.
    class_code: int
    subsystem_vendor: int | None = None
    subsystem_device: int | None = None
    #: '' when no driver has it.
    driver: str = ""
    #: None without an IOMMU, or with the kernel's unsafe no-IOMMU mode.
    iommu_group: int | None = None
    #: Whether the firmware's console is on it.
    boot_vga: bool = False
    #: The physical function of a virtual one (SR-IOV).
    physfn: Bdf | None = None
    virtfns: tuple[Bdf, ...] = ()
    bars: tuple[Bar, ...] = ()
    #: The bridge it is behind, None on a root bus or where the tree does not tell.
    parent: Bdf | None = None
    numa_node: int | None = None
    #: GT/s for each lane, and lanes; None where sysfs gives none.
    link_speed: float | None = None
    link_speed_max: float | None = None
    link_width: int | None = None
    link_width_max: int | None = None

    @property
    def id(self) -> str:
        """Vendor and device, as in '10de:1db1'."""
        return f"{self.vendor:04x}:{self.device:04x}"

    @property
    def base_class(self) -> int:
        """The class code without the programming interface, as in 0x0302."""
        return self.class_code >> 8

    @property
    def class_name(self) -> str:
        """What the class code means, as in '3D controller'."""
        return class_name(self.class_code)

    @property
    def is_gpu(self) -> bool:
        """Whether it is a display, VGA or 3D controller."""
        return self.base_class in (VGA, THREE_D, DISPLAY)

    @property
    def is_nvswitch(self) -> bool:
        """Whether it is an NVSwitch: a bridge of NVIDIA that is no PCI bridge."""
        return (
            self.vendor == NVIDIA
            and self.base_class == OTHER_BRIDGE
            and self.device >= facts.FIRST_NVSWITCH
        )

    @property
    def is_bridge(self) -> bool:
        """Whether it is a PCI-to-PCI bridge (a port of a switch or of the root complex)."""
        return self.base_class == PCI_BRIDGE

    @property
    def is_board(self) -> bool:
        """Whether it is a part of the board that no guest can use: a host, ISA or PCI bridge."""
        return self.class_code >> 16 == BRIDGES and self.base_class != OTHER_BRIDGE


def device_id(text: str) -> str:
    """Return 'vendor:device' in the form of `PciDevice.id`. Raises UsageProblem."""
    found = text.strip().lower()
    if not _ID.fullmatch(found):
        raise UsageProblem(
            f"'{text}' is not a device ID.",
            hint="write it as 'vendor:device' in hexadecimal, as in '10de:1db1' (lspci -nn, or "
            "deepops-virtual gpu list)",
        )
    return found


class Host:
    """The host whose files are below ``root``: this one with '/', or a saved tree."""

    def __init__(self, root: Path | str = "/") -> None:
        self.root = Path(root)

    @property
    def is_this_host(self) -> bool:
        """Whether it is the running system and not a saved tree."""
        return self.root.absolute() == Path("/")

    def path(self, name: str) -> Path:
        """Return where the file of this absolute name lies below the root.

        >>> Host("/tmp/dump").path("/etc/modules")
        PosixPath('/tmp/dump/etc/modules')
        """
        return self.root / name.lstrip("/")

    def folder(self, bdf: Bdf) -> Path:
        """Return the folder of a device in sysfs."""
        return self.path(f"{PCI_DEVICES}/{bdf}")

    def reading(self, words: str) -> str:
        """Return the command that reads the same files, as a hint.

        >>> Host("/tmp/dump").reading("gpu list")
        'deepops-virtual gpu list --root /tmp/dump'
        """
        root = "" if self.is_this_host else f" --root {shlex.quote(str(self.root))}"
        return f"deepops-virtual {words}{root}"

    def lacks(self, *names: str) -> str:
        """Return that a saved tree has none of these files and folders, '' when it has one.

        Always '' for this host: what is missing there is missing, not left out of a copy.
        """
        if self.is_this_host or any(self.path(name).exists() for name in names):
            return ""
        return f"'{self.root}' has no {' and no '.join(repr(name) for name in names)}"

    def text(self, name: str) -> str:
        """Return a file's text, '' when it is not there or may not be read; without the zeros
        that tar adds to files of sysfs."""
        try:
            return self.path(name).read_text(errors="replace").rstrip("\0")
        except OSError:
            return ""

    @property
    def has_devices(self) -> bool:
        """Whether the files of its devices are there; a saved tree may lack them."""
        return not self.lacks(PCI_DEVICES)

    @cached_property
    def devices(self) -> dict[Bdf, PciDevice]:
        """Every PCI function, in the order of the addresses; read once.

        Raises UsageProblem when the root has no devices' files or they hold what they should not.
        """
        missing = self.lacks(PCI_DEVICES)
        if missing:
            raise UsageProblem(
                f"{missing}, so that its devices are not known.",
                hint="copy them there as well, on that host: cp -a --parents /sys/bus/pci "
                "/sys/devices FOLDER",
            )
        folder = self.path(PCI_DEVICES)
        found = [_read_device(entry) for entry in folder.iterdir()] if folder.is_dir() else []
        return {item.bdf: item for item in sorted(found, key=lambda item: item.bdf)}

    @cached_property
    def groups(self) -> dict[int, tuple[PciDevice, ...]]:
        """The devices of each IOMMU group, bridges among them."""
        groups: dict[int, list[PciDevice]] = {}
        for item in self.devices.values():
            if item.iommu_group is not None:
                groups.setdefault(item.iommu_group, []).append(item)
        return {number: tuple(groups[number]) for number in sorted(groups)}

    def get(self, bdf: Bdf) -> PciDevice:
        """Return the device at this address. Raises UsageProblem, naming what is near."""
        if bdf in self.devices:
            return self.devices[bdf]
        near = [str(item) for item in self.devices if _near(item, bdf)]
        have = f"; near it are {', '.join(near[:4])}" if near else ""
        raise UsageProblem(
            f"There is no PCI device '{bdf}' on this host{have}.",
            hint=self.reading("gpu list"),
        )

    def with_id(self, wanted: str) -> tuple[PciDevice, ...]:
        """Return the devices of this vendor:device."""
        return tuple(item for item in self.devices.values() if item.id == wanted)

    def functions(self, device: PciDevice) -> tuple[PciDevice, ...]:
        """Return all functions of the card that this one is part of, itself among them.

        A virtual function stands alone: it may have the slot of its physical one.
        """
        if device.physfn:
            return (device,)
        place = (device.bdf.domain, device.bdf.bus, device.bdf.slot)
        return tuple(
            item
            for item in self.devices.values()
            if (item.bdf.domain, item.bdf.bus, item.bdf.slot) == place and not item.physfn
        )

    def addresses_above(self, path: Path) -> tuple[Bdf, ...]:
        """Return the PCI functions that a device's sysfs path leads through, the nearest last.

        ``path`` may be a link, as those of /sys/class are.
        """
        real = Path(os.path.realpath(path))
        return tuple(bdf for bdf in map(Bdf.match, real.parts) if bdf)

    @cached_property
    def names(self) -> Names:
        """What devices are called, by the host's own pci.ids where it has one."""
        places = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
        return Names(tuple(map(self.path, places)))

    def name(self, device: PciDevice) -> str:
        """Return what a person calls this device, as in 'GV100GL [Tesla V100 SXM2 16GB]'."""
        return self.names.of(device.vendor, device.device) or device.class_name


def _near(one: Bdf, other: Bdf) -> bool:
    same_place = (one.bus, one.slot) == (other.bus, other.slot)
    return same_place or (one.domain, one.bus) == (other.domain, other.bus)


def _read_device(entry: Path) -> PciDevice:
    bdf = Bdf.match(entry.name)
    if not bdf:
        raise UsageProblem(f"'{entry}' is not named after a PCI address.", hint=sysfs.RECOPY)
    above = [item for item in map(Bdf.match, Path(os.path.realpath(entry)).parts[:-1]) if item]
    return PciDevice(
        bdf=bdf,
        vendor=sysfs.number(entry / "vendor"),
        device=sysfs.number(entry / "device"),
        class_code=sysfs.number(entry / "class"),
        subsystem_vendor=sysfs.maybe_number(entry / "subsystem_vendor"),
        subsystem_device=sysfs.maybe_number(entry / "subsystem_device"),
        driver=sysfs.link(entry / "driver"),
        iommu_group=sysfs.iommu_group(entry / "iommu_group"),
        boot_vga=sysfs.maybe_number(entry / "boot_vga") == 1,
        physfn=_address(entry / "physfn"),
        virtfns=tuple(filter(None, map(_address, _in_order(entry.glob("virtfn*"))))),
        bars=_bars(entry / "resource"),
        parent=above[-1] if above else None,
        numa_node=sysfs.natural_number(entry / "numa_node"),
        link_speed=sysfs.speed(entry / "current_link_speed"),
        link_speed_max=sysfs.speed(entry / "max_link_speed"),
        link_width=sysfs.width(entry / "current_link_width"),
        link_width_max=sysfs.width(entry / "max_link_width"),
    )


def _address(path: Path) -> Bdf | None:
    name = sysfs.link(path)
    found = Bdf.match(name)
    if name and not found:
        raise sysfs.malformed(path, name, "a PCI address")
    return found


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Return 'virtfn2' before 'virtfn10'."""
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def _bars(path: Path) -> tuple[Bar, ...]:
    """Return the BARs that 'resource' lists; a BAR that is not there has a line of zeros."""
    try:
        lines = path.read_text(errors="replace").splitlines()[:_BARS]
    except OSError:
        return ()
    bars = []
    for index, line in enumerate(lines):
        try:
            start, end, flags = (int(word, 16) for word in line.split())
        except ValueError as error:
            raise sysfs.malformed(path, line, "a line 'start end flags'") from error
        if flags:
            bars.append(Bar(index, start, end - start + 1, flags))
    return tuple(bars)
