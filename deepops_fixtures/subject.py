"""What a run is about, read from its settings alone: the cluster, the playbook, the run's folder.

A run that asks for no cluster goes no further than this, so nothing heavy is imported here. Not
for bringing anything about: that is ``rehearsal``.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deepops_fixtures.settings import Settings

if TYPE_CHECKING:
    from deepops_fixtures.cluster.topology import ClusterSpec
    from deepops_fixtures.deploy.sources import PlaybookSource


def cluster(settings: Settings) -> ClusterSpec | None:
    """Return the cluster to rehearse on, or None for existing hosts. Raises UsageProblem."""
    if settings.inventory:
        return None
    if settings.attach:
        from deepops_fixtures.cluster.ledger import LedgerBook

        return LedgerBook(settings.state_dir).get(settings.attach).spec
    from deepops_fixtures.cluster import topology

    return topology.load(settings.cluster)


def source(settings: Settings, spec: ClusterSpec | None) -> PlaybookSource | None:
    """Return the playbook to deploy, or None when the hosts are checked as they are.

    Raises UsageProblem.
    """
    if spec is None:
        # Existing hosts are never changed: DeepOps was applied to them by somebody else.
        return None
    from deepops_fixtures.deploy import sources

    return sources.find(settings.source, spec.deployment)


def new_run_dir(settings: Settings, label: str = "") -> Path:
    """Return the path of this run's folder below the reports folder; nothing is made yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = label or (
        settings.inventory.stem if settings.inventory else Path(settings.cluster).stem
    )
    base = settings.reports / f"{stamp}-{settings.attach or name}"
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path
