"""Which devices may be handed to a guest, in which company, and why the others may not.

Nothing is chosen, leased or changed here. Sources: Documentation/driver-api/vfio.rst of the kernel
(a group is handed over whole; bridges may stay with pcieport) and
Documentation/PCI/pci-iov-howto.rst (virtual functions).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from deepops_fixtures.errors import some
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.host_use import HostUse
from deepops_fixtures.passthrough.pci import (
    IOMMU_GROUPS,
    NVIDIA,
    VFIO,
    Bdf,
    Host,
    PciDevice,
    device_id,
)
from deepops_fixtures.passthrough.platform_facts import foreign


class Candidate(BaseModel):
    """One line of `deepops-virtual gpu list`; the names of the fields are those of its JSON."""

    model_config = ConfigDict(serialize_by_alias=True)

    bdf: str
    #: vendor:device
    id: str
    class_name: str = Field(
        validation_alias=AliasChoices("class", "class_name"), serialization_alias="class"
    )
    name: str
    driver: str
    iommu_group: int | None
    #: Everything in the groups that go together with it, bridges and itself among them.
    group_members: list[str]
    assignable: bool
    #: Why it is refused; for an assignable device what has to be known, often ''.
    reason: str
    lease: Holder | None


@dataclass(frozen=True)
class Unit:
    """What can only be handed through together: one or more whole IOMMU groups.

    Mostly one GPU with its audio and USB functions; a board with two GPUs in one group is one unit
    with both.
    """

    #: What the user thinks of: GPUs, NVSwitches, devices named by vendor:device.
    wanted: tuple[PciDevice, ...]
    #: All that has to go, functions of the cards among them, without bridges.
    devices: tuple[PciDevice, ...]
    groups: tuple[int, ...]
    #: What else is in the groups; a unit with any of it is refused.
    foreign: tuple[PciDevice, ...] = ()

    @property
    def gpus(self) -> tuple[PciDevice, ...]:
        """The GPUs of the unit."""
        return tuple(item for item in self.wanted if item.is_gpu)

    @property
    def is_nvswitch(self) -> bool:
        """Whether it holds an NVSwitch."""
        return any(item.is_nvswitch for item in self.wanted)

    @property
    def is_virtual(self) -> bool:
        """Whether it is a virtual function of a card (SR-IOV)."""
        return any(item.physfn for item in self.wanted)

    @property
    def bdfs(self) -> tuple[Bdf, ...]:
        """The addresses of all that has to go."""
        return tuple(item.bdf for item in self.devices)

    @property
    def numa_node(self) -> int | None:
        """The memory node it is next to, None where the host does not tell."""
        return next((item.numa_node for item in self.wanted), None)

    def __contains__(self, bdf: object) -> bool:
        return bdf in self.bdfs

    def __str__(self) -> str:
        return ", ".join(str(item.bdf) for item in self.wanted)


def units(host: Host, extra_ids: Iterable[str] = ()) -> tuple[Unit, ...]:
    """Return every unit with a GPU, an NVSwitch or a device of these IDs, in order of address."""
    ids = frozenset(map(device_id, extra_ids))
    wanted = [item for item in host.devices.values() if _is_wanted(item, ids)]
    found: list[Unit] = []
    for item in wanted:
        if not any(item in unit.wanted for unit in found):
            found.append(_unit_around(host, item, wanted))
    return tuple(found)


def _is_wanted(device: PciDevice, ids: frozenset[str]) -> bool:
    return device.is_gpu or device.is_nvswitch or device.id in ids


def _unit_around(host: Host, first: PciDevice, wanted: Sequence[PciDevice]) -> Unit:
    """Follow cards into their groups, and the groups to the other cards in them."""
    devices: set[PciDevice] = set()
    foreign: set[PciDevice] = set()
    open_ends = [first]
    while open_ends:
        item = open_ends.pop()
        if item in devices or item in foreign:
            continue
        functions = host.functions(item)
        if not any(function in wanted for function in functions):
            foreign.add(item)
            continue
        devices.add(item)
        open_ends += functions
        if item.iommu_group is not None:
            members = host.groups[item.iommu_group]
            open_ends += [member for member in members if not _stays_behind(member)]
    return Unit(
        wanted=_ordered(item for item in wanted if item in devices),
        devices=_ordered(devices),
        groups=tuple(
            sorted({item.iommu_group for item in devices if item.iommu_group is not None})
        ),
        foreign=_ordered(foreign),
    )


def _stays_behind(device: PciDevice) -> bool:
    """Return whether a group may be used while this member of it stays with the host."""
    # AMD's root ports share their group with a 'dummy host bridge' that no driver wants.
    return device.is_board and device.driver in ("", "pcieport")


def _ordered(devices: Iterable[PciDevice]) -> tuple[PciDevice, ...]:
    return tuple(sorted(devices, key=lambda item: item.bdf))


class Rules:
    """The refusals of one host, at one moment.

    ``holders`` are the leases by IOMMU group; ``guests`` names the virtual machine that has a
    device already, by address (libvirt knows; sysfs does not). With ``leases_end`` the question is
    what could be had once every lease has ended.
    """

    def __init__(
        self,
        host: Host,
        holders: Mapping[int, Holder] | None = None,
        guests: Mapping[Bdf, str] | None = None,
        *,
        leases_end: bool = False,
    ) -> None:
        self.host = host
        self.holders = holders or {}
        self.guests = guests or {}
        self._leases_end = leases_end

    @cached_property
    def _use(self) -> HostUse:
        return HostUse(self.host)

    @cached_property
    def _foreign(self) -> str:
        return foreign(self.host)

    def lease(self, unit: Unit) -> Holder | None:
        """Return who holds any group of this unit."""
        return next((self.holders[it] for it in unit.groups if it in self.holders), None)

    def refusal(self, unit: Unit) -> str:
        """Return why the unit may not be handed through, a sentence; '' when it may."""
        return self.unsafe(unit) or self.busy(unit)

    def unsafe(self, unit: Unit) -> str:
        """Return why it may never be handed through on this host as it is; '' when it may."""
        return next(self._unsafe(unit), "")

    def busy(self, unit: Unit) -> str:
        """Return why it may not be handed through now: leased, or in use; '' when it may."""
        return next(self._busy(unit), "")

    def _unsafe(self, unit: Unit) -> Iterator[str]:
        if self._foreign:
            yield f"{self._foreign}."
        for item in unit.devices:
            if item.is_board:
                yield f"'{item.bdf}' is a part of this host's board ({item.class_name})."
            if item.boot_vga:
                yield f"'{item.bdf}' is the boot display of this host."
            if item.iommu_group is None:
                yield f"'{item.bdf}' is in no IOMMU group: {self._without_group()}."
        members = (*unit.devices, *unit.foreign)
        for item in members:
            for what in self._use.needs(item):
                yield _holds(unit, item, what)
        if unit.foreign:
            others = ", ".join(_described(item, self.host) for item in unit.foreign)
            yield (
                f"IOMMU group {_numbers(unit.groups)} of '{unit}' also holds {others}; a group is "
                "handed through whole or not at all."
            )
        yield from self._virtual_functions(unit)
        if any(map(self._use.may_hold_root, unit.devices)):
            yield "The disk that '/' is on cannot be told, so no storage controller is given away."

    def _without_group(self) -> str:
        if self.host.groups:
            return "other devices of this host are in one"
        off = "the IOMMU is off, in the BIOS or on the kernel's command line"
        return self.host.lacks(IOMMU_GROUPS) or off

    def _virtual_functions(self, unit: Unit) -> Iterator[str]:
        for item in unit.devices:
            if item.virtfns:
                yield (
                    f"'{item.bdf}' has virtual functions, which would vanish with it: "
                    f"{some(item.virtfns)}."
                )
            if item.physfn and item.vendor == NVIDIA:
                # NVIDIA's vGPU guide: they are for its vGPU manager, not for plain vfio-pci.
                yield (
                    f"The virtual functions of '{item.physfn}' are for vGPUs of NVIDIA's own "
                    "driver on this host, and no GPUs without it."
                )
            elif item.physfn:
                physical = self.host.devices.get(item.physfn)
                if not physical or physical.driver in ("", VFIO):
                    yield (
                        f"'{item.bdf}' is a virtual function whose physical one, '{item.physfn}', "
                        "has no driver of the host that would look after it."
                    )

    def _busy(self, unit: Unit) -> Iterator[str]:
        holder = self.lease(unit)
        if holder and self._leases_end:
            return
        if holder:
            yield f"'{unit}' is leased to {holder}."
        for item in unit.devices:
            if item.bdf in self.guests:
                yield f"'{item.bdf}' is in the virtual machine '{self.guests[item.bdf]}'."
            for interface in self._use.traffic.get(item.bdf, ()):
                yield f"'{item.bdf}' carries traffic of this host ('{interface}')."
            vgpus = self._use.mediated(item)
            if vgpus:
                yield f"'{item.bdf}' is divided into vGPUs: {some(vgpus)}."
            processes = self._use.processes(item)
            if processes:
                yield f"'{item.bdf}' is in use on this host by {', '.join(map(str, processes))}."


def _holds(unit: Unit, device: PciDevice, what: str) -> str:
    if device in unit.wanted:
        return f"'{device.bdf}' is {what}."
    return f"IOMMU group {_numbers(unit.groups)} of '{unit}' holds {what}, '{device.bdf}'."


def _numbers(groups: Iterable[int]) -> str:
    return ", ".join(map(str, groups))


def _described(device: PciDevice, host: Host) -> str:
    driver = f", driver '{device.driver}'" if device.driver else ""
    return f"'{device.bdf}' ({device.class_name} {device.id}{driver})"


def candidates(
    host: Host,
    holders: Mapping[int, Holder] | None = None,
    *,
    extra_ids: Iterable[str] = (),
    guests: Mapping[Bdf, str] | None = None,
) -> list[Candidate]:
    """Return every device that one may want to hand through, assignable or refused.

    ``extra_ids`` adds devices that are no GPUs, as 'vendor:device'. Raises UsageProblem for a
    malformed tree or ID.
    """
    rules = Rules(host, holders, guests)
    found = []
    for unit in units(host, extra_ids):
        reason = rules.refusal(unit)
        found += [_candidate(host, rules, unit, item, reason) for item in unit.wanted]
    return sorted(found, key=lambda item: Bdf.parse(item.bdf))


def _candidate(host: Host, rules: Rules, unit: Unit, item: PciDevice, reason: str) -> Candidate:
    members = [str(member.bdf) for group in unit.groups for member in host.groups[group]]
    note = ""
    if item.is_nvswitch:
        note = "goes along when one node gets every GPU of this host"
    elif len(unit.wanted) > 1:
        note = f"goes together with {', '.join(str(it.bdf) for it in unit.wanted if it != item)}"
    return Candidate(
        bdf=str(item.bdf),
        id=item.id,
        class_name=item.class_name,
        name=host.name(item),
        driver=item.driver,
        iommu_group=item.iommu_group,
        group_members=members,
        assignable=not reason,
        reason=reason or note,
        lease=rules.lease(unit),
    )
