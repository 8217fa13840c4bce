"""What a run's cluster is put back to: a checkpoint, named in a file of the run's folder that its
processes share.

Not for making checkpoints: that is ``cluster.taking``; nor for when a cluster is put back.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from deepops_fixtures.cluster import restoring
from deepops_fixtures.cluster.checkpoints import Manifest, Store
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.errors import DeepopsError, ProvisionError
from deepops_fixtures.journal import Journal
from deepops_fixtures.stages import Stages


class Baseline:
    """The checkpoint that a run goes back to; it changes with what is deployed."""

    def __init__(self, store: Store, stages: Stages, run_dir: Path, journal: Journal) -> None:
        self._store = store
        self._stages = stages
        self._journal = journal
        self._file = run_dir / "baseline"

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return self._file.exists()

    def set(self, manifest: Manifest) -> None:
        """Go back to this checkpoint from now on."""
        self._file.write_text(manifest.id)

    def forget(self) -> None:
        """What the cluster was is not what it is going to be."""
        self._file.unlink(missing_ok=True)
        self._stages.forget("baseline")

    def get(self) -> Manifest:
        """Return the checkpoint. Raises ProvisionError when there is none."""
        if not self.known:
            raise ProvisionError(
                "No checkpoint of the cluster could be taken.",
                hint="deepops-virtual checkpoint gc, or: df -h /var/lib/libvirt/images",
            )
        return self._store.get(self._file.read_text())

    def go_back(self, running: RunningCluster) -> None:
        """Put the cluster back.

        Raises ProvisionError or StepTimeout; the cluster counts as broken then.
        """
        manifest = self.get()
        try:
            restoring.revert(self._store, manifest, running, self._journal)
        except DeepopsError as error:
            self._stages.write("put back", "failed", error.message)
            raise

    def drop_private(self) -> None:
        """Drop the checkpoint where it is this run's own: a cluster that runs on needs it no
        more."""
        with suppress(OSError, DeepopsError):
            manifest = self.get()
            if manifest.stage == "here":
                with self._store.book.locked():
                    self._store.drop(manifest, in_use=True)
