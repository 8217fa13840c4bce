"""Who has the cluster at one moment, and when it is put back. The workers are processes of their
own: the lock is between processes."""

import multiprocessing
import signal
import time

import pytest

from deepops_fixtures.errors import ProvisionError
from deepops_fixtures.isolation import Isolation
from deepops_fixtures.journal import Journal

PATIENCE = 20
_FORK = multiprocessing.get_context("fork")


class Rehearsal:
    """A cluster of which only this counts: how often it was put back, by whomever."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.journal = Journal(run_dir / "events.jsonl")
        self.fails = self.no_baseline = self.no_cluster = ""

    def ensure_up(self):
        if self.no_cluster:
            raise ProvisionError(self.no_cluster)

    def ensure_baseline(self):
        if self.no_baseline:
            raise ProvisionError(self.no_baseline)

    def go_back(self):
        if self.fails:
            raise ProvisionError(self.fails)
        with (self.run_dir / "put-back").open("a") as log:
            log.write("x")

    @property
    def times(self) -> int:
        path = self.run_dir / "put-back"
        return len(path.read_text()) if path.exists() else 0


class Item:
    """A test, as far as its marker and its fixtures count."""

    def __init__(self, *fixtures, destructive=False):
        self.fixturenames = fixtures
        self._destructive = destructive

    def get_closest_marker(self, name):
        return self if name == "destructive" and self._destructive else None


READS, PRISTINE = Item("deepops"), Item("deepops", "pristine_cluster")
BREAKS = Item("deepops", destructive=True)


@pytest.fixture
def rehearsal(tmp_path):
    return Rehearsal(tmp_path)


def run(rehearsal, item, body=lambda: None):
    """Run a test, as the plugin does."""
    isolation = Isolation(rehearsal)
    with isolation.hold(item):
        isolation.before(item)
        body()
        isolation.after()


def test_tests_that_read_do_not_have_the_cluster_put_back(rehearsal):
    for _ in range(3):
        run(rehearsal, READS)
    assert rehearsal.times == 0


def test_after_one_that_breaks_something_the_next_puts_back_and_the_one_after_it_does_not(
    rehearsal,
):
    run(rehearsal, BREAKS)
    assert rehearsal.times == 0
    run(rehearsal, READS)
    run(rehearsal, READS)
    assert rehearsal.times == 1


def test_one_that_breaks_something_does_not_see_what_another_broke(rehearsal):
    run(rehearsal, READS)
    run(rehearsal, BREAKS)
    run(rehearsal, BREAKS)
    assert rehearsal.times == 1
    assert Isolation(rehearsal).broken


def test_a_pristine_cluster_that_nobody_has_touched_is_not_put_back(rehearsal):
    run(rehearsal, PRISTINE)
    assert rehearsal.times == 0


@pytest.mark.parametrize("earlier", [READS, PRISTINE, BREAKS], ids=["read", "pristine", "broken"])
def test_a_pristine_cluster_that_a_test_has_touched_is_put_back_once(rehearsal, earlier):
    run(rehearsal, earlier)
    run(rehearsal, PRISTINE)
    assert rehearsal.times == 1


def test_where_it_cannot_be_put_back_it_stays_broken_and_no_test_runs(rehearsal):
    run(rehearsal, BREAKS)
    rehearsal.fails = "A guest could not be restored."
    for item in (READS, PRISTINE, BREAKS):
        with pytest.raises(ProvisionError):
            run(rehearsal, item, lambda: pytest.fail("it ran on a broken cluster"))
    assert Isolation(rehearsal).broken


def test_where_there_is_nothing_to_go_back_to_tests_run_all_the_same_and_it_is_told(rehearsal):
    rehearsal.no_baseline = "The cluster cannot be put back: no checkpoint could be taken."
    run(rehearsal, BREAKS)
    run(rehearsal, READS)
    run(rehearsal, READS)
    assert rehearsal.times == 0
    (event,) = rehearsal.journal.events()
    assert (event.phase, event.status, event.what) == ("revert", "failed", rehearsal.no_baseline)


def test_that_there_is_no_cluster_is_not_passed_over(rehearsal):
    run(rehearsal, BREAKS)
    rehearsal.no_cluster = rehearsal.no_baseline = "'vagrant up' ended with status 1."
    with pytest.raises(ProvisionError, match="'vagrant up' ended with status 1"):
        run(rehearsal, READS, lambda: pytest.fail("it ran without a cluster"))


def test_a_pristine_cluster_is_not_to_be_had_where_there_is_nothing_to_go_back_to(rehearsal):
    rehearsal.no_baseline = "The cluster cannot be put back: no checkpoint could be taken."
    for earlier in (BREAKS, READS):
        run(rehearsal, earlier)
        with pytest.raises(ProvisionError, match="no checkpoint could be taken"):
            run(rehearsal, PRISTINE, lambda: pytest.fail("it ran on a touched cluster"))


def test_a_cluster_that_is_kept_is_put_back_at_the_end_or_the_reason_told(rehearsal):
    isolation = Isolation(rehearsal)
    assert isolation.at_the_end() == ""
    assert rehearsal.times == 0
    run(rehearsal, BREAKS)
    rehearsal.fails = "A guest could not be restored."
    assert isolation.at_the_end() == (
        "The cluster was not put back after the destructive tests: A guest could not be restored."
    )
    rehearsal.fails = ""
    assert isolation.at_the_end() == ""
    assert rehearsal.times == 1


class Worker:
    """Another process that runs a test until it is told to leave, over a pipe: an event of
    multiprocessing waits for ever for a process that died while it waited."""

    def __init__(self, rehearsal, item):
        self._begun = False
        self._ours, self._its = _FORK.Pipe()
        self._process = _FORK.Process(target=run, args=(rehearsal, item, self._body))
        self._process.start()

    def _body(self):
        self._its.send("I have it")
        assert self._its.poll(PATIENCE)

    def has_it(self, seconds=PATIENCE) -> bool:
        if not self._begun and self._ours.poll(seconds):
            self._begun = bool(self._ours.recv())
        return self._begun

    def die(self):
        self._process.kill()
        self._process.join(PATIENCE)

    def let_go(self):
        self._ours.send("leave")

    def leave(self):
        self.let_go()
        self._process.join(PATIENCE)
        assert self._process.exitcode in (0, -signal.SIGKILL)


@pytest.fixture
def start(rehearsal):
    """Return a function that starts a test in a process of its own; all have ended afterwards."""
    started = []

    def start(item):
        started.append(Worker(rehearsal, item))
        return started[-1]

    yield start
    for worker in started:
        worker.let_go()
    for worker in started:
        worker.leave()


def test_an_error_in_a_test_lets_the_cluster_go(rehearsal, start):
    for item in (READS, BREAKS):
        with pytest.raises(ZeroDivisionError):
            run(rehearsal, item, lambda: 1 / 0)
        worker = start(BREAKS)
        assert worker.has_it()
        worker.leave()


def test_a_worker_that_dies_lets_the_cluster_go_and_what_it_was_breaking_is_put_back(
    rehearsal, start
):
    worker = start(BREAKS)
    assert worker.has_it()
    worker.die()
    reader = start(READS)
    assert reader.has_it()
    assert rehearsal.times == 1


def test_two_that_read_have_the_cluster_together(start):
    one, other = start(READS), start(READS)
    assert one.has_it()
    assert other.has_it()
    one.leave()
    other.leave()


@pytest.mark.parametrize("item", [BREAKS, PRISTINE], ids=["breaks", "pristine"])
def test_one_that_has_to_be_alone_waits_for_those_that_read_and_they_for_it(start, item):
    reader = start(READS)
    assert reader.has_it()
    alone = start(item)
    assert not alone.has_it(0.5)
    reader.leave()
    assert alone.has_it()
    reader = start(READS)
    assert not reader.has_it(0.5)
    alone.leave()
    assert reader.has_it()


def test_of_many_that_find_it_broken_one_puts_it_back_alone(rehearsal, start):
    run(rehearsal, BREAKS)
    put_back, going_back = rehearsal.go_back, _FORK.Event()

    def slowly():
        going_back.set()
        time.sleep(0.5)
        put_back()

    rehearsal.go_back = slowly
    workers = [start(READS) for _ in range(3)]
    assert going_back.wait(PATIENCE)
    assert not any(worker.has_it(0.05) for worker in workers)
    for worker in workers:
        worker.let_go()
    assert all(worker.has_it() for worker in workers)
    assert rehearsal.times == 1
