"""What Ansible's events say of a run."""

import json
from pathlib import Path

import pytest

from deepops_fixtures.deploy.results import DeployResult, EventReader


def read(*events: tuple[str, dict]) -> DeployResult:
    result = DeployResult(playbook="p.yml", source="distro")
    reader = EventReader(result)
    for second, (kind, data) in enumerate(events):
        reader.read({"event": kind, "event_data": data}, 100.0 + second)
    return result


def start(uuid: str, task: str, role: str = "munge") -> tuple[str, dict]:
    return "playbook_on_task_start", {"task_uuid": uuid, "task": task, "role": role, "play": "P"}


def ok(uuid: str, host: str, changed: bool = False) -> tuple[str, dict]:
    return "runner_on_ok", {"task_uuid": uuid, "host": host, "res": {"changed": changed}}


def test_a_task_takes_until_its_last_host_and_is_as_bad_as_its_worst():
    result = read(start("1", "Run munge"), ok("1", "a"), ok("1", "b", True),
                  ("playbook_on_stats", {}))  # fmt: skip
    task = result.tasks[0]
    assert (task.seconds, task.status, task.hosts) == (2.0, "changed", {"a": "ok", "b": "changed"})
    assert result.finished
    assert result.changed == {"munge : Run munge": ["b"]}
    assert result.roles == {"munge": 2.0}


def test_the_first_failure_is_kept_with_its_output():
    failed = {"task_uuid": "1", "host": "b",
              "res": {"msg": "non-zero return code", "stderr": "no such unit"}}  # fmt: skip
    later = {"task_uuid": "1", "host": "a", "res": {"msg": "other"}}
    result = read(start("1", "Run"), ("runner_on_failed", failed), ("runner_on_failed", later))
    assert result.failure is not None
    assert (result.failure.host, result.failure.role) == ("b", "munge")
    assert "no such unit" in result.failure.message
    assert result.failure.hosts == "'b' (and on a)"
    assert not result.finished


def test_an_ignored_failure_is_none():
    data = {"task_uuid": "1", "host": "a", "ignore_errors": True, "res": {"msg": "x"}}
    result = read(start("1", "Look"), ("runner_on_failed", data))
    assert result.failure is None


def test_a_failed_item_of_a_loop_is_named():
    data = {
        "task_uuid": "1",
        "host": "a",
        "res": {
            "msg": "One or more items failed",
            "results": [
                {"item": "/home", "failed": False},
                {"item": "/sw", "failed": True, "msg": "no space left"},
            ],
        },
    }
    result = read(start("1", "Make"), ("runner_on_failed", data))
    assert result.failure is not None
    assert "/sw: no space left" in result.failure.message


def test_an_unreachable_host_is_a_failure():
    data = {"task_uuid": "1", "host": "a", "res": {"msg": "Connection refused"}}
    result = read(start("1", "Run"), ("runner_on_unreachable", data))
    assert result.failure is not None
    assert result.tasks[0].status == "unreachable"


def test_the_written_result_has_the_derived_values():
    data = json.loads(read(start("1", "Run"), ok("1", "a", True)).as_json())
    assert data["changed"] == {"munge : Run": ["a"]}
    assert data["roles"] == {"munge": 1.0}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/deepops/playbooks/roles/nfs/tasks/main.yml:7", "playbooks/roles/nfs/tasks/main.yml:7"),
        ("/deepops/playbooks/../roles/nfs/tasks/main.yml:7", "roles/nfs/tasks/main.yml:7"),
        ("/elsewhere/roles/nfs/tasks/main.yml:7", "/elsewhere/roles/nfs/tasks/main.yml:7"),
        ("/deepops-2/site.yml:3", "/deepops-2/site.yml:3"),
        ("", ""),
    ],
)
def test_a_task_knows_its_file_and_line_from_the_playbooks_folder(path, told):
    result = DeployResult(playbook="p.yml", source="distro")
    reader = EventReader(result, Path("/deepops"))
    kind, data = start("1", "Mount")
    reader.read({"event": kind, "event_data": {**data, "task_path": path}}, 1.0)
    assert result.tasks[0].where == told


def test_what_changed_is_told_with_file_and_line_each_place_once():
    result = DeployResult(playbook="p.yml", source="distro")
    reader = EventReader(result, Path("/deepops"))
    for uuid, line, host in (("1", 7, "a"), ("2", 7, "b"), ("3", 9, "a"), ("4", 7, "b")):
        kind, data = start(uuid, "Mount", "nfs")
        data["task_path"] = f"/deepops/roles/nfs/tasks/main.yml:{line}"
        for event in ((kind, data), ok(uuid, host, changed=True)):
            reader.read({"event": event[0], "event_data": event[1]}, 1.0)
    reader.read({"event": start("5", "Look")[0], "event_data": start("5", "Look")[1]}, 2.0)
    reader.read({"event": ok("5", "a")[0], "event_data": ok("5", "a")[1]}, 2.0)
    assert result.changes == [
        "roles/nfs/tasks/main.yml:7: nfs : Mount: a, b",
        "roles/nfs/tasks/main.yml:9: nfs : Mount: a",
    ]
