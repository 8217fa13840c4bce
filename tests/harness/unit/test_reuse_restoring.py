"""What happens to the checkpoints that a run tries to start from."""

import ipaddress

import pytest

from deepops_fixtures.cluster import hypervisor, restoring, teardown
from deepops_fixtures.cluster.ledger import Owner
from deepops_fixtures.errors import LeakError, ProvisionError, UsageProblem
from tests.harness.unit.runs import MACHINES, RUNNING, SLURM


class Restoring:
    """Restoring without machines: what was tried, what of it fails, what was destroyed."""

    def __init__(self, book, ledger):
        self.tried, self.destroyed, self.fails = [], [], {}
        self._book, self._ledger = book, ledger

    def restore(self, _store, manifest, run_dir, _journal, *, owner, wait, kept, lending):
        self.tried.append(manifest.id)
        error = self.fails.get(manifest.id)
        if not error:
            return RUNNING
        if not isinstance(error, restoring.Unavailable | UsageProblem):
            # It had begun.
            self._book.write(self._ledger(manifest.instance))
            (run_dir / "instance").write_text(manifest.instance)
        raise error

    def destroy(self, name, book, _journal):
        self.destroyed.append(name)
        book.forget(name)


@pytest.fixture
def restored(monkeypatch, book, ledger):
    made = Restoring(book, ledger)
    monkeypatch.setattr(restoring, "restore", made.restore)
    monkeypatch.setattr(teardown, "destroy", made.destroy)
    return made


def test_the_best_one_is_restored_and_told(this, both, restored):
    assert this.reuse().restore(SLURM, kept=False) == (RUNNING, both[1])
    assert restored.tried == ["one-deployed"]
    assert this.said[0].startswith("starting from checkpoint 'one-deployed' (deployed: slurm, ")


def test_a_flawed_one_is_set_aside_and_the_next_taken(this, both, restored, connection):
    connection.pool.volumes["2.img"].modified = "later"
    assert this.reuse().restore(SLURM, kept=False) == (RUNNING, both[0])
    assert restored.tried == ["one-up"]
    assert [item.id for item in this.store.all()] == ["one-up"]
    why = "volume '2.img' was changed after it had been taken"
    assert f"checkpoint 'one-deployed' was set aside: {why}" in this.said


def test_what_a_killed_run_left_in_its_place_is_taken_down_first(
    this, both, restored, book, ledger, ended
):
    book.write(ledger("one", owner=ended))
    assert this.reuse().restore(SLURM, kept=False) == (RUNNING, both[1])
    assert (restored.destroyed, restored.tried) == (["one"], ["one-deployed"])
    assert this.said[0] == "a run that was killed left 'one'"


def test_what_a_killed_run_left_but_somebody_keeps_stays(
    this, both, restored, book, ledger, ended
):
    book.write(ledger("one", owner=ended, kept=True, state="up"))
    assert this.reuse().restore(SLURM, kept=False) is None
    assert (restored.destroyed, restored.tried) == ([], [])


@pytest.mark.parametrize("what", ["instance", "domain", "subnet"])
def test_one_whose_name_or_subnet_is_taken_is_passed_over_and_stays(
    this, keep, restored, book, ledger, connection, monkeypatch, what
):
    for number, name in enumerate(("old", "new"), 1):
        keep(
            name, f"{name}.img", inputs=MACHINES, created=1000.0 * number, instance=name,
            domains=[f"deepops-{name}_virtual-login"], subnets=[f"10.86.{number}.0/24"],
        )  # fmt: skip
    if what == "instance":
        book.write(ledger("new"))
        said = "it is in use by cluster 'new' (process "
    elif what == "domain":
        connection.add_domain("deepops-new_virtual-login")
        said = "libvirt has 'deepops-new_virtual-login', which no ledger names"
    else:
        route = ipaddress.IPv4Network("10.86.2.128/25")
        monkeypatch.setattr(hypervisor, "subnets_in_use", lambda: [route])
        said = "its subnet 10.86.2.0/24 is in use on this host (10.86.2.128/25)"
    _, manifest = this.reuse().restore((), kept=False)
    assert (manifest.id, restored.tried) == ("old", ["old"])
    assert [item.id for item in this.store.all()] == ["old", "new"]
    assert this.said[0].startswith(f"checkpoint 'new' is not free: {said}")


@pytest.mark.parametrize(
    "error",
    [ProvisionError("A guest could not be restored: it is broken."),
     FileNotFoundError(2, "No such file or directory", "instance")],
    ids=type,
)  # fmt: skip
def test_one_that_cannot_be_restored_leaves_nothing_is_set_aside_and_the_next_tried(
    this, both, restored, book, error
):
    restored.fails["one-deployed"] = error
    assert this.reuse().restore(SLURM, kept=False) == (RUNNING, both[0])
    assert restored.tried == ["one-deployed", "one-up"]
    assert restored.destroyed == ["one"]
    assert book.all() == []
    assert not (this.run_dir / "instance").exists()
    assert [item.id for item in this.store.all()] == ["one-up"]
    assert any(f"'one-deployed' was set aside: {error}" in text for text in this.said)


@pytest.mark.parametrize(
    "error", [restoring.Unavailable("It is taken."), UsageProblem("No room.")]
)
def test_one_that_somebody_was_quicker_with_or_that_has_no_room_is_no_fault_of_its_own(
    this, both, restored, error
):
    restored.fails["one-deployed"] = error
    assert this.reuse().restore(SLURM, kept=False) == (RUNNING, both[0])
    assert restored.destroyed == []
    assert len(this.store.all()) == 2
    assert error.message in this.said


def test_what_a_failed_restore_leaves_behind_ends_the_run(this, both, restored, monkeypatch):
    def destroy(*_arguments):
        raise LeakError("Cluster 'one' left something behind.")

    monkeypatch.setattr(teardown, "destroy", destroy)
    restored.fails["one-deployed"] = ProvisionError("It is broken.")
    with pytest.raises(LeakError):
        this.reuse().restore(SLURM, kept=False)
    assert restored.tried == ["one-deployed"]


def test_without_any_nothing_is_restored_and_the_reasons_are_told(this, restored, connection):
    assert this.reuse().restore((), kept=False) is None
    assert this.said == ["no checkpoint: none of stage 'up' was taken of this cluster yet"]


def test_what_somebody_else_has_taken_down_and_made_anew_is_left_alone(
    this, restored, book, ledger, ended
):
    left = ledger("one", owner=ended)
    book.write(left)
    teardown.destroy_left(left, book, this.journal)
    assert restored.destroyed == ["one"]
    book.write(ledger("one", created=left.created + 5))
    teardown.destroy_left(left, book, this.journal)
    assert restored.destroyed == ["one"]


@pytest.mark.parametrize("airgap", [True, False])
def test_what_comes_back_has_a_way_out_or_none_as_it_had_before(
    this, keep, connection, monkeypatch, airgap
):
    monkeypatch.setattr(restoring.capacity, "reserve", lambda *given: given[-1]())
    running = RUNNING.model_copy(update={"airgap": airgap, "accelerator": "tcg"})
    kept = keep("one-up", "1.img", running=running)
    made = restoring._reserve(
        this.store, kept, this.run_dir, this.journal, Owner.me(), wait=0, kept=False
    )
    assert made.airgap is airgap
    assert this.store.book.get("one").airgap is airgap
