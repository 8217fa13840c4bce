"""Starting from a checkpoint instead of from nothing: which one is good for this run, and why not
a better one.

Joins what the cluster and deploy rooms say a stage is made from with the store of checkpoints.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import humanize

from deepops_fixtures import inputs as stage_inputs
from deepops_fixtures.cluster import restoring, taking, teardown
from deepops_fixtures.cluster.checkpoints import Manifest, Stage, Store
from deepops_fixtures.cluster.gpus import Lending
from deepops_fixtures.cluster.ledger import Owner
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.journal import Journal
from deepops_fixtures.parts import Parts
from deepops_fixtures.settings import Settings


@dataclass(frozen=True)
class Plan:
    """The checkpoints to try, the best first, and for each state without one why there is none."""

    candidates: tuple[Manifest, ...]
    lacking: tuple[str, ...]


class Reuse:
    """The checkpoints of one run's cluster: found, restored, taken.

    What a run wants is said as the parts of DeepOps that are to be on the cluster, in the order of
    their deployment; no part is the machines alone.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        journal: Journal,
        run_dir: Path,
        owner: Owner,
        cluster: str,
        make_inputs: Callable[[Parts], Inputs],
        lending: Lending | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.journal = journal
        self.run_dir = run_dir
        self.owner = owner
        self.cluster = cluster
        self._make_inputs = make_inputs
        self._lending = lending

    # -- finding ----------------------------------------------------------------------------

    def plan(self, wanted: Parts) -> Plan:
        """Return what a run may start from: the best has all that is wanted, the next the parts
        that are deployed first. One with any other part on it is never among them."""
        candidates: list[Manifest] = []
        lacking: list[str] = []
        if self.settings.reuse == "never":
            return Plan((), ())
        milestones = [wanted[:count] for count in range(len(wanted), -1, -1)]
        if self.settings.reuse == "require":
            milestones = [wanted]
        known = [item for item in self.store.all() if self._fits(item)]
        for parts in milestones:
            inputs = self._make_inputs(parts)
            mine = [item for item in known if _is_at(item, parts)]
            same = [item for item in mine if item.key == stage_inputs.key(inputs)]
            candidates += sorted(same, key=lambda item: -item.created)
            if not same:
                named = f" under the name '{self.settings.name}'" if self.settings.name else ""
                lacking.append(_why_none(parts, mine, inputs, named))
        lacking += [f"{name} was set aside: {why}" for name, why in self.store.rejected]
        return Plan(tuple(candidates), tuple(lacking))

    def _fits(self, manifest: Manifest) -> bool:
        wanted = self.settings.name
        return manifest.spec.name == self.cluster and wanted in ("", manifest.instance)

    def refuse_without(self, wanted: Parts) -> None:
        """With ``--deepops-reuse=require``, refuse a run that has no checkpoint of all it wants.

        Raises UsageProblem naming the input that changed.
        """
        if self.settings.reuse != "require":
            return
        plan = self.plan(wanted)
        for item in plan.candidates:
            self._clear_abandoned(item)
        troubles = [self._trouble(item) for item in plan.candidates]
        if "" not in troubles:
            why = "; ".join([*troubles, *plan.lacking]) or "there is none"
            raise UsageProblem(
                f"No checkpoint of {_told(wanted)} can be used: {why}.",
                hint="run once with --deepops-reuse auto, which takes one; "
                "deepops-virtual checkpoint list",
            )

    def _trouble(self, manifest: Manifest) -> str:
        why = restoring.obstacle(self.store, manifest) or self.store.flaw(manifest)
        return f"{manifest.id}: {why}" if why else ""

    # -- restoring --------------------------------------------------------------------------

    def restore(self, wanted: Parts, *, kept: bool) -> tuple[RunningCluster, Manifest] | None:
        """Return the cluster restored from the best checkpoint there is, or None.

        What cannot be restored is said, set aside where it is at fault, and the next one is tried.
        """
        plan = self.plan(wanted)
        for why in plan.lacking:
            self.journal.note("up", f"no checkpoint: {why}")
        for manifest in plan.candidates:
            flaw = self.store.flaw(manifest)
            if flaw:
                self._reject(manifest, flaw)
                continue
            self._clear_abandoned(manifest)
            why = restoring.obstacle(self.store, manifest)
            if why:
                self.journal.note("up", f"checkpoint '{manifest.id}' is not free: {why}")
                continue
            running = self._try(manifest, kept)
            if running:
                return running, manifest
        return None

    def _try(self, manifest: Manifest, kept: bool) -> RunningCluster | None:
        age = humanize.naturaldelta(manifest.age)
        self.journal.note(
            "up", f"starting from checkpoint '{manifest.id}' ({manifest.told}, {age} old)"
        )
        try:
            return restoring.restore(
                self.store,
                manifest,
                self.run_dir,
                self.journal,
                owner=self.owner,
                wait=self.settings.wait,
                kept=kept,
                lending=self._lending,
            )
        except (restoring.Unavailable, UsageProblem) as error:
            self.journal.note("up", error.message)
        except (DeepopsError, OSError) as error:
            if self.store.book.read(manifest.instance):
                teardown.destroy(manifest.instance, self.store.book, self.journal)
            (self.run_dir / "instance").unlink(missing_ok=True)
            why = error.message if isinstance(error, DeepopsError) else str(error)
            self._reject(manifest, why)
        return None

    def _clear_abandoned(self, manifest: Manifest) -> None:
        """Take down the instance of a killed run that has the checkpoint's name and disks."""
        for ledger in self.store.users(manifest):
            if ledger.abandoned:
                self.journal.note("up", f"a run that was killed left '{ledger.name}'")
                with suppress(DeepopsError):
                    teardown.destroy_left(ledger, self.store.book, self.journal)

    def _reject(self, manifest: Manifest, why: str) -> None:
        self.journal.note(
            "up", f"checkpoint '{manifest.id}' was set aside: {why}", status="failed"
        )
        self.store.set_aside(manifest.id, why)

    # -- taking -----------------------------------------------------------------------------

    def take(
        self, running: RunningCluster, stage: Stage, made_from: Inputs, parts: Parts = ()
    ) -> Manifest | None:
        """Take a checkpoint for later runs (or, with stage 'here', for this one to go back to).

        ``parts`` are on the cluster by now. ``made_from`` are the stage's inputs as they were
        when it began: one that was edited meanwhile makes a checkpoint of nobody knows what, and
        none is taken. That none could be taken is said, and fails nothing: the cluster is as good
        without.
        """
        try:
            now = made_from if stage == "here" else self._make_inputs(parts)
            changed = stage_inputs.changes(made_from, now)
            if changed:
                self.journal.note(
                    "checkpoint", f"none was taken, changed meanwhile: {'; '.join(changed)}"
                )
                return None
            told = f"{stage}: {', '.join(parts)}" if parts else stage
            with self.journal.step("checkpoint", f"keeping the cluster as it is ('{told}')"):
                manifest = taking.take(self.store, running.name, running, stage, made_from, parts)
        except (DeepopsError, OSError) as error:
            self.journal.note("checkpoint", f"none was taken: {error}", status="failed")
            return None
        self._make_room(manifest)
        threading.Thread(target=self._make_durable, args=(manifest,), daemon=True).start()
        return manifest

    def _make_durable(self, manifest: Manifest) -> None:
        """Have the host write everything to its disks, and note that it did."""
        os.sync()
        with suppress(OSError, DeepopsError), self.store.book.locked():
            # It may have been dropped by now.
            if (self.store.path(manifest.id) / "manifest.json").exists():
                self.store.write(manifest.model_copy(update={"durable": True}))

    def _make_room(self, newest: Manifest) -> None:
        budget = self.settings.checkpoint_bytes
        dropped = []
        try:
            with self.store.book.locked():
                dropped = self.store.make_room(budget, keep=newest.id)
        except (DeepopsError, OSError) as error:
            self.journal.note("checkpoint", f"no room was made: {error}", status="failed")
        for item in dropped:
            self.journal.note("checkpoint", f"'{item.id}' gave way to newer ones")


def _is_at(manifest: Manifest, parts: Parts) -> bool:
    """Whether these parts are on a checkpoint's cluster, and no other; a run's own is nobody
    else's."""
    stage = "deployed" if parts else "up"
    return manifest.stage == stage and tuple(manifest.parts) == parts


def _told(parts: Parts) -> str:
    return f"stage 'deployed' ({', '.join(parts)})" if parts else "stage 'up'"


def _why_none(parts: Parts, mine: list[Manifest], inputs: Inputs, named: str) -> str:
    """Say why no checkpoint of these parts is good: the nearest one, and what has changed
    since."""
    if not mine:
        return f"none of {_told(parts)} was taken of this cluster{named} yet"
    differences = [(stage_inputs.changes(item.inputs, inputs), item) for item in reversed(mine)]
    changes, nearest = min(differences, key=lambda pair: len(pair[0]))
    return f"{nearest.id} does not fit; changed since: {'; '.join(changes)}"
