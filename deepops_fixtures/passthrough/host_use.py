"""What the host itself uses: its disks, its network, programs with a device file open.

From proc and sysfs alone, so that a saved tree answers like a living host. Files that this user
may not read are passed over: as another user than root the programs of others are not seen.
Sources: proc(5), Documentation/ABI/testing/sysfs-class-net, Documentation/ABI/stable/sysfs-block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.pci import Bdf, Host, PciDevice

_RTF_UP, _RTF_REJECT = 0x1, 0x200
#: The base class of storage controllers (pci.ids, class section).
_STORAGE = 0x01


@dataclass(frozen=True)
class Process:
    """A running program."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"'{self.command}' (process {self.pid})"


class HostUse:
    """What of a host's devices is in use; everything is looked up once, when first asked for."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # -- disks ------------------------------------------------------------------------------

    @cached_property
    def file_systems(self) -> dict[Bdf, tuple[str, ...]]:
        """Mount points by the controller that their disk hangs on, '/' first."""
        found: dict[Bdf, set[str]] = {}
        for where, disk in self._mounts():
            for bdf in self._controllers(disk, set()):
                found.setdefault(bdf, set()).add(where)
        return {bdf: tuple(sorted(places)) for bdf, places in found.items()}

    @cached_property
    def root_is_unknown(self) -> bool:
        """Whether the controller of '/' cannot be told (ZFS, an overlay, a tree without proc)."""
        return not any("/" in places for places in self.file_systems.values())

    def may_hold_root(self, device: PciDevice) -> bool:
        """Whether a device is a storage controller while that of '/' cannot be told."""
        return self.root_is_unknown and device.class_code >> 16 == _STORAGE

    def needs(self, device: PciDevice) -> Iterator[str]:
        """Yield what the host needs a device as: the controller of a disk, the root disk first,
        the network card of the default route."""
        for where in self.file_systems.get(device.bdf, ()):
            disk = "the root disk" if where == "/" else f"the file system at '{where}'"
            yield f"the controller of {disk}"
        for interface in self.default_routes.get(device.bdf, ()):
            yield f"the network card of the default route ('{interface}')"

    def _mounts(self) -> Iterator[tuple[str, Path]]:
        """Yield the mount point and the block device's folder of each mount and swap."""
        text = self.host.text("/proc/self/mountinfo") or self.host.text("/proc/1/mountinfo")
        for line in text.splitlines():
            words, _, rest = (part.split() for part in line.partition(" - "))
            if len(words) < 6 or len(rest) < 2:
                raise _malformed(self.host, "/proc/self/mountinfo", line)
            source = rest[1]
            number = self.host.path(f"/sys/dev/block/{words[2]}")
            # btrfs has a number of its own that no device has.
            named = self.host.path(f"/sys/class/block/{source.rsplit('/', 1)[-1]}")
            disk = next((path for path in (number, named) if path.exists()), None)
            if disk:
                yield _unescaped(words[4]), disk
        for line in self.host.text("/proc/swaps").splitlines()[1:]:
            named = self.host.path(f"/sys/class/block/{Path(line.split(maxsplit=1)[0]).name}")
            if named.exists():
                yield "swap", named

    def _controllers(self, disk: Path, seen: set[Path]) -> set[Bdf]:
        """Return the PCI functions a disk hangs on, through partitions, LVM, RAID, multipath."""
        folder = disk.resolve()
        if folder in seen:
            return set()
        seen.add(folder)
        found = {
            bdf
            for bdf in self.host.addresses_above(folder)
            if bdf in self.host.devices and not self.host.devices[bdf].is_bridge
        }
        below = [*(folder / "slaves").glob("*"), *(folder.parent / "slaves").glob("*")]
        if "nvme-subsystem" in folder.parts:
            # With multipath the disk belongs to the subsystem, which links its controllers.
            top = folder.parents[len(folder.parts) - folder.parts.index("nvme-subsystem") - 3]
            below += [path for path in top.glob("nvme*") if path.is_symlink()]
        for path in below:
            found |= self._controllers(path, seen)
        return found

    # -- network ----------------------------------------------------------------------------

    @cached_property
    def default_routes(self) -> dict[Bdf, tuple[str, ...]]:
        """Interfaces with a default route, by the card under them."""
        return self._cards(name for name, is_default in self._route_table() if is_default)

    @cached_property
    def traffic(self) -> dict[Bdf, tuple[str, ...]]:
        """Interfaces with any route or made of others (bridge, bond, VLAN), by the card under
        them: guests talk through a bridge that has no address of the host's."""
        folders = self.host.path("/sys/class/net").glob("*")
        made_of_others = [path.name for path in folders if any(path.glob("lower_*"))]
        return self._cards([*made_of_others, *(name for name, _ in self._route_table())])

    @cached_property
    def interfaces_up(self) -> dict[Bdf, tuple[str, ...]]:
        """Interfaces that are up, with a link, by the card under them."""
        folders = self.host.path("/sys/class/net").glob("*")
        states = {
            path.name: self.host.text(f"/sys/class/net/{path.name}/operstate") for path in folders
        }
        return self._cards(name for name, state in states.items() if state.strip() == "up")

    def _cards(self, interfaces: Iterable[str]) -> dict[Bdf, tuple[str, ...]]:
        found: dict[Bdf, set[str]] = {}
        for interface in interfaces:
            for bdf in self._below(interface, set()):
                found.setdefault(bdf, set()).add(interface)
        return {bdf: tuple(sorted(names)) for bdf, names in found.items()}

    def _route_table(self) -> Iterator[tuple[str, bool]]:
        for line in self._network_file("route").splitlines()[1:]:
            words = line.split()
            if len(words) < 8:
                raise _malformed(self.host, "/proc/net/route", line)
            if self._flags("/proc/net/route", words[3]) & _RTF_UP:
                yield words[0], words[1] == words[7] == "00000000"
        for line in self._network_file("ipv6_route").splitlines():
            words = line.split()
            if len(words) < 10:
                raise _malformed(self.host, "/proc/net/ipv6_route", line)
            flags = self._flags("/proc/net/ipv6_route", words[8])
            link_local = line.startswith(("fe80", "ff00"))
            if flags & _RTF_UP and not flags & _RTF_REJECT and not link_local:
                yield words[9], words[1] == "00" and not words[0].strip("0")

    def _flags(self, name: str, text: str) -> int:
        try:
            return int(text, 16)
        except ValueError as error:
            raise _malformed(self.host, name, text) from error

    def _network_file(self, name: str) -> str:
        return self.host.text(f"/proc/net/{name}") or self.host.text(f"/proc/self/net/{name}")

    def _below(self, interface: str, seen: set[str]) -> set[Bdf]:
        """Return the cards under an interface, through bonds, bridges and VLANs."""
        folder = self.host.path(f"/sys/class/net/{interface}")
        if interface in seen or not folder.exists():
            return set()
        seen.add(interface)
        above = self.host.addresses_above(folder)
        found = {bdf for bdf in above[-1:] if bdf in self.host.devices}
        for link in folder.glob("lower_*"):
            found |= self._below(link.name.removeprefix("lower_"), seen)
        return found

    # -- virtual machines --------------------------------------------------------------------

    def mediated(self, device: PciDevice) -> tuple[str, ...]:
        """Return the mediated devices (vGPUs) that a device is divided into, by their UUID.

        Source: Documentation/driver-api/vfio-mediated-device.rst of the kernel.
        """
        folder = self.host.folder(device.bdf)
        return tuple(sorted(path.parent.name for path in folder.glob("*/mdev_type")))

    # -- programs ---------------------------------------------------------------------------

    def processes(self, device: PciDevice) -> tuple[Process, ...]:
        """Return the programs that have a file of this device open."""
        found = {
            process for file in self._files_of(device) for process in self._open.get(file, ())
        }
        return tuple(sorted(found, key=lambda process: process.pid))

    def has_open(self, file: str) -> bool:
        """Return whether a program has this file below /dev open, as far as this user may see."""
        return file in self._open

    def _files_of(self, device: PciDevice) -> Iterator[str]:
        """Yield the names below /dev that stand for a device."""
        folder = self.host.folder(device.bdf)
        yield from (f"/dev/dri/{path.name}" for path in folder.glob("drm/*"))
        yield from (f"/dev/{path.name}" for path in folder.glob("nvme/nvme*"))
        yield from (f"/dev/{path.name}" for path in folder.glob("nvme/nvme*/nvme*n*"))
        yield from (f"/dev/vfio/devices/{path.name}" for path in folder.glob("vfio-dev/*"))
        if device.iommu_group is not None:
            yield f"/dev/vfio/{device.iommu_group}"
        if device.driver.startswith("nvidia"):
            yield from self._nvidia_files(device)

    def _nvidia_files(self, device: PciDevice) -> Iterator[str]:
        if device.is_nvswitch:
            yield from (file for file in self._open if file.startswith("/dev/nvidia-nvswitch"))
            return
        text = self.host.text(f"/proc/driver/nvidia/gpus/{device.bdf}/information")
        minor = re.search(r"Device Minor:\s*(\d+)", text)
        for file in self._open:
            # Without the driver's own word any GPU may be meant.
            if (
                file == f"/dev/nvidia{minor[1]}"
                if minor
                else re.fullmatch(r"/dev/nvidia\d+", file)
            ):
                yield file

    @cached_property
    def _open(self) -> dict[str, set[Process]]:
        """Who has which file below /dev open."""
        found: dict[str, set[Process]] = {}
        for link in self.host.path("/proc").glob("[0-9]*/fd/*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith(("/dev/nvidia", "/dev/vfio/", "/dev/dri/", "/dev/nvme")):
                pid = int(link.parent.parent.name)
                found.setdefault(target, set()).add(Process(pid, self._command(pid)))
        return found

    def _command(self, pid: int) -> str:
        words = self.host.text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")
        return " ".join(words)[:60] or self.host.text(f"/proc/{pid}/comm").strip()


def _malformed(host: Host, name: str, line: str) -> UsageProblem:
    return UsageProblem(
        f"'{host.path(name)}' holds a line that cannot be read: '{line}'.",
        hint="copy the tree again",
    )


def _unescaped(text: str) -> str:
    """Undo the octal escapes of mountinfo: a space is '\\040' there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
