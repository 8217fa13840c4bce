"""What one run of a playbook did, read from Ansible's events and never from its standard
output."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

HostStatus = Literal["ok", "changed", "failed", "skipped", "unreachable"]


class TaskResult(BaseModel):
    """One task of one play: how long it took in all (seconds) and how it ended on each host."""

    play: str
    role: str
    task: str
    seconds: float = 0.0
    hosts: dict[str, HostStatus] = Field(default_factory=dict)
    #: File and line, from the playbooks' folder where it is below it: roles/nfs/tasks/main.yml:7.
    where: str = ""

    @property
    def label(self) -> str:
        """The task as Ansible names it: 'role : task'."""
        return f"{self.role} : {self.task}" if self.role else self.task

    def hosts_with(self, status: HostStatus) -> list[str]:
        """Names of the hosts on which it ended so."""
        return [host for host, found in self.hosts.items() if found == status]

    @property
    def status(self) -> HostStatus:
        """The worst of the hosts."""
        order: tuple[HostStatus, ...] = ("unreachable", "failed", "changed", "ok")
        return next((status for status in order if status in self.hosts.values()), "skipped")


class TaskFailure(BaseModel):
    """The first failure of a run."""

    host: str
    role: str
    task: str
    message: str
    play: str = ""
    #: Whether the node did not answer; it is of no more use for the rest of the run.
    unreachable: bool = False
    #: Where else the same task failed: one node, or all of them, is half of the diagnosis.
    also: list[str] = Field(default_factory=list)

    @property
    def hosts(self) -> str:
        """The nodes in words."""
        others = f" (and on {', '.join(self.also)})" if self.also else ""
        return f"'{self.host}'{others}"


class DeployResult(BaseModel):
    """One run of a playbook."""

    playbook: str
    source: str
    status: str = "running"
    seconds: float = 0.0
    tasks: list[TaskResult] = Field(default_factory=list)
    failure: TaskFailure | None = None
    #: Names of the plays that no host was in; Ansible skips these, and says nothing more.
    without_hosts: list[str] = Field(default_factory=list)
    #: Whether Ansible wrote its closing statistics; without them a run counts as failed.
    finished: bool = False
    #: The parts of DeepOps that were on the cluster before; None where nobody said. Two runs of a
    #: playbook are worth comparing only when they had the same to do.
    onto: list[str] | None = None

    @property
    def roles(self) -> dict[str, float]:
        """Seconds by role, in the order of their first task; tasks outside roles count for their
        play."""
        sums: dict[str, float] = {}
        for task in self.tasks:
            key = task.role or task.play
            sums[key] = round(sums.get(key, 0.0) + task.seconds, 3)
        return sums

    @property
    def changed(self) -> dict[str, list[str]]:
        """Names of the tasks that changed something, each with its hosts."""
        found: dict[str, list[str]] = {}
        for task in self._with_changes():
            found.setdefault(task.label, []).extend(task.hosts_with("changed"))
        return found

    @property
    def changes(self) -> list[str]:
        """The tasks that changed something, with file and line where known, and hosts: a line
        each."""
        found: dict[str, list[str]] = {}
        for task in self._with_changes():
            label = f"{task.where}: {task.label}" if task.where else task.label
            hosts = found.setdefault(label, [])
            hosts += [host for host in task.hosts_with("changed") if host not in hosts]
        return [f"{label}: {', '.join(sorted(hosts))}" for label, hosts in found.items()]

    def _with_changes(self) -> Iterator[TaskResult]:
        return (task for task in self.tasks if task.hosts_with("changed"))

    def as_json(self) -> str:
        """Return everything, derived values included."""
        data = self.model_dump()
        data["roles"], data["changed"] = self.roles, self.changed
        return json.dumps(data, indent=1)


def joined(results: Sequence[DeployResult]) -> DeployResult:
    """Return several runs as one, in their order."""
    if len(results) == 1:
        return results[0]
    return DeployResult(
        playbook=", ".join(result.playbook for result in results),
        source=results[0].source,
        status=results[-1].status,
        seconds=round(sum(result.seconds for result in results), 3),
        tasks=[task for result in results for task in result.tasks],
        failure=next((result.failure for result in results if result.failure), None),
        without_hosts=[play for result in results for play in result.without_hosts],
        finished=all(result.finished for result in results),
        onto=results[0].onto,
    )


class EventReader:
    """Builds a DeployResult from Ansible's events, one at a time, in their order; files are told
    from folder ``root``."""

    def __init__(self, result: DeployResult, root: Path | None = None) -> None:
        self.result = result
        self._root = root
        self._by_uuid: dict[str, TaskResult] = {}
        self._begin: dict[str, float] = {}
        self._failed = ""
        self._play = ""
        #: The hosts that are at the newest task.
        self.busy: set[str] = set()

    def read(self, event: dict[str, Any], now: float) -> TaskResult | None:
        """Take an event in; return the task that just ended on its last host so far, if one
        did."""
        kind = event.get("event", "")
        data = event.get("event_data", {})
        uuid = str(data.get("task_uuid", ""))
        if kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            task = TaskResult(
                play=str(data.get("play", "")),
                role=str(data.get("role", "")),
                task=str(data.get("task", "")),
                where=_below(str(data.get("task_path", "")), self._root),
            )
            self.result.tasks.append(task)
            self._by_uuid[uuid], self._begin[uuid] = task, now
            self.busy = set()
            return None
        if kind == "playbook_on_play_start":
            self._play = str(data.get("name") or data.get("play") or data.get("pattern") or "")
            return None
        if kind == "playbook_on_no_hosts_matched":
            self.result.without_hosts.append(self._play)
            return None
        if kind == "playbook_on_stats":
            self.result.finished = True
            return None
        if not kind.startswith("runner_on_") or uuid not in self._by_uuid:
            return None
        task = self._by_uuid[uuid]
        host = str(data.get("host", ""))
        if kind == "runner_on_start":
            self.busy.add(host)
        status = _status(kind, data)
        if status is None:
            return None
        self.busy.discard(host)
        task.hosts[host] = status
        task.seconds = round(now - self._begin[uuid], 3)
        if status in ("failed", "unreachable") and self.result.failure is None:
            self.result.failure = TaskFailure(
                host=host,
                role=task.role,
                task=task.task,
                message=_message(data.get("res", {})),
                play=task.play,
                unreachable=status == "unreachable",
            )
            self._failed = uuid
        elif status in ("failed", "unreachable") and uuid == self._failed:
            assert self.result.failure
            self.result.failure.also.append(host)
        return task


def _below(path: str, root: Path | None) -> str:
    """Return a 'file:line' of Ansible (task_path of its events) from a folder, whole where it is
    not below it."""
    file, _, line = path.rpartition(":")
    # An included role may be named by a path with '..' in it.
    file = os.path.normpath(file) if file else ""
    if root and file and Path(file).is_relative_to(root):
        file = str(Path(file).relative_to(root))
    return f"{file}:{line}" if file else ""


def _status(kind: str, data: dict[str, Any]) -> HostStatus | None:
    if kind == "runner_on_ok":
        return "changed" if data.get("res", {}).get("changed") else "ok"
    if kind == "runner_on_failed":
        return "ok" if data.get("ignore_errors") else "failed"
    if kind == "runner_on_unreachable":
        return "unreachable"
    return "skipped" if kind == "runner_on_skipped" else None


def _message(result: dict[str, Any]) -> str:
    """Return what a failed task said: its message, and the end of its output."""
    parts = [str(result.get("msg", "")).strip()]
    for item in result.get("results", []) or []:
        if isinstance(item, dict) and item.get("failed"):
            parts.append(f"{item.get('item')}: {item.get('msg', '')}")
    for key in ("stderr", "stdout", "module_stderr"):
        text = str(result.get(key, "") or "").strip()
        if text and text not in parts[0]:
            parts.append(f"{key}: " + "\n".join(text.splitlines()[-15:]))
    return "\n".join(part for part in parts if part) or "no message"
