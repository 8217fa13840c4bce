"""What ``--deepops-gpu`` asks for, and which devices each GPU node gets for it.

A pure function of the host, the request and the leases: nothing is locked or changed. Sources:
DeepOps' workloads/jenkins/scripts/jenkins-common.sh and munge-files.sh for GPUDATA.

NVSwitches: sysfs does not tell which baseboard one belongs to. So all of a host's NVSwitches go
together, and only to a node that gets every NVIDIA GPU of the host. A node that gets fewer works
without NVLink, which is said; asking for a switch in any other company is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.candidates import Rules, Unit, units
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.pci import NVIDIA, VFIO, Bdf, Host, PciDevice, device_id

_T = TypeVar("_T")
_GPUDATA = re.compile(r"(\d+)-0x([0-9a-fA-F]{1,2})")
#: GPUs that one host may have; more is a slip of the keyboard.
_MOST = 256
_COUNTED = re.compile(r"(\d+)x(.+)")
_HELP = (
    "give 'auto', a number of GPUs, addresses as in '08:00.0,0a:00.0', an ID as in '10de:1db1', "
    "or a number of it as in '2x10de:1db1'"
)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    >>> Request.parse("2x10de:1db1").count
    2
    """

    text: str
    kind: Literal["none", "auto", "count", "addresses", "gpudata"] = "none"
    #: How many in all, for 'count'.
    count: int = 0
    #: In the order given, for 'addresses' and 'gpudata'.
    bdfs: tuple[Bdf, ...] = ()
    #: vendor:device, for 'auto' and 'count' of one ID; '' for any NVIDIA GPU.
    device: str = ""

    @classmethod
    def parse(cls, text: str) -> Request:
        """Read the value of ``--deepops-gpu``. Raises UsageProblem.

        '' or 'none': nothing. 'auto': one GPU for each GPU node. 'COUNT': so many in all, spread
        over the GPU nodes. 'BDF,BDF': these, in this order. 'vendor:device': one of it for each
        GPU node, GPU or not. 'COUNTxVENDOR:DEVICE': so many of it in all.
        """
        text = text.strip().lower()
        if text in ("", "none"):
            return cls(text)
        if text == "auto":
            return cls(text, "auto")
        if text.isdecimal():
            return cls(text, "count", count=_positive(text, text))
        counted = _COUNTED.fullmatch(text)
        if counted:
            count = _positive(counted[1], text)
            return cls(text, "count", count=count, device=device_id(counted[2]))
        words = [word.strip() for word in text.split(",")]
        addresses = [Bdf.match(word) for word in words]
        if all(addresses):
            bdfs = tuple(filter(None, addresses))
            _refuse_twice(bdfs, text)
            return cls(text, "addresses", bdfs=bdfs)
        if len(words) == 1 and re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", text):
            return cls(text, "auto", device=text)
        raise UsageProblem(f"'{text}' does not say which GPUs are wanted.", hint=_HELP)

    @property
    def extra_ids(self) -> tuple[str, ...]:
        """The IDs it names, for `candidates.units`."""
        return (self.device,) if self.device else ()

    def __bool__(self) -> bool:
        return self.kind != "none"


def parse_gpudata(text: str) -> Request:
    """Read upstream's GPUDATA, as in '3-0x86,2-0x85'. Raises UsageProblem.

    One or two entries, 'number-bus': the number tells DeepOps' jobs apart and means nothing here,
    the bus is that of the GPU at slot 0, function 0. The first is for the first GPU node.
    """
    entries = [_GPUDATA.fullmatch(word.strip()) for word in text.split(",")]
    if not 1 <= len(entries) <= 2 or not all(entries):
        raise UsageProblem(
            f"GPUDATA is '{text}', which is not one or two of 'number-bus'.",
            hint="write it as DeepOps' CI does: GPUDATA=3-0x86 or GPUDATA=3-0x86,2-0x85",
        )
    bdfs = tuple(Bdf(0, int(found[2], 16), 0, 0) for found in entries if found)
    _refuse_twice(bdfs, text)
    return Request(text, "gpudata", bdfs=bdfs)


