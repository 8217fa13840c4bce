"""What a run is about, read from its settings: the cluster, its parts, the playbooks, the run's
folder.

A run that asks for no cluster goes no further than this, so nothing heavy is imported here. Not
for bringing anything about: that is ``rehearsal``.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deepops_fixtures import parts as choice
from deepops_fixtures import upgrade
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


def deployed(settings: Settings) -> choice.Parts:
    """Return the parts that are on the cluster that the run is attached to."""
    if not settings.attach:
        return ()
    from deepops_fixtures.cluster.ledger import LedgerBook

    return choice.ordered(LedgerBook(settings.state_dir).get(settings.attach).parts)


def parts_of(
    settings: Settings, spec: ClusterSpec | None, named: Collection[str] = ()
) -> choice.Parts:
    """Return the parts that the run is about, given those that its tests name; none for existing
    hosts, which are checked as they are. Raises UsageProblem."""
    if spec is None:
        return ()
    return choice.of_run(
        spec.name,
        spec.deployment,
        asked=settings.chosen_parts,
        deployed=deployed(settings),
        named=named,
    )


class Chosen:
    """The parts of DeepOps that one run is about, and what follows: playbooks, groups to hide.

    Its processes settle them when they know the tests; one that knows none (the controller of
    xdist) reads in the run's folder what the others knew. Until then it is all that the cluster
    carries.
    """

    def __init__(self, settings: Settings, spec: ClusterSpec | None, run_dir: Path) -> None:
        self._settings = settings
        self._spec = spec
        self._file = run_dir / "parts.json"
        self._settled: choice.Parts | None = None

    def settle(self, named: Collection[str]) -> None:
        """Learn which parts the tests name. Raises UsageProblem."""
        self._settled = parts_of(self._settings, self._spec, named)

    def take_all(self) -> None:
        """Take what was asked for, else all that the cluster carries, whatever is on it by now.
        Raises UsageProblem."""
        if self._spec is not None:
            asked = self._settings.chosen_parts
            self._settled = choice.of_run(self._spec.name, self._spec.deployment, asked=asked)

    def tell(self) -> None:
        """Let the processes that know no tests know the parts."""
        self._file.write_text(json.dumps(self.parts))

    @property
    def known(self) -> bool:
        """Whether the tests had their say."""
        return self._settled is not None or self._file.exists()

    @property
    def parts(self) -> choice.Parts:
        """The parts, in the order of their deployment; none for existing hosts. Raises
        UsageProblem."""
        if self._settled is not None:
            return self._settled
        with suppress(OSError, ValueError):
            return tuple(json.loads(self._file.read_text()))
        return parts_of(self._settings, self._spec)

    @property
    def hidden_groups(self) -> frozenset[str]:
        """Groups whose nodes the tests do not get to see as such: nothing of theirs is deployed in
        this run."""
        if self._spec is None or self._settings.source == "none":
            return frozenset()
        return choice.hidden_groups(self.parts, self._spec.deployment)

    def sources(self) -> tuple[PlaybookSource, ...]:
        """Return the playbooks of the parts in the order of their deployment, none when the hosts
        are checked as they are. Raises UsageProblem."""
        return self._find(self.parts)

    def upgrade(self) -> tuple[PlaybookSource, ...]:
        """Return the playbooks that are applied on top in a run that upgrades, none in another.
        Raises UsageProblem."""
        return self._find(self.parts, self._settings) if self._settings.upgrade_from else ()

    def sources_of(self, some: choice.Parts) -> list[PlaybookSource]:
        """Return the playbooks of some parts. Raises UsageProblem."""
        # Each is told of those before it: all of the run's have to be looked for.
        found = self._find(choice.ordered([*self.parts, *some]))
        return [source for source in found if source.part in some]

    def _find(
        self, some: choice.Parts, settings: Settings | None = None
    ) -> tuple[PlaybookSource, ...]:
        if self._spec is None:
            # Existing hosts are never changed: DeepOps was applied to them by somebody else.
            return ()
        from deepops_fixtures.deploy import sources

        settings = settings or upgrade.before(self._settings)
        return sources.find(settings.source, some, deployed(self._settings))


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
