"""A run that looks for checkpoints: what its stages are made from, and what it has said."""

from __future__ import annotations

from pathlib import Path

from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import LedgerBook, Owner
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.journal import Journal
from deepops_fixtures.reuse import Reuse
from deepops_fixtures.settings import Settings

MACHINES = {"cluster": {"nodes.virtual-login.memory": "384"}}
DEPLOYED = {
    **MACHINES,
    "deploy playbooks": {"roles/munge/tasks/main.yml": "sha256:1"},
    "deploy source": {"slurm": "slurm-cluster.yml of distro"},
}
SLURM, KUBERNETES, BOTH = ("slurm",), ("kubernetes",), ("slurm", "kubernetes")
RUNNING = RunningCluster(name="one", provider="vagrant", nodes=[], inventory=Path("/nowhere"))


class Run:
    """What ``reuse`` gets of a rehearsal."""

    def __init__(self, book: LedgerBook, folder: Path) -> None:
        self.run_dir = folder
        self.store = Store(book)
        self.journal = Journal(folder / "events.jsonl")
        self.inputs = {(): MACHINES, SLURM: DEPLOYED}
        for parts in (KUBERNETES, BOTH):
            sources = {part: f"{part}-playbook of distro" for part in parts}
            self.inputs[parts] = {**DEPLOYED, "deploy source": sources}

    def reuse(self, **settings: object) -> Reuse:
        return Reuse(
            Settings.load(settings), self.store, self.journal, self.run_dir, Owner.me(), "tiny",
            lambda parts: self.inputs[parts],
        )  # fmt: skip

    def edit(self) -> None:
        """Edit a playbook."""
        changed = {"roles/munge/tasks/main.yml": "sha256:2"}
        for parts in (SLURM, KUBERNETES, BOTH):
            self.inputs[parts] = {**self.inputs[parts], "deploy playbooks": changed}

    @property
    def said(self) -> list[str]:
        return [event.what for event in self.journal.events()]
