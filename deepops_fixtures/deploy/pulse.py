"""Says of a long task that it still runs: a run that is silent for minutes looks as if it hung."""

from __future__ import annotations

from deepops_fixtures.deploy.results import EventReader
from deepops_fixtures.journal import Journal


class Pulse:
    """Says of a task that takes long that it still runs, and on which hosts."""

    #: Seconds after which it says so for the first time; then after twice as many, and so on.
    FIRST = 30.0

    def __init__(self, journal: Journal, reader: EventReader) -> None:
        self._journal, self._reader = journal, reader
        self._tasks = 0
        self._begin = self._next = 0.0

    def beat(self, now: float) -> None:
        """Look at the newest task at this moment (seconds of a monotonic clock)."""
        tasks = self._reader.result.tasks
        if len(tasks) != self._tasks:
            self._tasks, self._begin, self._next = len(tasks), now, self.FIRST
        took = now - self._begin
        if not tasks or took < self._next:
            return
        self._next *= 2
        task = tasks[-1]
        self._journal.running(
            "deploy",
            task.task,
            node=", ".join(sorted(self._reader.busy)),
            detail=task.role or task.play,
            seconds=took,
        )
