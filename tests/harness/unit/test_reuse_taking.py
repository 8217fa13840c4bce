"""When a checkpoint is taken for later runs, and that it fails nothing when none can be."""

import threading
import time
from pathlib import Path

import pytest

from deepops_fixtures import reuse
from deepops_fixtures.cluster import taking
from deepops_fixtures.errors import ProvisionError
from deepops_fixtures.proc import Deadline
from tests.harness.unit.runs import DEPLOYED, MACHINES, RUNNING, SLURM


@pytest.fixture
def taken(monkeypatch, keep):
    """The stages that were frozen; freezing itself needs machines. Nobody waits for the disks."""
    stages = []
    monkeypatch.setattr(reuse.os, "sync", lambda: None)
    before = set(threading.enumerate())

    def take(_store, name, _running, stage, inputs, parts):
        stages.append(stage)
        return keep(f"{name}-{stage}", f"{stage}.img", stage=stage, inputs=inputs, instance=name,
                    parts=list(parts))  # fmt: skip

    monkeypatch.setattr(taking, "take", take)
    yield stages
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


def test_one_is_taken_of_what_the_stage_was_made_from(this, taken):
    made = this.reuse().take(RUNNING, "deployed", DEPLOYED, SLURM)
    assert (made.inputs, taken) == (DEPLOYED, ["deployed"])
    # Its manifest is written again once all of it is on the disk: only the name stays the same.
    assert [item.id for item in this.reuse().plan(SLURM).candidates] == ["one-deployed"]


def test_of_what_was_edited_meanwhile_none_is_taken(this, taken):
    this.edit()
    assert this.reuse().take(RUNNING, "deployed", DEPLOYED, SLURM) is None
    assert taken == []
    assert this.said == [
        "none was taken, changed meanwhile: deploy playbooks: roles/munge/tasks/main.yml changed"
    ]


def test_one_to_go_back_to_is_taken_whatever_was_edited(this, taken):
    this.edit()
    assert this.reuse().take(RUNNING, "here", {}).stage == "here"


@pytest.mark.parametrize(
    "error",
    [ProvisionError("A guest could not be frozen."), OSError(28, "No space left")],
    ids=type,
)
def test_that_none_could_be_taken_is_told_and_fails_nothing(this, monkeypatch, error):
    def take(*_arguments):
        raise error

    monkeypatch.setattr(taking, "take", take)
    assert this.reuse().take(RUNNING, "up", MACHINES) is None
    assert this.said[-1] == f"none was taken: {error}"


def test_inputs_that_cannot_be_read_any_more_fail_nothing(this, taken, monkeypatch):
    at_the_end = this.reuse()
    monkeypatch.setattr(at_the_end, "_make_inputs", lambda _stage: Path("/nowhere").read_text())
    assert at_the_end.take(RUNNING, "up", MACHINES) is None
    assert this.said == ["none was taken: [Errno 2] No such file or directory: '/nowhere'"]


def test_what_goes_wrong_while_room_is_made_fails_nothing(this, taken, monkeypatch):
    def make_room(*_arguments, **_more):
        raise ProvisionError("libvirt could not do it: it has gone.")

    monkeypatch.setattr(this.store, "make_room", make_room)
    assert this.reuse().take(RUNNING, "up", MACHINES).id == "one-up"
    assert "libvirt could not do it: it has gone." in this.said[-1]


def test_a_new_one_makes_older_ones_give_way_and_stays_itself(this, taken, keep):
    keep("older", "older.img", instance="older", created=1000.0)
    made = this.reuse(checkpoint_budget=0).take(RUNNING, "up", MACHINES)
    assert [item.id for item in this.store.all()] == [made.id]
    assert "'older' gave way to newer ones" in this.said


@pytest.fixture
def durable(this):
    """Return a function that waits until a checkpoint is known to be on the disk."""

    def seen(checkpoint: str) -> bool:
        deadline = Deadline.after(10)
        while not this.store.get(checkpoint).durable and not deadline.passed:
            time.sleep(0.01)
        return this.store.get(checkpoint).durable

    return seen


def test_a_new_one_is_durable_once_the_host_has_written_everything(
    this, taken, monkeypatch, durable
):
    written = threading.Event()
    monkeypatch.setattr(reuse.os, "sync", lambda: written.wait(10))
    made = this.reuse().take(RUNNING, "up", MACHINES)
    assert not this.store.get(made.id).durable
    written.set()
    assert durable(made.id)


def test_one_that_is_dropped_before_it_is_durable_stays_dropped(
    this, taken, monkeypatch, connection
):
    written = threading.Event()
    monkeypatch.setattr(reuse.os, "sync", lambda: written.wait(10))
    before = set(threading.enumerate())
    made = this.reuse().take(RUNNING, "up", MACHINES)
    connection.pool.volumes["up.img"].stuck = True
    assert this.store.drop(made) != []
    written.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert this.store.all() == []
