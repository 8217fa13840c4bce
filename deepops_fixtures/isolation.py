"""Who may use the cluster now, and when it is put back: tests that break it run alone, and no
later test sees what they did.

The workers of an xdist run share one cluster. An ordinary test holds it together with others, a
destructive one alone; what has been broken is noted in a file of the run, and whoever comes next
puts the cluster back first. Not for how: that is ``rehearsal.go_back``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deepops_fixtures.errors import DeepopsError

if TYPE_CHECKING:
    from deepops_fixtures.rehearsal import Rehearsal

#: The fixture that gives a test the cluster as it was after its deployment.
PRISTINE = "pristine_cluster"

#: Folder of the lock and the marks, in the run's folder.
FOLDER = "isolation"


def breaks(item: pytest.Item) -> bool:
    """Whether a test may leave the cluster in another state than it found it."""
    return item.get_closest_marker("destructive") is not None


def wants_pristine(item: pytest.Item) -> bool:
    """Whether a test asks for a cluster that no test has touched."""
    return PRISTINE in getattr(item, "fixturenames", ())


class Isolation:
    """The state of one run's cluster with regard to its tests, shared by all processes."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self._folder = rehearsal.run_dir / FOLDER

    @contextmanager
    def hold(self, item: pytest.Item) -> Iterator[None]:
        """Hold the cluster for a test: alone when it breaks something, together otherwise."""
        from fasteners import InterProcessReaderWriterLock

        self._folder.mkdir(parents=True, exist_ok=True)
        lock = InterProcessReaderWriterLock(self._folder / "cluster.lock")
        if not breaks(item) and not wants_pristine(item):
            with lock.read_lock():
                if not self.broken:
                    yield
                    return
        # Whoever finds the cluster broken puts it back, and has to be alone for that too.
        with lock.write_lock():
            yield

    @property
    def broken(self) -> bool:
        """Whether a destructive test has had the cluster and nobody has put it back."""
        return self._mark("broken").exists()

    def before(self, item: pytest.Item) -> None:
        """Put the cluster back when the test before broke it, or when this one wants it untouched.

        Raises ProvisionError or StepTimeout.
        """
        if self.broken or (wants_pristine(item) and self._mark("touched").exists()):
            # That there is no cluster is the test's to meet, and nothing to be noted in passing.
            self._rehearsal.ensure_up()
            try:
                self._rehearsal.ensure_baseline()
            except DeepopsError as error:
                if wants_pristine(item):
                    raise
                # There was no room for a checkpoint. Destructive tests clean up after themselves
                # as well as they can.
                self._rehearsal.journal.note("revert", error.message, status="failed")
                self._forget()
            else:
                self.go_back()
        if breaks(item):
            # Before it begins: a worker that dies in it has broken the cluster all the same.
            self._mark("broken").touch()

    def after(self) -> None:
        """Note that a test has had the cluster."""
        with suppress(OSError):
            self._mark("touched").touch()

    def go_back(self) -> None:
        """Put the cluster back, and forget what was done to it."""
        self._rehearsal.go_back()
        self._forget()

    def _forget(self) -> None:
        for name in ("broken", "touched"):
            self._mark(name).unlink(missing_ok=True)

    def at_the_end(self) -> str:
        """Put back a cluster that others will go on using; return why it could not be ('' when it
        is as it should be)."""
        if not self.broken:
            return ""
        try:
            self.go_back()
        except DeepopsError as error:
            return f"The cluster was not put back after the destructive tests: {error.message}"
        return ""

    def _mark(self, name: str) -> Path:
        return self._folder / name
