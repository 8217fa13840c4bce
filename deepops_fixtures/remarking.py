"""Gathers what a run has to say beside the outcome of its checks, while its nodes still live.

Not for how it looks (``report.remarks``); none of it changes how the run ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepops_fixtures import upgrade
from deepops_fixtures.session import Session

if TYPE_CHECKING:
    from deepops_fixtures.report.remarks import Remark


def gather(ours: Session) -> list[Remark]:
    """Return the remarks of this run, in the order in which they are shown."""
    from deepops_fixtures.deploy import timing
    from deepops_fixtures.deploy.sources import told
    from deepops_fixtures.report import remarks

    found = remarks.of_timing(timing.against_earlier(ours.run_dir))
    if ours.settings.upgrade_from:
        first = told(ours.sources), told(ours.rehearsal.chosen.upgrade())
        found += remarks.of_upgrade(*first, upgrade.compare(ours.outcomes))
    return found
