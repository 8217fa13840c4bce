"""What a run says beside the outcome of its checks: lines for the terminal, a table for the page.

Whoever has something to remark makes a ``Remark``; terminal and page show all of them alike. A
remark never decides how a run ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deepops_fixtures import upgrade
from deepops_fixtures.deepops.impact import Impact
from deepops_fixtures.deepops.selection import Selection
from deepops_fixtures.deepops.validators import Opinion
from deepops_fixtures.deploy import timing
from deepops_fixtures.live import duration

#: How many tasks the terminal is told of; the page has them all.
_TASKS = 5


@dataclass(frozen=True)
class Remark:
    """A heading, lines for the terminal (``True``: worth a look), and a table for the page."""

    title: str
    lines: list[tuple[str, bool]]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    head: tuple[str, ...] = ()

    @property
    def notable(self) -> bool:
        """Whether any line is worth a look: the page unfolds it then."""
        return any(notable for _, notable in self.lines)


def of_timing(comparisons: list[timing.Comparison]) -> list[Remark]:
    """Return what deployments say of their tasks' times, nothing where there is nothing to compare
    with."""
    alike = [item for item in comparisons if not any(item.lists.values())]
    told = [item for item in comparisons if item not in alike]
    remarks = []
    if len(alike) > 1:
        runs = ", ".join(dict.fromkeys(item.base for item in alike))
        line = f"tasks: {len(alike)} playbooks in which no task differs much from run {runs}."
        rows: list[tuple[str, ...]] = [
            (item.playbook, duration(item.base_seconds), duration(item.seconds)) for item in alike
        ]
        head = ("playbook", f"run {runs}", "this run")
        remarks.append(
            Remark("Playbooks that took as long as before", [(line, False)], rows, head)
        )
    for item in comparisons if len(alike) == 1 else told:
        lines = [(f"tasks: {item.verdict}", False)]
        lines += [(f"  slower: {task}", True) for task in item.slower[:_TASKS]]
        if len(item.slower) > _TASKS:
            more = len(item.slower) - _TASKS
            lines.append((f"  … and {more} more: deepops-virtual timing {item.run}", True))
        rows = [
            (word, _seconds(task.before), _seconds(task.after), task.task, task.where)
            for word, tasks in item.lists.items()
            for task in tasks
        ]
        columns = ("", f"run {item.base}", "this run", "task", "file")
        remarks.append(Remark(f"Tasks of {item.playbook}, compared", lines, rows, columns))
    return remarks


def of_validators(opinions: Sequence[Opinion], differences: Sequence[str]) -> list[Remark]:
    """Return what DeepOps' own validators said, and where they and our checks disagree."""
    if not opinions:
        return []
    lines = [(f"validator: {opinion}", opinion.verdict == "complains") for opinion in opinions]
    lines += [(f"  disagreement: {text}", True) for text in differences]
    rows: list[tuple[str, ...]] = [
        (item.verdict, item.script, item.where, item.why or "\n".join(item.failures))
        for item in opinions
    ]
    return [Remark("DeepOps' own validators", lines, rows, ("verdict", "script", "on", "said"))]


def of_upgrade(before: str, after: str, found: upgrade.Comparison) -> list[Remark]:
    """Return how the checks ended before and after an upgrade, from and to what."""
    lines = [(f"upgrade: {found.verdict}", bool(found.broken))]
    told: tuple[tuple[upgrade.Phase, str], ...] = (("before", before), ("after", after))
    for phase, what in told:
        ended = found.counts[phase].items()
        counts = ", ".join(f"{count} {word}" for word, count in ended if count)
        lines.append((f"  {phase}, {what}: {counts or 'nothing was checked'}", False))
    lines += [
        (f"  broken by the upgrade: {name.rpartition('::')[2]}", True) for name in found.broken
    ]
    rows: list[tuple[str, ...]] = [
        (word, name)
        for word, names in (
            ("broken by the upgrade", found.broken),
            ("failed before and after", found.both),
            ("mended by the upgrade", found.mended),
        )
        for name in names
    ]
    return [Remark("Upgrade", lines, rows)]


def of_change(impact: Impact, chosen: Selection, left_out: Mapping[str, int]) -> list[Remark]:
    """Return what a change reaches, which checks belong to it, and what was left out for it."""
    lines = [(f"changed since {impact.ref}: {chosen.told}", False)]
    if left_out:
        kinds = ", ".join(f"{count} of {what}" for what, count in sorted(left_out.items()))
        lines.append((f"  left out, since the change does not reach them: {kinds}", True))
    if impact.unreached:
        count = len(impact.unreached)
        files = f"{count} changed file{'' if count == 1 else 's'}"
        names = ", ".join(item.path for item in impact.unreached[:_TASKS])
        lines.append((f"  no playbook reaches {files}: {names}{', …' * (count > _TASKS)}", False))
    rows: list[tuple[str, ...]] = [(item.path, item.told, item.state) for item in impact.files]
    return [Remark("What the branch changed", lines, rows, ("file", "reaches", ""))]


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
