"""Which checkpoint a run may start from, why not a better one, and when it is refused without."""

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.reuse import Plan
from tests.harness.unit.runs import BOTH, KUBERNETES, MACHINES, SLURM


def planned(plan) -> list[str]:
    return [item.id for item in plan.candidates]


# -- finding --------------------------------------------------------------------------------


def test_the_stage_that_is_wanted_comes_first_then_an_earlier_one(this, both):
    plan = this.reuse().plan(SLURM)
    assert (planned(plan), plan.lacking) == (["one-deployed", "one-up"], ())


def test_a_run_that_wants_machines_alone_gets_none_with_a_deployment(this, both):
    assert planned(this.reuse().plan(())) == ["one-up"]


@pytest.fixture
def all_three(this, both, keep):
    """Checkpoints of every set of parts; those of one instance share disks."""
    keep("one-both", "1.img", "2.img", "3.img", stage="deployed", parts=list(BOTH),
         inputs=this.inputs[BOTH])  # fmt: skip
    keep("two-kubernetes", "4.img", stage="deployed", parts=list(KUBERNETES), instance="two",
         inputs=this.inputs[KUBERNETES])  # fmt: skip


def test_a_run_for_two_parts_starts_from_both_else_from_the_first_else_from_machines(
    this, all_three
):
    plan = this.reuse().plan(BOTH)
    assert (planned(plan), plan.lacking) == (["one-both", "one-deployed", "one-up"], ())


def test_a_run_never_starts_from_more_parts_than_it_wants_nor_from_others(this, all_three):
    assert planned(this.reuse().plan(SLURM)) == ["one-deployed", "one-up"]
    assert planned(this.reuse().plan(KUBERNETES)) == ["two-kubernetes", "one-up"]
    assert planned(this.reuse().plan(())) == ["one-up"]


def test_for_each_set_of_parts_it_is_told_what_is_lacking(this, both):
    assert this.reuse().plan(BOTH).lacking == (
        "none of stage 'deployed' (slurm, kubernetes) was taken of this cluster yet",
    )
    this.edit()
    lacking = this.reuse().plan(BOTH).lacking
    assert lacking[1].startswith("one-deployed does not fit; changed since: deploy playbooks: ")


def test_both_parts_are_required_where_both_are_wanted(this, both):
    with pytest.raises(UsageProblem) as caught:
        this.reuse(reuse="require").refuse_without(BOTH)
    assert caught.value.message == (
        "No checkpoint of stage 'deployed' (slurm, kubernetes) can be used: none of stage "
        "'deployed' (slurm, kubernetes) was taken of this cluster yet."
    )


def test_of_equal_ones_the_newest_comes_first(this, keep):
    for name, created in (("a", 100.0), ("b", 300.0), ("c", 200.0)):
        keep(name, f"{name}.img", inputs=MACHINES, created=created, instance=name)
    assert planned(this.reuse().plan(())) == ["b", "c", "a"]


def test_an_edited_playbook_leaves_the_machines_and_is_named(this, both):
    this.edit()
    plan = this.reuse().plan(SLURM)
    assert planned(plan) == ["one-up"]
    changed = "deploy playbooks: roles/munge/tasks/main.yml changed"
    assert plan.lacking == (f"one-deployed does not fit; changed since: {changed}",)


def test_of_many_that_do_not_fit_the_nearest_is_compared(this, keep):
    far = {"cluster": {"nodes.virtual-login.memory": "1024"}, "box": {"debian12": "1"}}
    near = {"cluster": {"nodes.virtual-login.memory": "512"}}
    keep("far", "far.img", inputs=far, instance="far", created=2000.0)
    keep("near", "near.img", inputs=near, instance="near", created=1000.0)
    assert this.reuse().plan(()).lacking == (
        "near does not fit; changed since: cluster: nodes.virtual-login.memory is 384, was 512",
    )


def test_without_any_it_is_told_for_each_stage(this, connection):
    assert this.reuse().plan(SLURM).lacking == (
        "none of stage 'deployed' (slurm) was taken of this cluster yet",
        "none of stage 'up' was taken of this cluster yet",
    )


def test_another_cluster_and_another_name_do_not_fit(this, both, keep):
    other = both[0].spec.model_copy(update={"name": "other"})
    keep("other-up", "3.img", inputs=MACHINES, spec=other, instance="other")
    assert planned(this.reuse().plan(())) == ["one-up"]
    assert planned(this.reuse(name="one").plan(())) == ["one-up"]
    assert planned(this.reuse(name="two").plan(())) == []


def test_never_is_never(this, both):
    assert this.reuse(reuse="never").plan(SLURM) == Plan((), ())


def test_what_was_set_aside_is_among_the_reasons(this, both):
    (this.store.path("one-deployed") / "manifest.json").write_text("{")
    plan = this.reuse().plan(SLURM)
    assert planned(plan) == ["one-up"]
    assert plan.lacking[-1].startswith("one-deployed was set aside: its manifest cannot be read")


# -- require --------------------------------------------------------------------------------


def test_required_is_the_stage_that_is_wanted_and_no_other(this, both):
    assert planned(this.reuse(reuse="require").plan(SLURM)) == ["one-deployed"]
    this.reuse(reuse="require").refuse_without(SLURM)


def test_a_required_one_that_does_not_fit_refuses_the_run_and_names_the_change(this, both):
    this.edit()
    this.reuse().refuse_without(SLURM)
    with pytest.raises(UsageProblem) as caught:
        this.reuse(reuse="require").refuse_without(SLURM)
    assert "No checkpoint of stage 'deployed' (slurm) can be used: " in caught.value.message
    assert "roles/munge/tasks/main.yml changed" in caught.value.message
    assert "--deepops-reuse auto" in caught.value.hint


def test_a_required_one_that_is_flawed_refuses_the_run(this, both, connection):
    del connection.pool.volumes["2.img"]
    with pytest.raises(UsageProblem, match=r"one-deployed: volume '2\.img' is gone"):
        this.reuse(reuse="require").refuse_without(SLURM)


def test_a_required_one_that_is_in_use_refuses_the_run(this, both, book, ledger):
    book.write(ledger("one"))
    with pytest.raises(UsageProblem, match="one-deployed: it is in use by cluster 'one'"):
        this.reuse(reuse="require").refuse_without(SLURM)
