"""A run that upgrades: what is refused, what is deployed first, what the upgrade broke."""

import pytest

from deepops_fixtures import upgrade
from deepops_fixtures.cluster import topology
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.records import CheckOutcome
from deepops_fixtures.report import remarks
from deepops_fixtures.settings import Settings
from deepops_fixtures.subject import Chosen
from tests.harness.unit.branches import Branch


def settings(**changes: object) -> Settings:
    return Settings.load({"upgrade_from": "26.05", **changes})


@pytest.mark.parametrize(
    ("changes", "workers", "said"),
    [
        ({"source": "/deepops", "attach": "mine"}, False, "a cluster of its own, from the start"),
        ({"source": "/deepops", "inventory": "/h.ini"}, False, "a cluster of its own"),
        ({"source": "/deepops"}, True, "no test may run while another process upgrades"),
    ],
)
def test_an_upgrade_that_cannot_be_rehearsed_is_refused(changes, workers, said):
    with pytest.raises(UsageProblem, match=said) as refused:
        upgrade.refuse(settings(**changes), workers=workers)
    assert refused.value.hint


def test_other_runs_are_not_refused():
    upgrade.refuse(settings(upgrade_from="", attach="mine"), workers=True)
    upgrade.refuse(settings(source="/deepops"), workers=False)


@pytest.mark.parametrize("source", ["distro", "none"])
def test_a_source_without_refs_is_refused(source):
    with pytest.raises(UsageProblem, match=f"source '{source}' has no '26.05' to start from"):
        upgrade.refuse_source(source, "26.05")


@pytest.fixture
def branch(tmp_path):
    """A checkout with a commit on top of main, in its user's hands."""
    made = Branch(tmp_path / "deepops")
    made.touch("roles/lmod/tasks/main.yml")
    made.commit()
    made.touch("ansible.cfg")
    return made


def chosen(tmp_path, source: str, **changes: object) -> Chosen:
    made = settings(source=source, cache_dir=tmp_path / "cache", parts="slurm", **changes)
    return Chosen(made, topology.load("debian"), tmp_path / "run")


def test_the_ref_comes_first_and_then_the_users_tree(branch, tmp_path):
    found = chosen(tmp_path, str(branch.tree), upgrade_from="main")
    [first], [then] = found.sources(), found.upgrade()
    assert first.driving.checkout.commit == branch.git("rev-parse", "main")
    assert first.driving.checkout.dirty == ()
    assert then.driving.checkout.tree == branch.tree
    assert then.driving.checkout.dirty == ("ansible.cfg",)
    assert first.inputs() != then.inputs()


def test_of_a_url_the_ref_of_the_same_repository_comes_first(branch, tmp_path):
    found = chosen(tmp_path, f"file://{branch.tree}@feature", upgrade_from="main")
    commits = [each.driving.checkout.commit for each in (*found.sources(), *found.upgrade())]
    assert commits == [branch.git("rev-parse", name) for name in ("main", "feature")]


def test_a_ref_of_the_repository_may_be_upgraded_to(branch, tmp_path):
    found = chosen(tmp_path, "feature", repository=str(branch.tree), upgrade_from="main")
    commits = [each.driving.checkout.commit for each in (*found.sources(), *found.upgrade())]
    assert commits == [branch.git("rev-parse", name) for name in ("main", "feature")]


def test_other_runs_have_nothing_on_top(branch, tmp_path):
    found = chosen(tmp_path, str(branch.tree), upgrade_from="")
    assert len(found.sources()) == 1
    assert found.upgrade() == ()
    assert found.scope_then == found.scope


def test_what_an_upgrade_brings_is_checked_after_it_alone(branch, tmp_path):
    playbook = ("playbooks/new.yml",)
    branch.write("playbooks/new.yml", "- hosts: all\n  roles: [lmod]\n")
    branch.commit()
    branch.git("tag", "old")
    branch.write("playbooks/new.yml", "- hosts: all\n  roles: [lmod, deepops_chrony]\n")
    found = chosen(tmp_path, str(branch.tree), upgrade_from="old", playbook=playbook)
    assert not found.scope.has("chrony")
    assert found.scope_then.has("chrony")


@pytest.mark.parametrize(
    ("nodeid", "found"),
    [
        ("t.py::test_a[before]", ("t.py::test_a", "before")),
        ("t.py::test_a[virtual-gpu01-after]", ("t.py::test_a[virtual-gpu01]", "after")),
        ("t.py::test_a[before-virtual-gpu01]", ("t.py::test_a[virtual-gpu01]", "before")),
        ("t.py::test_a[the-day-before-it]", ("t.py::test_a[the-day-before-it]", None)),
        ("t.py::test_before", ("t.py::test_before", None)),
    ],
)
def test_a_test_is_known_by_its_name_without_the_phase(nodeid, found):
    assert upgrade.phase_of(nodeid) == found


def ended(**tests: str) -> list[CheckOutcome]:
    """Return outcomes: test → how it ended before and after, '-' for not at all."""
    return [
        CheckOutcome(f"t.py::test_{name}[{phase}]", outcome, 1.0, 1.0)
        for name, both in tests.items()
        for phase, outcome in zip(("before", "after"), both.split(), strict=True)
        if outcome != "-"
    ]


def test_what_passed_before_and_fails_after_is_broken_by_the_upgrade():
    found = upgrade.compare(
        ended(
            good="passed passed", worse="passed failed", worst="skipped error",
            old="failed failed", better="failed passed", new="- failed", hidden="failed skipped",
        )
    )  # fmt: skip
    assert found.broken == ["t.py::test_worse", "t.py::test_worst", "t.py::test_new"]
    assert found.both == ["t.py::test_old"]
    assert found.mended == ["t.py::test_better"]
    assert found.counts == {
        "before": {"passed": 2, "failed": 3, "skipped": 1},
        "after": {"passed": 2, "failed": 4, "skipped": 1},
    }
    assert found.verdict == "the upgrade breaks 3 checks"


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ({"a": "passed passed"}, "the upgrade breaks nothing"),
        ({"a": "failed failed", "b": "passed passed"},
         "the upgrade breaks nothing, and 1 failed before it already"),
        ({"a": "passed -"}, "the upgrade was not checked"),
        ({"a": "error skipped", "b": "skipped skipped"}, "the upgrade was not checked"),
    ],
)  # fmt: skip
def test_the_verdict_is_a_sentence(tests, verdict):
    assert upgrade.compare(ended(**tests)).verdict == verdict


def test_a_check_that_fails_in_its_teardown_has_failed():
    found = upgrade.compare([*ended(a="passed failed"), *ended(a="passed passed")])
    assert found.broken == ["t.py::test_a"]


def test_terminal_and_page_tell_both_phases():
    found = upgrade.compare(ended(good="passed passed", worse="passed failed"))
    [remark] = remarks.of_upgrade("a.yml (26.05)", "a.yml (feature)", found)
    assert remark.lines == [
        ("upgrade: the upgrade breaks 1 check", True),
        ("  before, a.yml (26.05): 2 passed", False),
        ("  after, a.yml (feature): 1 passed, 1 failed", False),
        ("  broken by the upgrade: test_worse", True),
    ]
    assert remark.rows == [("broken by the upgrade", "t.py::test_worse")]
