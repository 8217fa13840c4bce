"""Where the nodes of a cluster come from: one module a provider, all of one shape."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from deepops_fixtures.cluster.running import RunningCluster


class Provider(Protocol):
    """Brings nodes up and takes them down again."""

    #: False where nodes are only borrowed: nothing is created, nothing destroyed.
    disposable: bool

    def preflight(self) -> None:
        """Refuse what cannot work, before anything is created. Raises UsageProblem."""

    def up(self) -> RunningCluster:
        """Bring the nodes up and wait until they answer. Raises ProvisionError, StepTimeout,
        BoxError."""

    def down(self) -> None:
        """Remove everything this provider created, then audit. Raises LeakError."""

    def evidence(self) -> list[Path]:
        """Return the files that say most about a failure, best first."""
