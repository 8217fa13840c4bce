"""Each step of a run is done once, and every process knows how it ended."""

import multiprocessing
import os
import shutil
import time

import pytest

from deepops_fixtures.errors import DeepopsError, ProvisionError, StageFailed, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.stages import Stages

_FORK = multiprocessing.get_context("fork")


@pytest.fixture
def stages(tmp_path):
    return Stages(tmp_path, Journal(tmp_path / "events.jsonl"))


@pytest.fixture
def others(tmp_path):
    """The same run in another process, as far as it knows nothing of its own."""
    return Stages(tmp_path, Journal(tmp_path / "events.jsonl"))


def fails(error):
    def work():
        raise error

    return work


def test_a_step_is_done_once_whoever_asks(stages, others):
    done = []
    stages.once("up", lambda: done.append("here"))
    others.once("up", lambda: done.append("there"))
    assert done == ["here"]
    assert others.failure_reason() == ""


def test_two_processes_do_it_once(stages, tmp_path):
    def work():
        with (tmp_path / "done").open("a") as log:
            log.write("x")
        time.sleep(0.2)

    workers = [_FORK.Process(target=stages.once, args=("up", work)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "done").read_text() == "x"


def test_the_first_gets_the_error_and_the_others_the_reason(stages, others):
    with pytest.raises(ProvisionError):
        stages.once("up", fails(ProvisionError("'vagrant up' ended with status 1.")))
    for asks in (stages, others):
        with pytest.raises(StageFailed, match="The cluster did not come up: 'vagrant up' ended"):
            asks.once("up", lambda: pytest.fail("it was done again"))
        assert asks.failure_reason() == (
            "The cluster did not come up: 'vagrant up' ended with status 1."
        )


def test_what_was_refused_is_known_as_such(stages, others):
    with pytest.raises(UsageProblem):
        stages.once("up", fails(UsageProblem("No room.")))
    assert others.failure().usage


def test_what_is_not_vital_does_not_break_the_cluster(stages, others):
    with pytest.raises(ProvisionError):
        stages.once("baseline", fails(ProvisionError("No room.")))
    assert (others.failure(), others.failure_reason()) == (None, "")


def test_a_process_that_dies_at_work_has_broken_the_cluster(stages, others):
    worker = _FORK.Process(target=stages.once, args=("deployed", lambda: os._exit(9)))
    worker.start()
    worker.join(20)
    assert others.failure_reason() == (
        f"The process {worker.pid} that worked on the cluster (stage 'deployed') died."
    )
    with pytest.raises(StageFailed, match="died"):
        others.once("deployed", lambda: None)


def test_a_step_that_is_going_on_is_no_failure(stages, others):
    stages.once("up", lambda: None)
    stages.write("deployed", "running")
    assert others.failure() is None


def test_a_step_may_be_done_anew_after_it_was_forgotten(stages):
    done = []
    for number in range(2):
        stages.once("baseline", lambda number=number: done.append(number))
        stages.forget("baseline")
    assert done == [0, 1]


def test_where_nothing_can_be_written_this_process_still_knows(stages, tmp_path):
    shutil.rmtree(tmp_path / "stages", ignore_errors=True)
    (tmp_path / "stages").write_text("a file where the folder should be")
    with pytest.raises(DeepopsError, match="did not come up: File exists") as caught:
        stages.once("up", lambda: None)
    assert "df -h" in caught.value.hint
    assert stages.failure_reason().startswith("The cluster did not come up: File exists")
