"""The cluster's Slurm: nodes, partitions, jobs and accounting as objects, and the verbs a tester
uses.

Jobs are run as the user that logs in, from the login node, as a user of the cluster would. A verb
that fails says what Slurm said, and carries the job, the nodes and the daemons' logs as evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts
from deepops_fixtures.checks.slurm_data import AccountingRecord, JobInfo, Partition, SlurmNode
from deepops_fixtures.checks.waiting import wait_until
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node, Nodes

#: Seconds that a job of the checks may wait for its turn on a busy or emulated cluster.
PATIENCE = 120


class Slurm:
    """Slurm as a tester talks about it.

    >>> slurm.nodes["virtual-gpu01"].state
    'IDLE'
    >>> slurm.run("hostname", nodes=2).splitlines()
    ['virtual-mgmt', 'virtual-gpu01']
    >>> slurm.wait(slurm.submit("exit 3")).exit_code
    3
    """

    def __init__(self, nodes: Nodes) -> None:
        self.cluster = nodes
        self.controller = nodes.slurm_controller
        self.login = nodes.login

    # -- what is there ----------------------------------------------------------------------

    def _show(self, what: str) -> list[str]:
        __tracebackhide__ = True
        done = self.controller.host.run(f"timeout 30 scontrol -o show {what}")
        if done.rc != 0:
            raise CheckFailed(
                f"slurmctld on '{self.controller.name}' does not answer 'scontrol show {what}': "
                f"{done.stderr.strip() or done.stdout.strip()}\n{self.log(self.controller)}"
            )
        return [line for line in done.stdout.splitlines() if "=" in line]

    @property
    def nodes(self) -> dict[str, SlurmNode]:
        """The compute nodes, by name."""
        return {node.name: node for node in map(SlurmNode.parse, self._show("node"))}

    @property
    def partitions(self) -> dict[str, Partition]:
        """The partitions, by name."""
        return {item.name: item for item in map(Partition.parse, self._show("partition"))}

    def job(self, job_id: int) -> JobInfo:
        """Return a job as slurmctld knows it; a forgotten one raises CheckFailed."""
        __tracebackhide__ = True
        return JobInfo.parse(self._show(f"job {job_id}")[0])

    @property
    def version(self) -> str:
        """Slurm's version on the controller, like '22.05.8'."""
        return str(self.controller.host.check_output("sinfo --version").split()[-1])

    @property
    def controller_answers(self) -> bool:
        """Whether slurmctld answers a ping (scontrol(1))."""
        return " is UP" in self.controller.host.run("timeout 30 scontrol ping").stdout

    def accounting(self, job_id: int) -> list[AccountingRecord]:
        """Return the job and its steps from the accounting database ([] when it knows none).

        Raises CheckFailed when the database does not answer.
        """
        __tracebackhide__ = True
        columns = AccountingRecord.FORMAT
        done = self.controller.host.run(
            f"timeout 30 sacct --parsable2 --noheader --format={columns} -j {job_id}"
        )
        if done.rc != 0:
            raise CheckFailed(
                f"slurmdbd on '{self.controller.name}' does not answer sacct: "
                + (done.stderr.strip() or f"exit status {done.rc}")
            )
        return [AccountingRecord.parse(line) for line in done.stdout.splitlines()]

    # -- what a user does -------------------------------------------------------------------

    def run(
        self,
        command: str,
        *,
        nodes: int = 1,
        tasks: int | None = None,
        options: str = "",
        seconds: int = PATIENCE,
    ) -> str:
        """Run a command under ``srun`` and return its output; a failure carries what Slurm and the
        nodes say."""
        __tracebackhide__ = True
        done = self.srun(command, nodes=nodes, tasks=tasks, options=options, seconds=seconds)
        if done.rc != 0:
            raise CheckFailed(
                f"'srun {options} {command}' over {nodes} node(s) ended with status {done.rc}: "
                f"{(done.stderr or done.stdout).strip()}\n{self.evidence()}"
            )
        return str(done.stdout).strip()

    def srun(
        self,
        command: str,
        *,
        nodes: int = 1,
        tasks: int | None = None,
        options: str = "",
        seconds: int = PATIENCE,
    ) -> Any:
        """Run a command under ``srun`` and return testinfra's result, whatever its status."""
        line = (
            f"timeout {seconds} srun --immediate={seconds} "
            f"--nodes={nodes} --ntasks={tasks or nodes} --job-name=deepops-check "
            f"{options} sh -c %s"
        )
        return self.login.user_host.run(line, command)

    def submit(self, script: str, options: str = "") -> int:
        """Submit a batch job of one shell command line and return its number."""
        __tracebackhide__ = True
        line = f"cd && timeout 60 sbatch --parsable --job-name=deepops-check {options} --wrap=%s"
        done = self.login.user_host.run(line, script)
        if done.rc != 0:
            raise CheckFailed(
                f"sbatch refused the job ({options} '{script}'): {done.stderr.strip()}\n"
                + self.evidence()
            )
        return int(done.stdout.strip().split(";")[0])

    def wait(self, job_id: int, seconds: int = PATIENCE) -> JobInfo:
        """Wait until a job has ended and return it."""
        __tracebackhide__ = True
        return wait_until(
            f"job {job_id} ends",
            lambda: self.job(job_id),
            lambda job: job.ended,
            seconds,
            evidence=lambda: self.evidence(job_id),
        )

    def wait_state(self, job_id: int, *states: str, seconds: int = PATIENCE) -> JobInfo:
        """Wait until a job is in one of these states and return it."""
        __tracebackhide__ = True
        return wait_until(
            f"job {job_id} becomes {' or '.join(states)}",
            lambda: self.job(job_id),
            lambda job: job.state in states or job.ended,
            seconds,
            evidence=lambda: self.evidence(job_id),
        )

    def cancel(self, job_id: int) -> None:
        """Cancel a job as its user."""
        self.login.user_host.run_expect([0], f"timeout 30 scancel {job_id}")

    def output(self, job: JobInfo) -> str:
        """Return what a batch job wrote, read on the login node."""
        return str(self.login.user_host.check_output("cat -- %s", job.stdout))

    # -- evidence ---------------------------------------------------------------------------

    def log(self, node: Node, lines: int = 12) -> str:
        """Return the end of the Slurm daemon's log of a node, with a heading."""
        daemon = "slurmctld" if node is self.controller else "slurmd"
        path = f"{facts.SLURM_LOG_DIR}/{daemon}.log"
        text = node.host.run(f"tail -n {lines} {path} 2>&1").stdout.rstrip()
        return f"--- {node.name}:{path} ---\n{text}"

    def evidence(self, job_id: int | None = None) -> str:
        """Return what one would look at next: the nodes with reasons, the job, its output, the
        daemons' logs."""
        host = self.controller.host
        parts = [host.run("timeout 20 sinfo -N -o '%N %T %E' 2>&1").stdout.rstrip()]
        if job_id is not None:
            shown = host.run(f"timeout 20 scontrol show job {job_id} 2>&1").stdout.rstrip()
            parts.append(shown)
            path = next((word[7:] for word in shown.split() if word.startswith("StdOut=")), "")
            if path:
                text = self.login.user_host.run("tail -n 20 -- %s 2>&1", path).stdout.rstrip()
                parts.append(f"--- job's output {path} ---\n{text}")
        parts.append(self.log(self.controller))
        parts += [
            self.log(node) for node in self.cluster.slurm_nodes if node is not self.controller
        ]
        return "\n".join(parts)

    # -- the basis of every job -------------------------------------------------------------

    def obstacles(self, node: Node) -> list[str]:
        """Return why no job can be expected to run on a compute node, from the node's own services
        up.

        Each of these has a check of its own that is red then. The checks that run jobs skip with
        these reasons, so that one cause shows as one failure and not as thirty timeouts.
        """
        credential = self.controller.host.run("timeout 10 munge -n").stdout.strip()
        mounts = " ".join(facts.NFS_EXPORTS) if node is not self.cluster.nfs_server else ""
        script = (
            "systemctl is-active --quiet slurmd || echo slurmd does not run;"
            "printf '%s' \"$1\" | timeout 10 unmunge >/dev/null 2>&1"
            " || echo munge does not accept the controller\\'s credential;"
            "for path in $2; do mountpoint -q $path || echo $path is not mounted; done"
        )
        found = node.host.run("sh -c %s sh %s %s", script, credential, mounts).stdout.splitlines()
        return [f"{node.name}: {line}" for line in found]

    def all_obstacles(self) -> list[str]:
        """Return the obstacles of every compute node, and the nodes that slurmctld gives no
        jobs."""
        found = [text for node in self.cluster.slurm_nodes for text in self.obstacles(node)]
        if found:
            return found
        if not self.controller_answers:
            return [f"{self.controller.name}: slurmctld does not answer"]
        return [
            f"{node.name}: {node.state} ({node.reason or 'no reason given'})"
            for node in self.nodes.values()
            if not node.ready
        ]
