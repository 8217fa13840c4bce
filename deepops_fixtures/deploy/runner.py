"""Running a playbook with ansible-runner: a fresh folder a run, a clean environment, a deadline,
live events."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible_runner
from ansible_runner.exceptions import AnsibleRunnerException
from ansible_runner.interface import init_runner

from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.deploy.results import DeployResult, EventReader, TaskResult
from deepops_fixtures.deploy.sources import PlaybookSource
from deepops_fixtures.errors import DeployError, StepTimeout
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, tail

assert ansible_runner  # the package is what init_runner belongs to

_SETTINGS = {
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_HOST_KEY_CHECKING": "0",
    "ANSIBLE_FORKS": "16",
    "ANSIBLE_RETRY_FILES_ENABLED": "0",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_CACHE_PLUGIN": "memory",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    "ANSIBLE_LOCALHOST_WARNING": "0",
    "ANSIBLE_TIMEOUT": "60",
}


#: Seconds and times that Mitogen asks a silent node whether it lives; it would take five minutes
#: to find one dead.
_KEEPALIVE = {"mitogen_ssh_keepalive_interval": 15, "mitogen_ssh_keepalive_count": 4}


class Deployment:
    """Applies a playbook source to a running cluster; the results of run n go to ``deploy/n`` of
    the run."""

    def __init__(
        self,
        cluster: RunningCluster,
        source: PlaybookSource,
        run_dir: Path,
        journal: Journal,
        *,
        marks: Mapping[str, str] | None = None,
        scratch: Path | None = None,
        onto: Sequence[str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.source = source
        self.journal = journal
        self.folder = run_dir / "deploy"
        self.marks = dict(marks or {})
        #: Where Ansible and Mitogen put their temporary files and sockets: a short path that goes
        #: with the instance, since a killed Ansible removes nothing.
        self.scratch = scratch
        #: The parts that are on the cluster already, kept with the result.
        self.onto = list(onto) if onto is not None else None

    def apply(self, seconds: float, *, what: str = "deploying") -> DeployResult:
        """Run the playbook once. Raises DeployError naming host, role and task, or StepTimeout."""
        number = len(list(self.folder.glob("[0-9]*"))) + 1
        folder = self.folder / str(number)
        folder.mkdir(parents=True)
        result = DeployResult(
            playbook=self.source.playbook.name, source=self.source.name, onto=self.onto
        )
        label = f"{what} with {self.source.playbook.name}"
        try:
            with self.journal.step("deploy", label, detail=str(folder / "stdout.log")):
                self._run(folder, result, Deadline.after(seconds))
                self._judge(folder, result)
        finally:
            (folder / "result.json").write_text(result.as_json())
        return result

    def assert_idempotent(self, seconds: float) -> DeployResult:
        """Run the playbook once more. Raises DeployError naming the tasks that changed
        something."""
        result = self.apply(seconds, what="deploying again, to see that nothing changes,")
        lines = result.changes
        if lines:
            raise DeployError(
                f"The second run of {self.source.playbook.name} changed something in "
                f"{len(lines)} task{'s' if len(lines) > 1 else ''}.",
                detail="\n".join(lines),
                hint="make these tasks idempotent (creates:, changed_when:, a module)",
            )
        return result

    # -- one run ----------------------------------------------------------------------------

    def _run(self, folder: Path, result: DeployResult, deadline: Deadline) -> None:
        events: queue.Queue[dict[str, Any]] = queue.Queue()
        stop = threading.Event()
        runner = self._prepare(folder, events.put, stop.is_set)
        thread = threading.Thread(target=_quietly, args=(runner, events), daemon=True)
        reader = EventReader(result, self.source.playbook.parent)
        begin = time.monotonic()
        thread.start()
        try:
            while thread.is_alive() or not events.empty():
                if deadline.passed:
                    raise StepTimeout(
                        f"The playbook did not end within {deadline.seconds:.0f} s and was "
                        f"stopped; it was at: {_current(result)}.",
                        detail=tail(folder / "stdout.log"),
                        hint="raise --deepops-deploy-timeout, or read the log",
                    )
                with contextlib.suppress(queue.Empty):
                    self._take(events.get(timeout=0.25), reader)
        finally:
            stop.set()
            thread.join(timeout=30)
            result.seconds = round(time.monotonic() - begin, 3)
            result.status = str(runner.status)
            self._announce_last(result)
            _collect(runner, folder)

    def _prepare(
        self,
        folder: Path,
        handler: Callable[[dict[str, Any]], None],
        cancelled: Callable[[], bool],
    ) -> Any:
        private = folder / "private"
        private.mkdir(mode=0o700)
        ssh_args = f"-F {self.cluster.ssh_config}" if self.cluster.ssh_config else ""
        ours = {**_SETTINGS, **self.marks}
        # Our own Ansible, also when the virtual environment was not activated.
        ours["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        if ssh_args:
            ours["ANSIBLE_SSH_ARGS"] = ssh_args
        if self.scratch:
            self.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
            ours |= {"TMPDIR": str(self.scratch), "ANSIBLE_LOCAL_TEMP": str(self.scratch)}
        ours.update(_fast_strategy())
        # The ansible.cfg of whatever folder we stand in must not decide anything.
        ours["ANSIBLE_CONFIG"] = str(self.source.playbook.parent / "ansible.cfg")
        runner = init_runner(
            private_data_dir=str(private),
            playbook=str(self.source.playbook),
            inventory=str(self.cluster.inventory),
            envvars=ours,
            extravars={**_KEEPALIVE, **self.source.extra_vars},
            ident="run",
            quiet=True,
            event_handler=_hand_on(handler),
            cancel_callback=cancelled,
            finished_callback=None,
        )
        # ansible-runner hands on the caller's whole environment; only our own Ansible settings may
        # pass.
        environment = runner.config.env
        for key in [name for name in environment if name.startswith("ANSIBLE_")]:
            if key not in ours and os.environ.get(key) == environment[key]:
                del environment[key]
        return runner

    def _take(self, event: dict[str, Any], reader: EventReader) -> None:
        before = len(reader.result.tasks)
        reader.read(event, time.time())
        if len(reader.result.tasks) > before:
            self._announce_last(reader.result, skip_newest=True)

    def _announce_last(self, result: DeployResult, *, skip_newest: bool = False) -> None:
        """Journal the task that ended, once the next one begins or the run is over."""
        ended = result.tasks[:-1] if skip_newest else result.tasks
        if ended and ended[-1].hosts:
            _announce(self.journal, ended[-1])

    def _judge(self, folder: Path, result: DeployResult) -> None:
        failure = result.failure
        log = folder / "stdout.log"
        if failure and (result.status != "successful"):
            where = f"role '{failure.role}', task" if failure.role else "task"
            raise DeployError(
                f"Deploying failed on '{failure.host}' in {where} '{failure.task}': "
                f"{failure.message.splitlines()[0]}",
                detail=failure.message,
                hint=f"read {log}; then: deepops-virtual ssh {self.cluster.name} {failure.host}",
            )
        if result.status != "successful" or not result.finished:
            raise DeployError(
                f"Ansible ended as '{result.status}' without its closing statistics.",
                detail=tail(log),
                hint=f"read {log}",
            )
        if not any(task.hosts for task in result.tasks):
            raise DeployError(
                "Ansible ran and did nothing: no task reached any host.",
                detail=tail(log),
                hint=f"check the groups of {self.cluster.inventory}",
            )


def _fast_strategy() -> dict[str, str]:
    """Return the settings that keep one interpreter a node alive through the playbook, when
    Mitogen is installed.

    Starting Python for every task is what Ansible spends most of its time on where nodes are
    emulated.
    """
    spec = importlib.util.find_spec("ansible_mitogen")
    if spec is None or not spec.submodule_search_locations:
        return {}
    plugins = Path(spec.submodule_search_locations[0]) / "plugins" / "strategy"
    return {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}


def _announce(journal: Journal, task: TaskResult) -> None:
    changed = [host for host, status in task.hosts.items() if status == "changed"]
    journal.note(
        "deploy",
        task.task,
        status=task.status,
        seconds=task.seconds,
        detail=task.role or task.play,
        node=", ".join(changed) if len(changed) < len(task.hosts) else "",
    )


def _hand_on(handler: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], bool]:
    """Return the event handler for ansible-runner: it takes the event and has it kept on disk."""

    def take(event: dict[str, Any]) -> bool:
        handler(event)
        return True

    return take


def _quietly(runner: Any, events: queue.Queue[dict[str, Any]]) -> None:
    """Run in a thread; an exception of ansible-runner becomes its status."""
    try:
        runner.run()
    except (AnsibleRunnerException, OSError) as error:
        runner.status = f"broken: {error}"


def _current(result: DeployResult) -> str:
    return f"'{result.tasks[-1].task}'" if result.tasks else "its start"


def _collect(runner: Any, folder: Path) -> None:
    """Keep Ansible's output and events beside the result; throw the private folder away."""
    artifacts = Path(runner.config.artifact_dir)
    if (artifacts / "stdout").exists():
        shutil.copy(artifacts / "stdout", folder / "stdout.log")
    if (artifacts / "job_events").is_dir():
        shutil.move(str(artifacts / "job_events"), folder / "events")
    shutil.rmtree(folder / "private", ignore_errors=True)
