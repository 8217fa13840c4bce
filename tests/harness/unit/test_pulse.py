"""What a run says while one task takes long."""

from pathlib import Path

from deepops_fixtures.deploy.pulse import Pulse
from deepops_fixtures.deploy.results import DeployResult, EventReader
from deepops_fixtures.journal import Journal


def event(kind: str, uuid: str, **data: str) -> dict:
    return {"event": kind, "event_data": {"task_uuid": uuid, **data}}


def said(journal: Journal) -> list[tuple[str, str, float | None]]:
    return [(e.what, e.node, e.seconds) for e in journal.events() if e.kind == "running"]


def test_a_long_task_is_told_ever_more_seldom_with_the_hosts_that_are_at_it(tmp_path: Path):
    reader = EventReader(DeployResult(playbook="p.yml", source="distro"))
    journal = Journal(tmp_path / "events.jsonl")
    pulse = Pulse(journal, reader)
    pulse.beat(0.0)
    reader.read(event("playbook_on_task_start", "1", task="Slurm", play="all"), 0.0)
    for host in ("a", "b", "c"):
        reader.read(event("runner_on_start", "1", host=host), 0.0)
    for second in range(61):
        pulse.beat(float(second))
    reader.read(event("runner_on_ok", "1", host="a"), 62.0)
    for second in range(61, 130):
        pulse.beat(float(second))
    assert said(journal) == [
        ("Slurm", "a, b, c", 30.0),
        ("Slurm", "a, b, c", 60.0),
        ("Slurm", "b, c", 120.0),
    ]


def test_the_next_task_begins_anew(tmp_path: Path):
    reader = EventReader(DeployResult(playbook="p.yml", source="distro"))
    journal = Journal(tmp_path / "events.jsonl")
    pulse = Pulse(journal, reader)
    for number in ("1", "2", "3"):
        reader.read(event("playbook_on_task_start", number, task=number, play="all"), 0.0)
        pulse.beat(int(number) * 29.0)
        pulse.beat(int(number) * 29.0 + 28)
    assert said(journal) == []
