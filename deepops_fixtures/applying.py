"""Putting parts of DeepOps on a running cluster, one after the other; its ledger says which are on
it.

Not for which parts those are (``parts``), nor for when, nor for what is kept of the cluster in
between: that is ``rehearsal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from deepops_fixtures.cluster.ledger import MARK, LedgerBook
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.deepops import readying
from deepops_fixtures.deepops.scope import complete
from deepops_fixtures.deploy import artifacts
from deepops_fixtures.deploy.artifacts import Artifact
from deepops_fixtures.deploy.runner import Deployment
from deepops_fixtures.deploy.sources import PlaybookSource, told
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.parts import Parts, ordered
from deepops_fixtures.settings import Settings

#: What was applied to the run's cluster, a line each; in the run's folder.
_HISTORY = "applied.txt"


def refuse_unprovided(box: str, sources: Sequence[PlaybookSource], airgap: bool) -> None:
    """Refuse playbooks for which this host has no way to bring along what they cannot do without.

    Raises UsageProblem. Called before anything is created.
    """
    foreign = [source.name for source in sources if source.name != "distro"]
    if airgap and foreign:
        # DeepOps, docs/airgap: it has variables for mirrors, and nothing that makes mirrors.
        raise UsageProblem(
            f"Source '{foreign[0]}' cannot be deployed with --deepops-airgap: DeepOps' own "
            "playbooks would need mirrors within the network of the distribution's packages, of "
            "those of Docker, NVIDIA (CUDA, container toolkit) and Kubernetes, of container "
            "images, Helm charts and the archives of Slurm, hwloc and PMIx.",
            hint="--deepops-source distro, for which this host brings along all there is; or "
            "leave --deepops-airgap out",
        )
    parts = [source.part for source in sources]
    provided = artifacts.needed(parts, airgap, box)
    if airgap and sources and artifacts.PACKAGES not in provided:
        raise UsageProblem(
            f"No store of packages can be made for box '{box}', so that nothing can be deployed "
            "to an airgapped cluster of it.",
            hint="choose a cluster whose box is 'debian12', or leave --deepops-airgap out",
        )
    unserved = [
        source
        for source in sources
        if not source.driving
        and source.part == "kubernetes"
        and artifacts.KUBERNETES not in artifacts.spared(source.extra_vars)
    ]
    if unserved and artifacts.KUBERNETES not in provided:
        raise UsageProblem(
            f"There are no Kubernetes binaries for box '{box}': this host builds those of box "
            "'debian12' alone.",
            hint="choose a cluster whose box is 'debian12', or --deepops-parts slurm",
        )


def history(settings: Settings, run_dir: Path) -> list[str]:
    """Return what was applied to the cluster of a run, in words, the latest last: by this run, or
    before it to the cluster that it is attached to."""
    with suppress(OSError):
        return (run_dir / _HISTORY).read_text().splitlines()
    with suppress(DeepopsError):
        if settings.attach:
            ledger = LedgerBook(settings.state_dir).get(settings.attach)
            unknown = [f"{part} (by what, is not noted)" for part in ledger.parts]
            return ledger.applied or unknown
    return []


class Applying:
    """Applies playbooks to clusters that have a ledger."""

    def __init__(
        self, settings: Settings, book: LedgerBook, run_dir: Path, journal: Journal
    ) -> None:
        self._settings = settings
        self._book = book
        self._run_dir = run_dir
        self._journal = journal

    def prepare(self, box: str, sources: Sequence[PlaybookSource], airgap: bool) -> dict[str, str]:
        """Make what these playbooks bring along from this host, unless it is cached.

        Returns the variables that tell them where it is. Done before the machines start: building
        the binaries of Kubernetes takes both minutes and processors. Raises ArtifactError.
        """
        found = {}
        parts = [source.part for source in sources if not source.driving]
        given = {name: value for each in sources for name, value in each.extra_vars.items()}
        spared = artifacts.spared(given)
        for name in artifacts.needed(parts, airgap, box):
            if name in spared:
                continue
            path = Artifact(name, self._settings.cache_dir).ensure(self._journal)
            found[artifacts.VARIABLES[name]] = str(path)
        return found

    def prepare_checkout(self, sources: Sequence[PlaybookSource]) -> None:
        """Have Ansible there, and what of Galaxy a checkout's playbooks need; refuse what cannot
        be had, before the machines start. Raises ArtifactError, UsageProblem."""
        for source in sources:
            if source.driving:
                source.driving.prepare(self._journal)

    def there(self, running: RunningCluster) -> Parts:
        """Return the parts that are on a cluster."""
        return ordered(self._book.get(running.name).parts)

    def apply(self, running: RunningCluster, source: PlaybookSource, *, over: str = "") -> None:
        """Put a part on the cluster, in an upgrade ``over`` that of another ref. Raises
        DeployError or StepTimeout; UsageProblem where this host cannot bring along what the part
        needs."""
        ledger = self._book.get(running.name)
        refuse_unprovided(ledger.spec.box, [source], ledger.airgap)
        there = self.there(running)
        onto = [f"{part} of {over}" if over else part for part in there]
        if source.driving:
            readying.ready(running, self._journal)
        self._deployment(running, source, onto).apply(self._settings.deploy_timeout)
        self.note_applied(running, source)
        self._note(running, [*there, source.part])

    def note_applied(
        self, running: RunningCluster, source: PlaybookSource, *, restored: bool = False
    ) -> None:
        """Note what was applied, and which pieces of a part are on the cluster, where it is not
        the whole part; ``restored`` by a checkpoint, of which nothing is known but what made it.
        """
        ledger = self._book.get(running.name)
        pieces = dict(ledger.pieces)
        before = pieces.pop(source.part, None)
        now = source.driving.scope.pieces if source.driving else None
        whole = source.part in ledger.parts and before is None and not restored
        if now is not None and not whole:
            pieces[source.part] = sorted(complete({*(before or ()), *now}))
        this = f"{told([source])}, content {source.revision}"
        applied = [*(text for text in ledger.applied if text != this), this]
        self._book.update(running.name, pieces=pieces, applied=applied)
        (self._run_dir / _HISTORY).write_text("\n".join(applied))

    def accept(self, running: RunningCluster, sources: Sequence[PlaybookSource]) -> None:
        """With ``--deepops-idempotence``, count parts as deployed only once their playbooks change
        nothing more. Raises DeployError naming the tasks that do, or StepTimeout."""
        if not self._settings.idempotence:
            return
        mine = [source.part for source in sources]
        others = [part for part in self.there(running) if part not in mine]
        self._note(running, others)
        for source in sources:
            again = self._deployment(running, source, [*others, *mine])
            again.assert_idempotent(self._settings.deploy_timeout)
        self._note(running, [*others, *mine])

    def _note(self, running: RunningCluster, parts: Sequence[str]) -> None:
        state = "deployed" if parts else "up"
        self._book.update(running.name, parts=list(ordered(parts)), state=state)

    def _deployment(
        self, running: RunningCluster, source: PlaybookSource, onto: Sequence[str]
    ) -> Deployment:
        marks = {MARK: running.name}
        ledger = self._book.get(running.name)
        scratch = ledger.socket_dir / "ansible"
        # Where they are on this host decides nothing about the cluster, so it is no input of it.
        self.prepare_checkout([source])
        brought = self.prepare(ledger.spec.box, [source], ledger.airgap)
        source = replace(source, extra_vars={**source.extra_vars, **brought})
        return Deployment(
            running,
            source,
            self._run_dir,
            self._journal,
            marks=marks,
            scratch=scratch,
            onto=onto,
        )
