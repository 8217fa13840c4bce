"""Which checkpoint a run may start from, why not a better one, and when it is refused without."""

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.reuse import Plan
from tests.harness.unit.runs import MACHINES


def planned(plan) -> list[str]:
    return [item.id for item in plan.candidates]


# -- finding --------------------------------------------------------------------------------


def test_the_stage_that_is_wanted_comes_first_then_an_earlier_one(this, both):
    plan = this.reuse().plan("deployed")
    assert (planned(plan), plan.lacking) == (["one-deployed", "one-up"], ())


def test_a_run_that_wants_machines_alone_gets_none_with_a_deployment(this, both):
    assert planned(this.reuse().plan("up")) == ["one-up"]


def test_of_equal_ones_the_newest_comes_first(this, keep):
    for name, created in (("a", 100.0), ("b", 300.0), ("c", 200.0)):
        keep(name, f"{name}.img", inputs=MACHINES, created=created, instance=name)
    assert planned(this.reuse().plan("up")) == ["b", "c", "a"]


def test_an_edited_playbook_leaves_the_machines_and_is_named(this, both):
    this.edit()
    plan = this.reuse().plan("deployed")
    assert planned(plan) == ["one-up"]
    changed = "deploy playbooks: roles/munge/tasks/main.yml changed"
    assert plan.lacking == (f"one-deployed does not fit; changed since: {changed}",)


def test_of_many_that_do_not_fit_the_nearest_is_compared(this, keep):
    far = {"cluster": {"nodes.virtual-login.memory": "1024"}, "box": {"debian12": "1"}}
    near = {"cluster": {"nodes.virtual-login.memory": "512"}}
    keep("far", "far.img", inputs=far, instance="far", created=2000.0)
    keep("near", "near.img", inputs=near, instance="near", created=1000.0)
    assert this.reuse().plan("up").lacking == (
        "near does not fit; changed since: cluster: nodes.virtual-login.memory is 384, was 512",
    )


def test_without_any_it_is_told_for_each_stage(this, connection):
    assert this.reuse().plan("deployed").lacking == (
        "none of stage 'deployed' was taken of this cluster yet",
        "none of stage 'up' was taken of this cluster yet",
    )


def test_another_cluster_and_another_name_do_not_fit(this, both, keep):
    other = both[0].spec.model_copy(update={"name": "other"})
    keep("other-up", "3.img", inputs=MACHINES, spec=other, instance="other")
    assert planned(this.reuse().plan("up")) == ["one-up"]
    assert planned(this.reuse(name="one").plan("up")) == ["one-up"]
    assert planned(this.reuse(name="two").plan("up")) == []


def test_never_is_never(this, both):
    assert this.reuse(reuse="never").plan("deployed") == Plan((), ())


def test_what_was_set_aside_is_among_the_reasons(this, both):
    (this.store.path("one-deployed") / "manifest.json").write_text("{")
    plan = this.reuse().plan("deployed")
    assert planned(plan) == ["one-up"]
    assert plan.lacking[-1].startswith("one-deployed was set aside: its manifest cannot be read")


# -- require --------------------------------------------------------------------------------


def test_required_is_the_stage_that_is_wanted_and_no_other(this, both):
    assert planned(this.reuse(reuse="require").plan("deployed")) == ["one-deployed"]
    this.reuse(reuse="require").refuse_without("deployed")


def test_a_required_one_that_does_not_fit_refuses_the_run_and_names_the_change(this, both):
    this.edit()
    this.reuse().refuse_without("deployed")
    with pytest.raises(UsageProblem) as caught:
        this.reuse(reuse="require").refuse_without("deployed")
    assert "No checkpoint of stage 'deployed' can be used: " in caught.value.message
    assert "roles/munge/tasks/main.yml changed" in caught.value.message
    assert "--deepops-reuse auto" in caught.value.hint


def test_a_required_one_that_is_flawed_refuses_the_run(this, both, connection):
    del connection.pool.volumes["2.img"]
    with pytest.raises(UsageProblem, match=r"one-deployed: volume '2\.img' is gone"):
        this.reuse(reuse="require").refuse_without("deployed")


def test_a_required_one_that_is_in_use_refuses_the_run(this, both, book, ledger):
    book.write(ledger("one"))
    with pytest.raises(UsageProblem, match="one-deployed: it is in use by cluster 'one'"):
        this.reuse(reuse="require").refuse_without("deployed")
