"""One rehearsal: bring a cluster up, deploy to it, take it down, each at most once, whoever asks
first.

The plugin and the command line both drive this class, and so do the workers of an xdist run: what
one process did is in the run's folder, and the others wait under a file lock and read it. Not for
checks or reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from deepops_fixtures import doctor, subject, upgrade
from deepops_fixtures import parts as choice
from deepops_fixtures.applying import Applying, refuse_unprovided
from deepops_fixtures.baseline import Baseline
from deepops_fixtures.cluster import gpus
from deepops_fixtures.cluster.checkpoints import Manifest, Stage, Store
from deepops_fixtures.cluster.ledger import LedgerBook, Owner
from deepops_fixtures.cluster.providers import Provider, vagrant_folder
from deepops_fixtures.cluster.providers.inventory import InventoryProvider
from deepops_fixtures.cluster.providers.vagrant import VagrantProvider
from deepops_fixtures.cluster.running import (
    NodeData,
    RunningCluster,
    with_parent_groups,
    without_groups,
)
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.deploy.sources import PlaybookSource, inputs_of
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.journal import Journal
from deepops_fixtures.parts import Parts
from deepops_fixtures.reuse import Reuse
from deepops_fixtures.settings import Settings
from deepops_fixtures.stages import Stages


class Rehearsal:
    """The life of one cluster during one run. States: new, up, deployed, down; or broken, with the
    reason."""

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        *,
        owner: Owner | None = None,
        kept: bool = False,
    ) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.journal = Journal(run_dir / "events.jsonl")
        self.book = LedgerBook(settings.state_dir)
        self.stages = Stages(run_dir, self.journal)
        self.spec: ClusterSpec | None = None
        self.provider: Provider | None = None
        #: The process that takes the cluster down in the end: not a worker that brings it up.
        self.owner = owner or Owner.me()
        self.kept = kept
        #: How far any test of this run wants the cluster: what checkpoint is looked for.
        self.target: Literal["up", "deployed"] = "up"
        self._fit = False
        #: Whether any test of this run wants the cluster to be put back.
        self.goes_back = False
        self.store = Store(self.book)
        self._baseline = Baseline(self.store, self.stages, run_dir, self.journal)
        self._applying = Applying(settings, self.book, run_dir, self.journal)
        self._plan(kept)
        self.reuse = Reuse(
            settings,
            self.store,
            self.journal,
            run_dir,
            self.owner,
            self.spec.name if self.spec else "",
            self._inputs,
            self.provider.lending if isinstance(self.provider, VagrantProvider) else None,
        )

    def _plan(self, kept: bool) -> None:
        """Read what was asked for, so that what is wrong with it is known before anything
        starts."""
        upgrade.refuse(self.settings, workers=False)
        self.spec = subject.cluster(self.settings)
        #: The parts of DeepOps that this run is about.
        self.chosen = subject.Chosen(self.settings, self.spec, self.run_dir)
        if self.spec is None:
            self.provider = vagrant_folder.existing(self.settings, self.journal, self.run_dir)
        elif not self.attached:
            self.provider = VagrantProvider(
                self.spec, self.settings, self.journal, self.run_dir, owner=self.owner, kept=kept
            )
        self.sources()
        self.chosen.upgrade()

    # -- what is known before anything is up ------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether the cluster is somebody else's to destroy."""
        return bool(self.settings.attach)

    @property
    def disposable(self) -> bool:
        """Whether destructive checks may run."""
        return self.provider.disposable if self.provider else True

    def planned_nodes(self) -> list[NodeData]:
        """Return names and groups of the nodes, for parametrisation. Raises UsageProblem."""
        if isinstance(self.provider, InventoryProvider):
            return self.provider.nodes()
        assert self.spec is not None
        return [
            NodeData(name=name, groups=with_parent_groups(list(node.groups)))
            for name, node in self.spec.nodes.items()
        ]

    def sources(self) -> tuple[PlaybookSource, ...]:
        """Return the playbooks of this run's parts in the order of their deployment, none when the
        hosts are checked as they are. Raises UsageProblem."""
        return self.chosen.sources()

    def _wanted(self) -> Parts:
        return tuple(source.part for source in self.sources())

    def _inputs(self, parts: Parts) -> Inputs:
        """Return everything that this run's cluster with these parts on it is made from."""
        assert isinstance(self.provider, VagrantProvider)
        return {**self.provider.inputs(), **inputs_of(self.chosen.sources_of(parts))}

    def preflight(self) -> None:
        """Refuse what cannot work, before anything is created. Raises UsageProblem."""
        if self.target == "deployed":
            self.chosen.refuse_unfit()
            self.chosen.refuse_what_cannot_be_had()
        if self.attached:
            self._attached_cluster()
        elif not self.stages.outcome("up"):
            self._refuse_unfit()

    def _refuse_unfit(self) -> None:
        """Refuse what this process has not looked at yet. Raises UsageProblem."""
        if self.provider is None or self._fit:
            return
        if self.spec:
            refuse_unprovided(self.spec.box, self.sources(), self.settings.airgap)
            doctor.refuse_unready(doctor.preflight(self.settings, self.spec))
        self.provider.preflight()
        if isinstance(self.provider, VagrantProvider):
            self.reuse.refuse_without(self._reachable())
        self._fit = True

    def _reachable(self) -> Parts:
        return self._wanted() if self.target == "deployed" else ()

    # -- stages -----------------------------------------------------------------------------

    def ensure_up(self) -> RunningCluster:
        """Return the running cluster; the first caller of all processes brings it up.

        Raises the provider's error to the first caller and StageFailed to every later one.
        """
        if self.attached:
            return self._keep_description(self._attached_cluster())
        assert self.provider is not None
        self.stages.once("up", self._bring_up)
        return self._running()

    def _running(self) -> RunningCluster:
        return RunningCluster.model_validate_json((self.run_dir / "cluster.json").read_text())

    def ensure_deployed(self) -> RunningCluster:
        """Return the running cluster with this run's parts of DeepOps applied; the first caller of
        all processes applies those that are missing."""
        running = self.ensure_up()
        wanted = self._wanted()
        if not wanted:
            return running
        if self.attached and not choice.to_apply(wanted, self._applying.there(running)):
            return running
        self.stages.once("deployed", lambda: self._reach_deployment(running, wanted))
        return running

    def ensure_upgraded(self) -> RunningCluster:
        """Return the running cluster with the run's source applied on top of what was deployed
        first (``--deepops-upgrade-from``); the first caller applies it."""
        running = self.ensure_deployed()
        self.stages.once("upgraded", lambda: self._upgrade(running))
        return running

    def _upgrade(self, running: RunningCluster) -> None:
        self._baseline.forget()
        with suppress(FileNotFoundError):
            # The copy of the checkout that was deployed first.
            (self.run_dir / "deepops").rename(self.run_dir / "deepops-before")
        sources = self.chosen.upgrade()
        for source in sources:
            self._applying.apply(running, source, over=self.settings.upgrade_from)
        self._applying.accept(running, sources)

    def _accept(self, running: RunningCluster, sources: Sequence[PlaybookSource]) -> None:
        """See that a second application changes nothing, where that is asked for: in an upgrade
        of what it ends with."""
        if not self.settings.upgrade_from:
            self._applying.accept(running, sources)

    def ensure_baseline(self) -> Manifest:
        """Return the checkpoint that the cluster is put back to, taken now where there is none.

        Raises ProvisionError when none can be taken.
        """
        running = self.ensure_up()
        self.stages.once("baseline", lambda: self._find_baseline(running))
        return self._baseline.get()

    def _find_baseline(self, running: RunningCluster) -> None:
        if not self._baseline.known:
            self._take(running, "here", {})
        self._baseline.get()

    def remember_baseline(self) -> None:
        """See to it that the cluster can be put back to how it is now; that it cannot is said, and
        fails nothing yet."""
        if self.disposable:
            with suppress(DeepopsError):
                self.ensure_baseline()

    def go_back(self) -> None:
        """Put the cluster back to its baseline.

        Raises ProvisionError or StepTimeout; the cluster counts as broken then.
        """
        self.ensure_baseline()
        self._baseline.go_back(self.ensure_up())

    def deploy_again(self) -> None:
        """Apply the parts that were asked for, else all that the cluster carries, whether or not
        they were applied before (the command line's ``deploy``). Raises UsageProblem."""
        self.chosen.take_all()
        wanted = self._wanted()
        if not wanted:
            raise UsageProblem(
                "There is nothing to deploy: the cluster's deployment or the source is 'none'.",
                hint="choose a cluster with deployment 'slurm' and --source distro",
            )
        self.chosen.refuse_unfit()
        running = self.ensure_up()
        new = choice.to_apply(wanted, self._applying.there(running))
        sources = self.chosen.sources_of(choice.ordered([*wanted, *new]))
        for source in sources:
            self._applying.apply(running, source)
        self._applying.accept(running, sources)

    def _bring_up(self) -> None:
        assert self.provider is not None
        # Under xdist no process has refused anything yet.
        self._refuse_unfit()
        self.chosen.tell()
        if not isinstance(self.provider, VagrantProvider):
            self._keep_description(self.provider.up())
            return
        wanted = self._reachable()
        if wanted:
            self._applying.prepare_checkout([*self.sources(), *self.chosen.upgrade()])
        self._prepare(wanted)
        restored = self.reuse.restore(wanted, kept=self.kept)
        if restored:
            running, manifest = restored
            self._keep_description(running)
            self._baseline.set(manifest)
            taken = datetime.fromtimestamp(manifest.created).strftime("%Y-%m-%d %H:%M")
            self._origin.write_text(
                f"restored from checkpoint '{manifest.id}' (stage '{manifest.told}', {taken})"
            )
            for source in self.sources():
                if source.part in manifest.parts:
                    self._applying.note_applied(running, source, restored=True)
            if wanted and tuple(manifest.parts) == wanted:
                self.stages.write("deployed", "ok")
                self._accept(running, self.sources())
            return
        if self.settings.reuse == "require":
            raise UsageProblem(
                "The checkpoint that this run requires could not be used.",
                hint="deepops-virtual checkpoint list; --deepops-reuse auto makes it anew",
            )
        self.provider.fetch()
        made_from = self._inputs(())
        running = self.provider.up()
        self._keep_description(running)
        if self.settings.reuse != "never":
            self._take(running, "up", made_from)

    def _prepare(self, wanted: Parts) -> None:
        """Make what the playbooks of these parts bring along, before any machine takes processors
        from it; what the best checkpoint has on it already brings nothing."""
        best = next(iter(self.reuse.plan(wanted).candidates), None)
        missing = [part for part in wanted if best is None or part not in best.parts]
        if self.spec and missing:
            sources = [source for source in self.sources() if source.part in missing]
            self._applying.prepare(self.spec.box, sources, self.settings.airgap)

    def _take(
        self, running: RunningCluster, stage: Stage, made_from: Inputs, parts: Parts = ()
    ) -> None:
        manifest = self.reuse.take(running, stage, made_from, parts)
        if manifest:
            self._baseline.set(manifest)

    def _keep_description(self, running: RunningCluster) -> RunningCluster:
        """Write what this run's processes and its report read of the cluster, and return it: as
        its tests see it."""
        self.chosen.tell()
        shown = without_groups(running, self.chosen.hidden_groups)
        (self.run_dir / "cluster.json").write_text(shown.model_dump_json(indent=1))
        if self.spec:
            (self.run_dir / "spec.json").write_text(self.spec.model_dump_json(indent=1))
        return shown

    def _reach_deployment(self, running: RunningCluster, wanted: Parts) -> None:
        there = self._applying.there(running)
        new = self.chosen.sources_of(choice.to_apply(wanted, there))
        keep = not self.attached and self.settings.reuse != "never"
        steps = [
            choice.ordered([*there, *(source.part for source in new[:count])])
            for count in range(1, len(new) + 1)
        ]
        # All of it before anything is applied: what is edited under the first part is in none.
        made_from = [self._inputs(parts) if keep else {} for parts in steps]
        for source, parts, inputs in zip(new, steps, made_from, strict=True):
            self._baseline.forget()
            self._applying.apply(running, source)
            if keep:
                self._take(running, "deployed", inputs, parts)
        checked = choice.ordered([*wanted, *(source.part for source in new)])
        self._accept(running, self.chosen.sources_of(checked))

    def _attached_cluster(self) -> RunningCluster:
        ledger = self.book.get(self.settings.attach)
        path = self.book.path(ledger.name) / "cluster.json"
        if ledger.state not in ("up", "deployed") or not path.is_file():
            raise UsageProblem(
                f"Cluster instance '{ledger.name}' is not up (its state: {ledger.state}).",
                hint=f"deepops-virtual destroy {ledger.name}; deepops-virtual up",
            )
        if self.settings.airgap and not ledger.airgap:
            raise UsageProblem(
                f"Cluster instance '{ledger.name}' is not airgapped: its network has a way out.",
                hint="deepops-virtual up --airgap, or leave --deepops-airgap out",
            )
        return RunningCluster.model_validate_json(path.read_text())

    @property
    def _origin(self) -> Path:
        return self.run_dir / "origin"

    @property
    def origin(self) -> str:
        """What this run's cluster was made from, in words ('' for one it did not make)."""
        with suppress(OSError):
            return self._origin.read_text()
        return "made from the box" if self.instance else ""

    # -- down -------------------------------------------------------------------------------

    @property
    def instance(self) -> str:
        """Name of the instance this run made ('' when it made none)."""
        return self.book.of_run(self.run_dir)

    def down(self, *, failed: bool) -> str:
        """Tear down unless the cluster is to be kept; return what was kept ('' when nothing was).

        Raises LeakError when something of it is left on this host.
        """
        if self.provider is None:
            self._baseline.drop_private()
            return ""
        keep = self.settings.keep == "always" or (self.settings.keep == "failed" and failed)
        name = self.instance
        if keep and name and self.book.read(name):
            with self.book.locked():
                ledger = self.book.update(name, kept=True)
            if ledger.gpus:
                gpus.host_leases().keep(name)
            return name
        self.provider.down()
        return ""
