"""What a run says beside the outcome of its checks: lines for the terminal, a table for the page.

Whoever has something to remark makes a ``Remark``; terminal and page show all of them alike. A
remark never decides how a run ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deepops_fixtures.deepops.validators import Opinion
from deepops_fixtures.deploy.timing import Comparison
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


def of_timing(comparisons: list[Comparison]) -> list[Remark]:
    """Return what deployments say of their tasks' times, nothing where there is nothing to compare
    with."""
    remarks = []
    for item in comparisons:
        lines = [(f"tasks: {item.verdict}", False)]
        lines += [(f"  slower: {task}", True) for task in item.slower[:_TASKS]]
        if len(item.slower) > _TASKS:
            more = len(item.slower) - _TASKS
            lines.append((f"  … and {more} more: deepops-virtual timing {item.run}", True))
        rows: list[tuple[str, ...]] = [
            (word, _seconds(task.before), _seconds(task.after), task.task, task.where)
            for word, tasks in item.lists.items()
            for task in tasks
        ]
        head = ("", f"run {item.base}", "this run", "task", "file")
        remarks.append(Remark(f"Tasks of {item.playbook}, compared", lines, rows, head))
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


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
