"""How far a run has come, as files in its folder: each step is done once, whoever asks first, and
every other process waits and reads how it ended.

Not for what the steps are: that is ``rehearsal``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock
from pydantic import BaseModel

from deepops_fixtures.errors import DeepopsError, StageFailed, UsageProblem
from deepops_fixtures.journal import Journal

#: What a run may wait for: the machines, the deployment, another on top of it, a state to go back
#: to, having gone back.
Step = Literal["up", "deployed", "upgraded", "baseline", "put back"]
#: Those without which there is nothing to test.
_VITAL: tuple[Step, ...] = ("up", "deployed", "upgraded", "put back")
_FAILED = {
    "up": "did not come up",
    "deployed": "could not be deployed",
    "upgraded": "could not be upgraded",
    "baseline": "cannot be put back",
    "put back": "could not be put back after a destructive test",
}


class Outcome(BaseModel):
    """How a step ended; the file that other processes read."""

    status: Literal["running", "ok", "failed"]
    pid: int
    message: str = ""
    usage: bool = False

    @property
    def failed(self) -> bool:
        """Whether it will never be done: it failed, or the process that did it died."""
        return self.status == "failed" or (self.status == "running" and not _works(self.pid))


class Stages:
    """The steps of one run."""

    def __init__(self, run_dir: Path, journal: Journal) -> None:
        self._folder = run_dir / "stages"
        self._journal = journal
        self._mine: dict[Step, Outcome] = {}

    def once(self, step: Step, work: Callable[[], None]) -> None:
        """Do the work of a step unless some process has; everyone else waits and reads the
        outcome. Raises what the work raises to the first caller, StageFailed to the others."""
        try:
            self._once_locked(step, work)
        except OSError as error:
            message = f"{error.strerror or error}: '{error.filename or self._folder.parent}'."
            self._mine[step] = outcome = Outcome(status="failed", pid=os.getpid(), message=message)
            hint = f"df -h {self._folder.parent}"
            raise DeepopsError(_told(step, outcome), hint=hint) from error

    def _once_locked(self, step: Step, work: Callable[[], None]) -> None:
        path = self._path(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            outcome = self.outcome(step)
            if outcome and outcome.status == "ok":
                return
            if outcome:
                raise StageFailed(_told(step, outcome))
            self._journal.note("stage", step)
            self.write(step, "running")
            try:
                work()
            except BaseException as error:
                message = error.message if isinstance(error, DeepopsError) else repr(error)
                self.write(step, "failed", message, usage=isinstance(error, UsageProblem))
                raise
            self.write(step, "ok")

    def write(
        self,
        step: Step,
        status: Literal["running", "ok", "failed"],
        message: str = "",
        *,
        usage: bool = False,
    ) -> None:
        """Say how a step stands, for every process."""
        outcome = Outcome(status=status, pid=os.getpid(), message=message, usage=usage)
        self._mine[step] = outcome
        self._path(step).write_text(outcome.model_dump_json())

    def outcome(self, step: Step) -> Outcome | None:
        """Return how a step stands, None when nobody has begun it."""
        with suppress(OSError, ValueError):
            return Outcome.model_validate_json(self._path(step).read_text())
        # Where the file could not be written, this process still knows.
        return self._mine.get(step)

    def forget(self, step: Step) -> None:
        """Let a step be done once more."""
        self._path(step).unlink(missing_ok=True)
        self._mine.pop(step, None)

    def failure(self) -> Outcome | None:
        """Return the outcome of the first vital step that failed in any process, or None."""
        found = (self.outcome(step) for step in _VITAL)
        return next((outcome for outcome in found if outcome and outcome.failed), None)

    def failure_reason(self) -> str:
        """Return why the cluster is broken, in one sentence; '' when it is not."""
        for step in _VITAL:
            outcome = self.outcome(step)
            if outcome and outcome.failed:
                return _told(step, outcome).splitlines()[0]
        return ""

    def _path(self, step: Step) -> Path:
        return self._folder / f"{step.replace(' ', '-')}.json"


def _works(pid: int) -> bool:
    """Whether a process is alive; one that was killed is still there until its parent has asked
    how it ended, and xdist asks late."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _told(step: Step, outcome: Outcome) -> str:
    if outcome.status == "running":
        return f"The process {outcome.pid} that worked on the cluster (stage '{step}') died."
    return f"The cluster {_FAILED[step]}: {outcome.message}"
