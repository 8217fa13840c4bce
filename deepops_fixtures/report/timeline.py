"""The run's phases as a chart: which step, role or check took how long, read from the journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from deepops_fixtures.journal import Event
from deepops_fixtures.live import duration
from deepops_fixtures.records import CheckOutcome

#: Reading order of the lanes, and the name a person reads.
PHASES = {
    "box": "Box",
    "up": "Up",
    "deploy": "Deploy",
    "checkpoint": "Checkpoint",
    "checks": "Checks",
    "revert": "Revert",
    "down": "Down",
    "audit": "Audit",
}


#: Phases that come in pieces between the others: their pieces are added up.
_PIECES = ("Checkpoint", "Revert")

#: Phases whose time a check that waits for them is not charged with.
_BEFORE = ("box", "up", "deploy", "checkpoint", "revert")


@dataclass(frozen=True)
class Segment:
    """One bar: lane, label, begin and length in seconds from the run's beginning, and how it
    ended."""

    lane: str
    label: str
    begin: float
    seconds: float
    status: str = "ok"


@dataclass(frozen=True)
class Timeline:
    """All bars of a run. ``total`` is seconds; ``lanes`` in reading order."""

    segments: tuple[Segment, ...]
    total: float

    @property
    def lanes(self) -> list[str]:
        """Lanes that have a bar, in reading order."""
        found = {segment.lane for segment in self.segments}
        order = {name: place for place, name in enumerate(PHASES.values())}
        return sorted(found, key=lambda lane: (order.get(lane.split(" ", 1)[0], 99), lane))

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase: from its first bar's begin to its last one's end."""
        spans: dict[str, tuple[float, float]] = {}
        for item in self.segments:
            phase = item.lane.split(" ", 1)[0]
            begin, end = spans.get(phase, (item.begin, 0.0))
            spans[phase] = (min(begin, item.begin), max(end, item.begin + item.seconds))
        found = {
            name: spans[name][1] - spans[name][0] for name in PHASES.values() if name in spans
        }
        for name in _PIECES:
            if name in found:
                found[name] = sum(item.seconds for item in self.segments if item.lane == name)
        return {name: round(seconds, 1) for name, seconds in found.items()}


def build(events: Sequence[Event], checks: Iterable[CheckOutcome]) -> Timeline:
    """Return the timeline of a run from its journal and its checks."""
    checks = own_time(checks, events)
    moments = [event.time - (event.seconds or 0) for event in events] + [
        item.begin for item in checks
    ]
    if not moments:
        return Timeline((), 0.0)
    zero = min(moments)
    segments = [*_steps(events, zero), *_milestones(events, zero), *_roles(events, zero)]
    for item in checks:
        lane = f"Checks {item.worker}".strip()
        segments.append(Segment(lane, item.name, item.begin - zero, item.seconds, item.outcome))
    total = max((item.begin + item.seconds for item in segments), default=0.0)
    return Timeline(tuple(segments), total)


def own_time(checks: Iterable[CheckOutcome], events: Sequence[Event]) -> list[CheckOutcome]:
    """Return the checks without the time that those which met no cluster yet waited for it."""
    ends = [e.time for e in events if e.kind == "end" and e.phase in _BEFORE]
    found = []
    for item in checks:
        last = item.begin + item.seconds
        begin = max((end for end in ends if item.begin < end < last), default=item.begin)
        found.append(replace(item, begin=begin, seconds=round(last - begin, 3)))
    return found


def _steps(events: Sequence[Event], zero: float) -> list[Segment]:
    """Return a bar for every step that ended, apart from steps inside which finer bars are
    drawn."""
    return [
        Segment(
            PHASES[event.phase],
            event.what,
            event.time - (event.seconds or 0) - zero,
            event.seconds or 0,
            event.status,
        )
        for event in events
        if event.kind == "end"
        and event.phase in PHASES
        and event.phase not in ("deploy", "checks")
    ]


