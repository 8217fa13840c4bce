"""A run that upgrades: what is refused, what is deployed first, what the upgrade broke."""

import pytest

from deepops_fixtures import upgrade
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.records import CheckOutcome
from deepops_fixtures.report import remarks
from deepops_fixtures.settings import Settings


def settings(**changes: object) -> Settings:
    # As they are once a source may be a path.
    return Settings.load({}).model_copy(update={"upgrade_from": "26.05", **changes})


@pytest.mark.parametrize(
    ("changes", "workers", "said"),
    [
        ({"source": "/deepops", "attach": "mine"}, False, "a cluster of its own, from the start"),
        ({"source": "/deepops", "inventory": "/h.ini"}, False, "a cluster of its own"),
        ({"source": "distro"}, False, "source 'distro' has no '26.05' to start from"),
        ({"source": "none"}, False, "source 'none' has no '26.05' to start from"),
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


@pytest.mark.parametrize(
    ("source", "first"),
    [
        ("/home/me/deepops", ("26.05", "/home/me/deepops")),
        ("./deepops", ("26.05", "./deepops")),
        ("https://github.com/me/deepops@fix", ("26.05", "https://github.com/me/deepops@fix")),
        ("feature", ("26.05", None)),
    ],
)
def test_the_first_deployment_is_the_ref_of_the_same_repository(source, first):
    found = upgrade.before(settings(source=source))
    assert (found.source, vars(found).get("repository")) == first
    assert upgrade.before(settings(source=source, upgrade_from="")).source == source


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
