"""Which device IDs a host may be prepared for: vfio-pci takes every device of an ID at boot.

A network card in use, but not by the default route, may be meant: that is said and not refused.
Nothing is asked about IOMMU groups, which are not there before the host is prepared; whether a
single device may be handed through now is decided in `candidates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.host_use import HostUse
from deepops_fixtures.passthrough.pci import NVIDIA, Bdf, Host, PciDevice, device_id


def wanted_ids(host: Host, devices: Iterable[str]) -> tuple[str, ...]:
    """Return these vendor:device IDs, once each.

    vfio-pci takes every device of an ID, so an ID is refused when any device of it is one that
    this host needs. Raises UsageProblem.
    """
    found: dict[str, None] = {}
    for text in devices:
        bdf = Bdf.match(text)
        if bdf:
            at = host.devices.get(bdf)
            example = at.id if at else "10de:1db1"
            raise UsageProblem(
                f"'{text}' is an address; a host is prepared for all devices of a vendor:device "
                "ID.",
                hint=f"--device {example} ({host.reading('gpu list')} shows IDs)",
            )
        found[device_id(text)] = None
    if not found:
        raise UsageProblem(
            "No device was named.", hint=host.reading("gpu prepare --device 10de:1db1")
        )
    use = HostUse(host)
    for wanted in found:
        matches = host.with_id(wanted)
        if not matches:
            raise UsageProblem(
                f"This host has no device '{wanted}'.", hint=host.reading("gpu list")
            )
        for item in matches:
            reason = _needed(item, use)
            if reason:
                raise UsageProblem(
                    f"'{wanted}' is refused: {_which(item, matches)} {reason}, and vfio-pci takes "
                    "every device of an ID at boot.",
                    hint=_without(matches),
                )
    return tuple(found)


def _without(matches: Sequence[PciDevice]) -> str:
    if len(matches) == 1:
        return "leave this ID out"
    return "leave this ID out; 'deepops-virtual gpu bind' moves single devices"


def _which(item: PciDevice, matches: Sequence[PciDevice]) -> str:
    return f"'{item.bdf}'" if len(matches) == 1 else f"'{item.bdf}', one of {len(matches)},"


def _needed(item: PciDevice, use: HostUse) -> str:
    """Return what this host needs a device for, '' when it can do without."""
    if item.is_board:
        return f"is a part of the board ({item.class_name}), which stays with the host"
    if item.boot_vga:
        return "is the boot display"
    for what in use.needs(item):
        return f"is {what}"
    if use.may_hold_root(item):
        return "may be the controller of the root disk, which cannot be told here"
    return ""


def departures(host: Host, ids: Sequence[str]) -> tuple[str, ...]:
    """Return notes on network interfaces in use that the host is without once vfio-pci has these
    IDs."""
    use = HostUse(host)
    found = []
    for item in (device for wanted in ids for device in host.with_id(wanted)):
        busy = use.traffic.get(item.bdf)
        names = busy or use.interfaces_up.get(item.bdf, ())
        if names:
            listed = ", ".join(f"'{name}'" for name in names)
            what = "carries traffic" if busy else "is up"
            found.append(
                f"'{item.bdf}' ({host.name(item)}) {what} now: {listed}. From the next boot on "
                "this host is without it."
            )
    return tuple(found)


def companions(host: Host, ids: Sequence[str]) -> tuple[str, ...]:
    """Return notes on devices that go along with a wanted one and have another ID."""
    found: dict[str, PciDevice] = {}
    for item in (device for wanted in ids for device in host.with_id(wanted)):
        group = host.groups.get(item.iommu_group, ()) if item.iommu_group is not None else ()
        for other in (*host.functions(item), *group):
            if other.id not in ids and not other.is_board:
                found.setdefault(other.id, other)
    notes = [
        f"'{item.bdf}' ({item.class_name}) goes to a guest together with what was named: add "
        f"--device {name} unless vfio-pci has it otherwise."
        for name, item in found.items()
    ]
    return (*notes, *_switches(host, ids))


def _switches(host: Host, ids: Sequence[str]) -> Iterator[str]:
    """Yield a note on NVSwitches that are not named along with the GPUs that they connect."""
    named = [device for wanted in ids for device in host.with_id(wanted)]
    if not any(item.is_gpu and item.vendor == NVIDIA for item in named):
        return
    switches = dict.fromkeys(item.id for item in host.devices.values() if item.is_nvswitch)
    missing = [name for name in switches if name not in ids]
    if missing:
        words = " ".join(f"--device {name}" for name in missing)
        yield (
            "The NVSwitches of this host go along when one node gets every GPU: for that add "
            f"{words}."
        )