def _milestones(events: Sequence[Event], zero: float) -> list[Segment]:
    """Return a bar a node from its start to each milestone of its boot."""
    begins = [
        e.time for e in events if e.kind == "begin" and e.phase == "up" and "starting" in e.what
    ]
    if not begins:
        return []
    found: list[Segment] = []
    last: dict[str, float] = {}
    for event in events:
        if event.kind == "note" and event.phase == "up" and event.node:
            begin = last.get(event.node, begins[0])
            found.append(
                Segment(
                    f"Up {event.node}",
                    event.what,
                    begin - zero,
                    max(0.0, event.time - begin),
                    event.status or "ok",
                )
            )
            last[event.node] = event.time
    return found


def _roles(events: Sequence[Event], zero: float) -> list[Segment]:
    """Return a bar for each run of tasks of one role."""
    found: list[Segment] = []
    for event in events:
        if event.kind != "note" or event.phase != "deploy":
            continue
        begin = event.time - (event.seconds or 0) - zero
        bad = event.status in ("failed", "unreachable")
        previous = found[-1] if found else None
        if previous and previous.label == event.detail and previous.status == "ok":
            length = event.time - zero - previous.begin
            found[-1] = Segment(
                "Deploy", event.detail, previous.begin, length, "failed" if bad else "ok"
            )
        else:
            found.append(
                Segment(
                    "Deploy", event.detail, begin, event.seconds or 0, "failed" if bad else "ok"
                )
            )
    return found


def roles(events: Sequence[Event]) -> dict[str, float]:
    """Return the seconds that each role (or play, outside roles) took, the longest first."""
    sums: dict[str, float] = {}
    for event in events:
        if event.kind == "note" and event.phase == "deploy":
            sums[event.detail] = sums.get(event.detail, 0.0) + (event.seconds or 0.0)
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


# -- drawing ------------------------------------------------------------------------------

_WIDTH, _LEFT, _ROW, _TOP = 1000, 150, 26, 24
_FAILED = {"failed", "error", "interrupted", "unreachable"}


def _tick_text(seconds: float) -> str:
    return duration(seconds).removesuffix(" 00 s").removesuffix(" 00 min") if seconds else "0"


def _tick(total: float) -> float:
    return next(
        (step for step in (5, 10, 30, 60, 120, 300, 600, 1800) if total / step <= 10), 3600
    )


def layout(timeline: Timeline) -> dict[str, object]:
    """Return what the chart's template draws: sizes, ticks, lanes and bars in the drawing's own
    units."""
    total = max(timeline.total, 1.0)
    scale = (_WIDTH - _LEFT - 10) / total
    lanes = timeline.lanes
    step = _tick(total)
    ticks = [
        {"x": round(_LEFT + scale * step * i, 1), "text": _tick_text(step * i)}
        for i in range(int(total // step) + 1)
    ]
    bars = []
    for index, item in enumerate(timeline.segments):
        width = max(1.0, item.seconds * scale)
        bars.append(
            {
                "x": round(_LEFT + item.begin * scale, 1),
                "y": _TOP + lanes.index(item.lane) * _ROW + 4,
                "width": round(width, 1),
                "height": _ROW - 8,
                "kind": _kind(item, index),
                "label": item.label if width > 7 * len(item.label) + 8 else "",
                "title": f"{item.label}: {duration(item.seconds)} ({item.status})",
            }
        )
    rows = [{"y": _TOP + i * _ROW, "text": lane} for i, lane in enumerate(lanes)]
    return {
        "width": _WIDTH,
        "left": _LEFT,
        "row": _ROW,
        "top": _TOP,
        "ticks": ticks,
        "bars": bars,
        "rows": rows,
        "height": _TOP + len(lanes) * _ROW + 6,
    }


def _kind(item: Segment, index: int) -> str:
    if item.status in _FAILED:
        return "bad"
    if item.status == "skipped":
        return "skip"
    return "even" if index % 2 else "odd"
