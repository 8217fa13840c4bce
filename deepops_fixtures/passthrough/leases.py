"""Who may use which IOMMU group: leases of this host, across its users, one file a group.

A lease is a flock(2) of a living process and a record in the same file. The lock goes with the
process, whatever ends it; the record then still counts for as long as one of the virtual machines
in it exists, a program has the group's device file open, or a device is not back on the driver of
the host that it had. Choosing and locking happen under one lock of the whole host, so that two
runs that want several groups each never wait for one another while holding some.
"""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepops_fixtures.errors import LeakError, UsageProblem
from deepops_fixtures.passthrough import binding, lease_files
from deepops_fixtures.passthrough.candidates import units
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.host_use import HostUse
from deepops_fixtures.passthrough.pci import VFIO, Bdf, Host
from deepops_fixtures.passthrough.selection import Placement, Request, choose
from deepops_fixtures.proc import Deadline

FOLDER = "/run/lock/deepops-fixtures"
#: Seconds to wait for another process that chooses: it does nothing long.
_CHOICE = 30.0
_TICK = 0.5


@dataclass(frozen=True)
class Owner:
    """For whom a lease is taken: a cluster instance, and its virtual machines by node."""

    instance: str
    domains: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Lease:
    """What `Leases.acquire` gives: the choice, and the locks for as long as this lives."""

    placement: Placement
    _handles: dict[int, int]

    @property
    def groups(self) -> tuple[int, ...]:
        """The IOMMU groups that this process has locked."""
        return tuple(self._handles)

    def close(self) -> None:
        """Let go of the locks; the records stay, and count while their machines exist."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}

    def record(self, holders: Mapping[int, Holder]) -> None:
        """Write who holds these groups."""
        for group, holder in holders.items():
            lease_files.write(self._handles[group], holder)

    def forget(self) -> None:
        """Take the records back and let go of the locks."""
        for handle in self._handles.values():
            os.ftruncate(handle, 0)
        self.close()


@dataclass(frozen=True)
class _Blocked:
    """Nothing but other leases is in the way."""

    by: str
    why: str


class Leases:
    """The leases of one host.

    ``domain_exists`` says whether libvirt has a virtual machine of that name; without it they are
    all taken to exist. ``guests`` gives the devices that are in virtual machines, by address.
    """

    def __init__(
        self,
        root: Path | str = "/",
        *,
        domain_exists: Callable[[str], bool] | None = None,
        guests: Callable[[], Mapping[Bdf, str]] | None = None,
    ) -> None:
        self.host = Host(root)
        self.folder = self.host.path(FOLDER)
        self._domain_exists = domain_exists or (lambda _name: True)
        self._guests = guests or dict

    # -- looking ----------------------------------------------------------------------------

    def holders(self, *, away: bool = True) -> dict[int, Holder]:
        """Return who holds which group; nothing is locked or changed for it.

        A record whose process and virtual machines are gone and whose device nobody has open does
        not count, once the device is back: libvirt takes seconds to bring it to its driver. With
        ``away`` off it does not count before either.
        """
        host = Host(self.host.root)
        use = HostUse(host)
        return {
            group: holder
            for group, holder in self._records().items()
            if self._is_alive(holder)
            or any(map(self._domain_exists, holder.domains))
            or use.has_open(f"/dev/vfio/{group}")
            or (away and _is_away(holder, host))
        }

    def of(self, instance: str) -> dict[int, Holder]:
        """Return the records of one cluster instance, those that do not count any more as well."""
        return {
            group: holder
            for group, holder in self._records().items()
            if holder.instance == instance
        }

    def drivers_before(self) -> dict[Bdf, str]:
        """Return the driver that each device had when it was leased, by every record there is; a
        device that was on vfio-pci is not among them.

        Every user may write the records: what cannot be an address or a driver is passed over.
        """
        told = (it for holder in self._records().values() for it in holder.drivers.items())
        found = ((Bdf.match(bdf), driver) for bdf, driver in told)
        return {
            bdf: driver
            for bdf, driver in found
            if bdf and driver != VFIO and re.fullmatch(r"[\w-]*", driver)
        }

    def _records(self) -> dict[int, Holder]:
        found = {}
        for path in self.folder.glob("iommu-group-*.lock"):
            number = path.stem.removeprefix("iommu-group-")
            holder = lease_files.read(path) if number.isdecimal() else None
            if holder:
                found[int(number)] = holder
        return dict(sorted(found.items()))

    def _is_alive(self, holder: Holder) -> bool:
        return (
            lease_files.started(self.host.text(f"/proc/{holder.pid}/stat"))
            == holder.process_started
        )

    # -- taking -----------------------------------------------------------------------------

    def acquire(
        self,
        request: Request,
        nodes: Sequence[str],
        owner: Owner,
        *,
        wait_s: float = 0,
        say: Callable[[str], None] = lambda _text: None,
    ) -> Lease:
        """Choose devices for these nodes and hold their groups: all of them, or none.

        Where nothing but other leases is in the way it waits for them, ``wait_s`` seconds at most,
        and says for whom. Raises UsageProblem.
        """
        if not request:
            return Lease(choose(self.host, request, nodes), {})
        deadline = Deadline.after(wait_s)
        told = ""
        while True:
            found = self._try(request, nodes, owner)
            if isinstance(found, Lease):
                return found
            if deadline.passed:
                after = f" after {wait_s:.0f} s of waiting" if wait_s else ""
                raise UsageProblem(
                    f"The devices that '{request.text}' asks for are still leased{after}, to "
                    f"{found.by}.",
                    detail=found.why,
                    hint="wait longer, or ask for others   (deepops-virtual gpu list)",
                )
            if found.by != told:
                say(
                    f"Waiting for devices that are leased to {found.by}, for "
                    f"{deadline.left:.0f} s at most."
                )
                told = found.by
            time.sleep(min(_TICK, deadline.left))

    def _try(self, request: Request, nodes: Sequence[str], owner: Owner) -> Lease | _Blocked:
        with self._choosing():
            host = Host(self.host.root)
            guests = self._guests()
            holders = self.holders()
            while True:
                try:
                    placement = choose(host, request, nodes, holders, guests=guests)
                except UsageProblem as refused:
                    # Another reason than leases is raised here.
                    later = choose(host, request, nodes, holders, guests=guests, leases_end=True)
                    return _Blocked(_names(host, request, holders, later), refused.message)
                handles, taken = self._lock(placement.groups)
                if taken is None:
                    break
                # Locked, though its record does not count: its process cannot be seen, perhaps.
                holders[taken] = self._records().get(taken, _UNRECORDED)
            lease = Lease(placement, handles)
            try:
                lease.record(_described(placement, owner))
            except BaseException:
                lease.forget()
                raise
            return lease

    def _lock(self, groups: Sequence[int]) -> tuple[dict[int, int], int | None]:
        """Lock these groups, or none and return the first that a process has locked already."""
        handles: dict[int, int] = {}
        try:
            for group in groups:
                handles[group] = self._open(f"iommu-group-{group}.lock")
                if not lease_files.lock(handles[group]):
                    lease_files.close(handles)
                    return {}, group
        except BaseException:
            lease_files.close(handles)
            raise
        return handles, None

    # -- passing on -------------------------------------------------------------------------

    def keep(self, instance: str) -> None:
        """Note that an instance is left running: its lease lasts until it is destroyed."""
        self._rewrite(instance, lambda holder: holder.model_copy(update={"kept": True}))

    def release(self, instance: str, *, wait_s: float = 30, lease: Lease | None = None) -> None:
        """Free what an instance held, once its machines are gone and its devices are back.

        Back: nobody has the group open and each device is on the driver that it had, or on another
        of the host's. Raises LeakError when that does not come about within ``wait_s`` seconds;
        the lease then stays.
        """
        deadline = Deadline.after(wait_s)
        while missing := self._missing(instance):
            if deadline.passed:
                raise LeakError(
                    f"The devices of cluster '{instance}' stay leased: {missing}",
                    hint="deepops-virtual gpu list; then deepops-virtual destroy "
                    f"{instance} or deepops-virtual gpu unbind",
                )
            time.sleep(min(_TICK, deadline.left))
        self._rewrite(instance, lambda _holder: None)
        if lease:
            lease.close()

    def _missing(self, instance: str) -> str:
        """Return what has to happen before a lease may end, a sentence; '' when it has."""
        host = Host(self.host.root)
        use = HostUse(host)
        for group, holder in self.of(instance).items():
            for domain in filter(self._domain_exists, holder.domains):
                return f"the virtual machine '{domain}' still exists."
            if use.has_open(f"/dev/vfio/{group}"):
                return f"a program still has '/dev/vfio/{group}' open."
            for bdf, before in holder.drivers.items():
                device = host.devices.get(Bdf.parse(bdf))
                if device is None:
                    return f"'{bdf}' is not on the bus any more."
                if device.driver != before and device.driver in ("", VFIO):
                    return f"'{bdf}' is on driver '{device.driver}' and not on '{before}'."
        return ""

    def _rewrite(self, instance: str, change: Callable[[Holder], Holder | None]) -> None:
        if not self.of(instance):
            return
        with self._choosing():
            for group, holder in self.of(instance).items():
                handle = self._open(f"iommu-group-{group}.lock")
                try:
                    lease_files.write(handle, change(holder))
                finally:
                    os.close(handle)

    # -- files ------------------------------------------------------------------------------

    @contextmanager
    def _choosing(self) -> Iterator[None]:
        """Be the only process of this host that changes leases. Raises UsageProblem."""
        handle = self._open("choice.lock")
        try:
            deadline = Deadline.after(_CHOICE)
            while not lease_files.lock(handle):
                if deadline.passed:
                    raise UsageProblem(
                        f"Another process has had '{self.folder / 'choice.lock'}' locked for "
                        f"{_CHOICE:.0f} s.",
                        hint=f"fuser -v {self.folder / 'choice.lock'}",
                    )
                time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def _open(self, name: str) -> int:
        """Open a file of the folder that every user may write to. Raises UsageProblem."""
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                self.folder.chmod(0o1777)
            return lease_files.open_shared(self.folder / name)
        except OSError as error:
            raise UsageProblem(
                f"'{self.folder / name}' cannot be written: {error.strerror}.",
                hint=f"sudo install -d -m 1777 {self.folder}; sudo chmod 666 {self.folder}/*",
            ) from error


_UNRECORDED = Holder(instance="", user="", pid=0, process_started=0, since=0)


def _is_away(holder: Holder, host: Host) -> bool:
    """Return whether a driver of the host had a device of this lease and has not got it again; one
    that somebody has moved since by hand is that one's."""
    by_hand = binding.bound(host)
    for text, before in holder.drivers.items():
        bdf = Bdf.match(text)
        device = host.devices.get(bdf) if bdf and bdf not in by_hand else None
        if device and device.driver in ("", VFIO) and before not in ("", VFIO):
            return True
    return False