def _positive(number: str, text: str) -> int:
    # Python reads no number of thousands of digits.
    number = number[-5:] if number[:-5].strip("0") == "" else f"{_MOST + 1}"
    if int(number) < 1:
        raise UsageProblem(f"'{text}' asks for no GPU at all.", hint="leave --deepops-gpu out")
    if int(number) > _MOST:
        raise UsageProblem(
            f"'{text}' asks for more than {_MOST} GPUs.", hint="ask for as many as there are"
        )
    return int(number)


def _refuse_twice(bdfs: Sequence[Bdf], text: str) -> None:
    twice = next((bdf for bdf in bdfs if bdfs.count(bdf) > 1), None)
    if twice:
        raise UsageProblem(f"'{text}' names '{twice}' twice.", hint="name each device once")


@dataclass(frozen=True)
class Placement:
    """Which units each GPU node gets; nodes that get none have an empty tuple."""

    nodes: Mapping[str, tuple[Unit, ...]] = field(default_factory=dict)
    #: What the user should know, whole sentences.
    warnings: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units of all nodes."""
        return tuple(unit for placed in self.nodes.values() for unit in placed)

    @property
    def groups(self) -> tuple[int, ...]:
        """The IOMMU groups of all nodes, in order."""
        return tuple(sorted(group for unit in self.units for group in unit.groups))

    def devices(self, node: str) -> tuple[PciDevice, ...]:
        """Return all that this node gets, audio functions and the like among them."""
        return tuple(item for unit in self.nodes.get(node, ()) for item in unit.devices)


def choose(
    host: Host,
    request: Request,
    gpu_nodes: Sequence[str],
    holders: Mapping[int, Holder] | None = None,
    *,
    guests: Mapping[Bdf, str] | None = None,
    leases_end: bool = False,
) -> Placement:
    """Return which devices each node gets; the same answer for the same host and leases.

    ``guests`` and ``leases_end`` are those of `candidates.Rules`. Raises UsageProblem, saying what
    was asked for, what there is and why each of the others is refused.
    """
    if not request:
        return Placement(dict.fromkeys(gpu_nodes, ()))
    if not gpu_nodes:
        raise UsageProblem(
            f"GPUs are asked for ('{request.text}') and the cluster has no GPU node.",
            hint="leave --deepops-gpu out, or name a node of the cluster with 'gpu' in it",
        )
    rules = Rules(host, holders, guests, leases_end=leases_end)
    chooser = _Chooser(host, request, tuple(gpu_nodes), rules)
    placed = chooser.named() if request.bdfs else chooser.counted()
    return chooser.with_switches(dict(zip(gpu_nodes, placed, strict=True)))


def named_units(host: Host, bdfs: Sequence[Bdf], found: Sequence[Unit]) -> list[Unit]:
    """Return those of the found units that these addresses name, in the order they are named.

    Raises UsageProblem for an address without device, for one that is not wanted by itself, and
    when a unit is named only in part.
    """
    named: list[Unit] = []
    for bdf in bdfs:
        unit = _unit_of(host, bdf, found)
        if unit not in named:
            named.append(unit)
    for unit in named:
        missing = [str(item.bdf) for item in unit.wanted if item.bdf not in bdfs]
        if missing:
            raise UsageProblem(
                f"IOMMU group {', '.join(map(str, unit.groups))} is handed through whole or not "
                f"at all: it also holds {', '.join(missing)}.",
                hint=f"name all of {unit}",
            )
    return named


def _unit_of(host: Host, bdf: Bdf, found: Sequence[Unit]) -> Unit:
    device = host.get(bdf)
    for unit in found:
        if device in unit.wanted:
            return unit
    for unit in found:
        if device in unit.devices:
            raise UsageProblem(
                f"'{bdf}' is no GPU but a function of '{unit}' ({device.class_name}), which "
                "brings it along.",
                hint=f"name '{unit}'",
            )
    raise UsageProblem(
        f"'{bdf}' is no GPU but '{host.name(device)}' ({device.id}).",
        hint=f"if that is meant, ask for its ID: --deepops-gpu {device.id}, or gpu bind --device "
        f"{device.id} {bdf}",
    )


class _Chooser:
    """One choice: the steps of `choose` and what they all need."""

    def __init__(self, host: Host, request: Request, nodes: tuple[str, ...], rules: Rules) -> None:
        self.host, self.request, self.nodes, self.rules = host, request, nodes, rules
        self.units = units(host, request.extra_ids)
        self.switches = tuple(unit for unit in self.units if unit.is_nvswitch)

    # -- by number --------------------------------------------------------------------------

    def counted(self) -> list[tuple[Unit, ...]]:
        """Deal so many units to the nodes: those of one node near one another, nodes apart."""
        pool = [unit for unit in self.units if self._may_serve(unit)]
        refusals = {unit: self.rules.refusal(unit) for unit in pool}
        free = [unit for unit in pool if not refusals[unit]]
        if self.request.kind == "auto":
            shares = [1] * len(self.nodes)
        else:
            shares = list(map(len, _dealt(range(self.request.count), len(self.nodes))))
        placed: list[tuple[Unit, ...]] = []
        for share in shares:
            taken = _nearby(free, share, self._size)
            if taken is None:
                raise self._not_enough(sum(shares), pool, refusals)
            free = [unit for unit in free if unit not in taken]
            placed.append(taken)
        return placed

    def _may_serve(self, unit: Unit) -> bool:
        """Return whether a unit is one of those that were asked for by number."""
        if self.request.device:
            return self._size(unit) > 0
        nvidia = any(gpu.vendor == NVIDIA for gpu in unit.gpus)
        return nvidia and not unit.is_virtual and not unit.is_nvswitch

    def _size(self, unit: Unit) -> int:
        """Return how many of what was asked for are in a unit; for 'auto' any unit is one."""
        have = [item for item in unit.wanted if self.request.device in ("", item.id)]
        return min(len(have), 1) if self.request.kind == "auto" else len(have)

    def _not_enough(
        self, needed: int, pool: Sequence[Unit], refusals: Mapping[Unit, str]
    ) -> UsageProblem:
        what = f"device{_s(needed)} '{self.request.device}'" if self.request.device else "GPU"
        what += _s(needed) if not self.request.device else ""
        free = sum(self._size(unit) for unit in pool if not refusals[unit])
        there = sum(map(self._size, pool))
        whom = ", ".join(f"'{node}'" for node in self.nodes)
        had = "there is none on this host" if not there else f"{free} of {there} can be had"
        if free >= needed:
            had += ", in IOMMU groups that cannot be divided so"
        return UsageProblem(
            f"{needed} {what} {'is' if needed == 1 else 'are'} needed for {whom} and {had}.",
            detail="\n".join(refusals[unit] for unit in pool if refusals[unit]),
            hint=self.host.reading("gpu list"),
        )

    # -- by address -------------------------------------------------------------------------

    def named(self) -> list[tuple[Unit, ...]]:
        """Deal the units of the named addresses to the nodes, in the order they were named."""
        found = named_units(self.host, self._for_these_nodes(), self.units)
        for unit in found:
            self._refuse(unit)
        return _dealt([unit for unit in found if not unit.is_nvswitch], len(self.nodes))

    def _for_these_nodes(self) -> tuple[Bdf, ...]:
        """Return the addresses that count: GPUDATA has one for each node, and one too many may be
        there."""
        bdfs, nodes = self.request.bdfs, self.nodes
        if self.request.kind == "gpudata":
            if len(bdfs) < len(nodes):
                raise UsageProblem(
                    f"GPUDATA '{self.request.text}' names {len(bdfs)} GPU and the cluster has "
                    f"{len(nodes)} GPU nodes.",
                    hint="name one for each node, as in GPUDATA=3-0x86,2-0x85",
                )
            return bdfs[: len(nodes)]
        return bdfs

    def _refuse(self, unit: Unit) -> None:
        reason = self.rules.refusal(unit)
        if reason:
            raise UsageProblem(
                f"'{unit}' cannot be handed through. {reason}",
                hint=self.host.reading("gpu list"),
            )

    # -- NVSwitches -------------------------------------------------------------------------

    def with_switches(self, placed: dict[str, tuple[Unit, ...]]) -> Placement:
        """Add the NVSwitches where they may go, or say that they stay behind."""
        if not self.switches:
            return Placement(placed, self._unused())
        every = {
            gpu.bdf
            for unit in self.units
            for gpu in unit.gpus
            if gpu.vendor == NVIDIA and not gpu.physfn
        }
        for node, taken in placed.items():
            if every and every <= {gpu.bdf for unit in taken for gpu in unit.gpus}:
                for unit in self.switches:
                    self._refuse(unit)
                others = [unit for unit in self.switches if unit not in taken]
                return Placement({**placed, node: (*taken, *others)}, self._unused())
        self._refuse_switch_alone(len(every))
        return Placement(placed, self._unused() + self._left_behind(placed, len(every)))

    def _refuse_switch_alone(self, gpus: int) -> None:
        ids = {item.id for unit in self.switches for item in unit.wanted}
        bdfs = {item.bdf for unit in self.switches for item in unit.wanted}
        if self.request.device in ids or bdfs & set(self.request.bdfs):
            raise UsageProblem(
                f"NVSwitches go to one node, together with all {gpus} GPUs of this host, and that "
                f"is not what '{self.request.text}' asks for.",
                hint=f"ask for {gpus} GPUs in a cluster with one GPU node; the switches follow",
            )

    def _left_behind(self, placed: Mapping[str, tuple[Unit, ...]], every: int) -> tuple[str, ...]:
        return tuple(
            f"'{node}' gets {sum(len(unit.gpus) for unit in taken)} of the {every} GPUs of this "
            "host, so the NVSwitches stay behind and NVLink does not work in it."
            for node, taken in placed.items()
            if any(unit.gpus for unit in taken)
        )

    def _unused(self) -> tuple[str, ...]:
        if self.request.kind != "gpudata" or len(self.request.bdfs) <= len(self.nodes):
            return ()
        return (f"GPUDATA names '{self.request.bdfs[-1]}' too, and there is no GPU node for it.",)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _dealt(items: Iterable[_T], nodes: int) -> list[tuple[_T, ...]]:
    """Cut a sequence into one piece a node, the first ones longer by one where it must be."""
    rest = list(items)
    pieces = []
    for left in range(nodes, 0, -1):
        size = -(-len(rest) // left)
        pieces.append(tuple(rest[:size]))
        rest = rest[size:]
    return pieces


def _nearby(
    free: Sequence[Unit], share: int, size: Callable[[Unit], int]
) -> tuple[Unit, ...] | None:
    """Return units that make up a share, from one NUMA node if one has enough; None if none do.

    The NUMA node with most left is used first, so that several guests come apart; devices that are
    on vfio-pci already come before the others.
    """
    nodes: dict[int, list[Unit]] = {}
    for unit in free:
        nodes.setdefault(-1 if unit.numa_node is None else unit.numa_node, []).append(unit)
    by_room = sorted(nodes, key=lambda node: (-sum(map(size, nodes[node])), node))
    for node in by_room:
        taken = _exactly(nodes[node], share, size)
        if taken is not None:
            return taken
    return _exactly([unit for node in by_room for unit in nodes[node]], share, size)


def _exactly(
    pool: Sequence[Unit], share: int, size: Callable[[Unit], int]
) -> tuple[Unit, ...] | None:
    def key(unit: Unit) -> tuple[int, bool]:
        return -size(unit), any(item.driver != VFIO for item in unit.wanted)

    taken: list[Unit] = []
    for unit in sorted(pool, key=key):
        if size(unit) <= share:
            taken.append(unit)
            share -= size(unit)
    return tuple(sorted(taken, key=lambda unit: unit.bdfs)) if share == 0 else None
