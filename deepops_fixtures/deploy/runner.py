"""Running a playbook with ansible-runner: a fresh folder a run, a clean environment, a deadline,
live events."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible_runner
from ansible_runner.exceptions import AnsibleRunnerException
from ansible_runner.interface import init_runner

from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.deploy.calls import Call, calls_of
from deepops_fixtures.deploy.pulse import Pulse
from deepops_fixtures.deploy.results import (
    DeployResult,
    EventReader,
    TaskFailure,
    TaskResult,
    joined,
)
from deepops_fixtures.deploy.sources import PlaybookSource
from deepops_fixtures.errors import DeployError, StepTimeout
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, tail

assert ansible_runner  # the package is what init_runner belongs to


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
        """Run the playbooks once, one after the other. Raises DeployError naming host, role and
        task, or StepTimeout."""
        deadline = Deadline.after(seconds)
        calls = calls_of(self.source, self.cluster, self.folder.parent, self.scratch)
        results = [self._apply(call, deadline, what) for call in calls]
        return joined(results)

    def _apply(self, call: Call, deadline: Deadline, what: str) -> DeployResult:
        number = len(list(self.folder.glob("[0-9]*"))) + 1
        folder = self.folder / str(number)
        folder.mkdir(parents=True)
        result = DeployResult(playbook=call.name, source=self.source.name, onto=self.onto)
        label = f"{what} with {call.name}"
        try:
            with self.journal.step("deploy", label, detail=str(folder / "stdout.log")):
                self._run(call, folder, result, deadline)
                self._judge(call, folder, result)
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
                f"The second run of {result.playbook} changed something in "
                f"{len(lines)} task{'s' if len(lines) > 1 else ''}.",
                detail="\n".join(lines),
                hint="make these tasks idempotent (creates:, changed_when:, a module)",
            )
        return result

    # -- one run ----------------------------------------------------------------------------

    def _run(self, call: Call, folder: Path, result: DeployResult, deadline: Deadline) -> None:
        events: queue.Queue[dict[str, Any]] = queue.Queue()
        stop = threading.Event()
        runner = self._prepare(call, folder, events.put, stop.is_set)
        thread = threading.Thread(target=_quietly, args=(runner, events), daemon=True)
        reader = EventReader(result, call.folder or call.playbook.parent)
        begin = time.monotonic()
        pulse = Pulse(self.journal, reader)
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
                pulse.beat(time.monotonic())
        finally:
            stop.set()
            thread.join(timeout=30)
            result.seconds = round(time.monotonic() - begin, 3)
            result.status = str(runner.status)
            self._announce_last(result)
            _collect(runner, folder)

    def _prepare(
        self,
        call: Call,
        folder: Path,
        handler: Callable[[dict[str, Any]], None],
        cancelled: Callable[[], bool],
    ) -> Any:
        private = folder / "private"
        private.mkdir(mode=0o700)
        ours = {**call.environment, **self.marks}
        runner = init_runner(
            private_data_dir=str(private),
            project_dir=str(call.folder or private / "project"),
            fact_cache=str(call.facts) if call.facts else None,
            playbook=str(call.playbook),
            inventory=str(call.inventory),
            envvars=ours,
            extravars=dict(call.variables),
            tags=call.tags or None,
            limit=call.limit or None,
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

    def _judge(self, call: Call, folder: Path, result: DeployResult) -> None:
        failure = result.failure
        log = folder / "stdout.log"
        if failure and (result.status != "successful"):
            where = f"role '{failure.role}', task" if failure.role else "task"
            lost = "lost" if failure.unreachable else "failed on"
            raise DeployError(
                f"Deploying {lost} {failure.hosts} in {where} '{failure.task}'{_of(failure)}: "
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
                f"Ansible ran {call.name} and did nothing: no task reached any host.",
                detail=tail(log),
                hint=f"check the groups of {call.inventory}"
                + (f", and the limit '{call.limit}'" if call.limit else "")
                + (f", and the tags '{call.tags}'" if call.tags else ""),
            )
        empty = [play for play in result.without_hosts if play not in call.may_be_empty]
        if empty and call.every_play_has_hosts:
            plays = ", ".join(f"'{play}'" for play in empty)
            raise DeployError(
                f"No host was in {len(empty)} play{'s' if len(empty) > 1 else ''} of {call.name}: "
                f"{plays}.",
                detail=tail(log),
                hint=f"check the groups of {call.inventory}; a variable may name them: "
                "--deepops-extra-vars hostlist=GROUP; or say who is meant: --deepops-limit",
            )


def _of(failure: TaskFailure) -> str:
    return f" of play '{failure.play}'" if failure.play else ""


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