def _names(host: Host, request: Request, holders: Mapping[int, Holder], later: Placement) -> str:
    """Return whose leases are in the way: of the named devices, or of all that would do."""
    wanted = {item.id for unit in later.units for item in unit.wanted}
    found = {
        str(holders[group])
        for unit in units(host, request.extra_ids)
        for group in unit.groups
        if group in holders
        and (unit in later.units or (not request.bdfs and wanted & {it.id for it in unit.wanted}))
    }
    return " and ".join(sorted(found))


def _described(placement: Placement, owner: Owner) -> dict[int, Holder]:
    """Return the record of each group."""
    me = _me()
    found = {}
    for node, placed in placement.nodes.items():
        domain = owner.domains.get(node)
        for unit in placed:
            for group in unit.groups:
                members = [item for item in unit.devices if item.iommu_group == group]
                found[group] = Holder(
                    instance=owner.instance,
                    since=time.time(),
                    bdfs=tuple(str(item.bdf) for item in members),
                    domains=(domain,) if domain else (),
                    drivers={str(item.bdf): item.driver for item in members},
                    **me,
                )
    return found


def _me() -> dict[str, Any]:
    """Return what a record says of the process that holds the lease."""
    started = lease_files.started(Path("/proc/self/stat").read_text())
    return {"user": getpass.getuser(), "pid": os.getpid(), "process_started": started}
