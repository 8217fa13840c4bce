"""A submitted job: its state, its end, its output. Made by ``Slurm.submit``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from deepops_fixtures.checks import slurm_data
from deepops_fixtures.checks.slurm_data import AccountingRecord, JobInfo
from deepops_fixtures.checks.waiting import failure, titled, wait_until
from deepops_fixtures.proc import Deadline

if TYPE_CHECKING:
    from deepops_fixtures.checks.slurm import Slurm


class Job:
    """One job, or one array of jobs.

    >>> slurm.submit("hostname").finish()
    'virtual-mgmt'
    """

    def __init__(self, slurm: Slurm, number: int, *, user: str = "") -> None:
        self.slurm = slurm
        self.id = number
        self.user = user

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    @property
    def tasks(self) -> list[JobInfo]:
        """The tasks of an array; the job itself, alone, when it is none."""
        said = self.slurm.command(f"timeout 20 scontrol --oneliner show job {self.id}")
        found = slurm_data.parse_jobs(said.text)
        if not found:
            raise failure(f"slurmctld tells nothing of job {self.id}.", said.text)
        return found

    @property
    def info(self) -> JobInfo:
        """The job as slurmctld sees it now."""
        return self.tasks[0]

    @property
    def accounted(self) -> AccountingRecord:
        """Accounting's record of the finished job."""
        return self.slurm.accounted(self.id)

    def wait(self, state: str = "", *, seconds: float = 90) -> JobInfo:
        """Wait until the job has ended, or is in ``state``, and return it.

        CheckFailed when the time is over, or when it ended in another state than the one waited
        for.
        """
        __tracebackhide__ = True
        if not state:
            return self._until("The end", lambda job: job.finished, (), seconds)
        others = slurm_data.FINISHED_STATES - {state}
        return self._until(f"State {state}", lambda job: job.state == state, others, seconds)

    def _until(
        self, what: str, done: Callable[[JobInfo], bool], never: Collection[str], seconds: float
    ) -> JobInfo:
        __tracebackhide__ = True
        return wait_until(
            f"{what} of job {self.id}",
            lambda: self.info,
            deadline=Deadline.after(seconds),
            done=done,
            never=lambda job: job.state in never,
            evidence=self.evidence,
        )

    def wait_for_all_tasks(self, *, seconds: float = 120) -> list[JobInfo]:
        """Wait until every task of the array has ended, and return them."""
        __tracebackhide__ = True
        return wait_until(
            f"The end of every task of job {self.id}",
            lambda: self.tasks,
            deadline=Deadline.after(seconds),
            done=lambda tasks: all(task.finished for task in tasks),
            describe=lambda tasks: "; ".join(map(str, tasks)),
            evidence=self.evidence,
        )

    def finish(self, *, seconds: float = 90) -> str:
        """Wait until the job is COMPLETED and return its output; CheckFailed when it ends
        otherwise.
        """
        __tracebackhide__ = True
        info = self.wait("COMPLETED", seconds=seconds)
        return self.slurm.check(f"cat {shlex.quote(info.output)}", user=self.user).strip()

    @property
    def output(self) -> str:
        """What the job has written so far ('' when there is no such file), as the login node sees
        it.
        """
        path = shlex.quote(self.info.output)
        return self.slurm.command(f"cat {path} 2>/dev/null", user=self.user).text.strip()

    def cancel(self) -> None:
        """Cancel it."""
        __tracebackhide__ = True
        self.slurm.cancel(str(self.id), user=self.user)

    def evidence(self) -> str:
        """Return everything that may say why the job did not do what was expected."""
        said = self.slurm.command(f"timeout 10 scontrol show job {self.id}").text
        parts = [titled(f"scontrol show job {self.id}", said, 40)]
        tasks = slurm_data.parse_jobs(
            self.slurm.command(f"timeout 10 scontrol --oneliner show job {self.id}").text
        )
        if tasks:
            parts.append(titled("output", self.output))
        parts += [self.slurm.states(), self.slurm.log("SlurmctldLogFile", f"JobId={self.id}")]
        parts += [self.slurm.slurmd_log(name) for name in (tasks[0].nodes if tasks else ())[:2]]
        return "\n".join(parts)
