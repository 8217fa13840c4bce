"""Gathers what a run has to say beside the outcome of its checks, while its nodes still live.

Not for how it looks (``report.remarks``); none of it changes how the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deepops_fixtures import changed, reporting, upgrade
from deepops_fixtures.session import Session

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import RunningCluster
    from deepops_fixtures.deepops import validators
    from deepops_fixtures.deploy.sources import PlaybookSource
    from deepops_fixtures.report.remarks import Remark


def gather(ours: Session) -> list[Remark]:
    """Return the remarks of this run, in the order in which they are shown. One that cannot be had
    says so."""
    from deepops_fixtures.report.remarks import Remark

    sources: dict[str, Callable[[Session], list[Remark]]] = {
        "What the branch changed": _change,
        "Upgrade": _upgrade,
        "DeepOps' own validators": _validators,
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


def _validators(ours: Session) -> list[Remark]:
    """Ask the validators of the checkout that was deployed, where any check ran."""
    from deepops_fixtures.deepops import validators
    from deepops_fixtures.report import remarks

    nodes, rehearsal = reporting.running_nodes(ours), ours.rehearsal
    last = rehearsal.chosen.upgrade() or ours.sources
    ran = any(item.outcome != "skipped" for item in ours.outcomes)
    there = rehearsal.stages.outcome("deployed") or rehearsal.attached
    if nodes is None or not ran or not there or not any(source.driving for source in last):
        return []
    scope = rehearsal.chosen.scope_then
    parts = [source.part for source in last if scope.has(source.part)]
    with rehearsal.journal.step("report", "asking DeepOps' own validators"):
        here = _provisioner(ours, nodes.cluster, last[0])
        opinions = validators.ask(here, nodes, parts, ours.run_dir / "validators")
    deployed = rehearsal.stages.failure() is None
    found = (validators.disagreement(o, ours.outcomes, deployed=deployed) for o in opinions)
    return remarks.of_validators(opinions, [text for text in found if text])


def _provisioner(
    ours: Session, running: RunningCluster, source: PlaybookSource
) -> validators.Provisioner:
    """Return the run's copy of the checkout, as its playbooks were run."""
    from deepops_fixtures.deepops.validators import Provisioner
    from deepops_fixtures.deploy.calls import calls_of

    scratch = ours.rehearsal.book.get(running.name).socket_dir / "ansible"
    call = calls_of(source, running, ours.run_dir, scratch)[0]
    assert call.folder
    # The cache of facts that the checkout's ansible.cfg names is its user's.
    environment = {**call.environment, "ANSIBLE_CACHE_PLUGIN": "memory"}
    return Provisioner(call.folder, call.inventory, environment)
