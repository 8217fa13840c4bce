"""Gathers what a run has to say beside the outcome of its checks, while its nodes still live.

Not for how it looks (``report.remarks``); none of it changes how the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deepops_fixtures import changed, upgrade
from deepops_fixtures.session import Session

if TYPE_CHECKING:
    from deepops_fixtures.report.remarks import Remark


def gather(ours: Session) -> list[Remark]:
    """Return the remarks of this run, in the order in which they are shown. One that cannot be had
    says so."""
    from deepops_fixtures.report.remarks import Remark

    sources: dict[str, Callable[[Session], list[Remark]]] = {
        "What the branch changed": _change,
        "Upgrade": _upgrade,
        "Tasks, compared": _timing,
    }
    found: list[Remark] = []
    for title, source in sources.items():
        try:
            found += source(ours)
        except Exception as error:
            found.append(Remark(title, [(f"{title}: cannot be told: {error}", True)]))
    return found


def _change(ours: Session) -> list[Remark]:
    from deepops_fixtures.report import remarks

    if ours.change is None:
        return []
    return remarks.of_change(ours.change.impact, ours.change.selection, changed.left_out(ours))


def _upgrade(ours: Session) -> list[Remark]:
    from deepops_fixtures.deploy.sources import told
    from deepops_fixtures.report import remarks

    if not ours.settings.upgrade_from:
        return []
    first, then = told(ours.sources), told(ours.rehearsal.chosen.upgrade())
    return remarks.of_upgrade(first, then, upgrade.compare(ours.outcomes))


def _timing(ours: Session) -> list[Remark]:
    from deepops_fixtures.deploy import timing
    from deepops_fixtures.report import remarks

    return remarks.of_timing(timing.against_earlier(ours.run_dir))
