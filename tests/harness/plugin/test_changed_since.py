"""A run about what a branch of a DeepOps checkout has changed: which tests come first, or run
alone, what is said of the rest. The hosts exist already, and are this one."""

import json

import pytest

from tests.harness.unit.branches import Branch

TESTS = """
import pytest

def test_slurm(slurm): ...

@pytest.mark.slurm
def test_access(deepops): ...

@pytest.mark.piece("chrony")
def test_clock(deepops): ...

def test_shares(nfs): ...

def test_disks(deepops): ...

@pytest.mark.late
@pytest.mark.piece("chrony")
def test_late_clock(deepops): ...

def test_plain(): ...
"""


@pytest.fixture
def branch(pytester):
    return Branch(pytester.path / "deepops")


@pytest.fixture
def check(run, pytester, branch, inventory):
    """Return a function that runs the tests against a branch that has changed these files."""

    def check(*options, changed=("roles/deepops_chrony/tasks/main.yml",), since="main"):
        branch.touch(*changed)
        pytester.makepyfile(TESTS)
        about = ("--deepops-source", branch.tree, f"--deepops-changed-since={since}")
        return run("--deepops-inventory", inventory, *about, "-v", *options)

    return check


def order(result):
    """Return the tests in the order of their running."""
    lines = [line.split(" ")[0] for line in result.outlines if "::" in line and "%]" in line]
    return [line.rpartition("::")[2] for line in lines]


def test_the_checks_that_belong_come_first_within_their_turn(check, pytester):
    result = check()
    result.assert_outcomes(passed=7)
    assert order(result) == [
        "test_clock", "test_disks", "test_plain",
        "test_slurm", "test_access", "test_shares",
        "test_late_clock",
    ]  # fmt: skip
    result.stdout.fnmatch_lines(
        [
            "changed since main: 1 file; first: checks of chrony (roles/deepops_chrony/tasks/*",
            "  roles/deepops_chrony/tasks/main.yml -> role 'deepops_chrony': playbooks/slurm-*",
            "changed since main: checks of chrony (roles/deepops_chrony/tasks/main.yml)",
        ]
    )
    page = (pytester.path / "reports/latest/report.html").read_text()
    assert "What the branch changed</summary>" in page
    assert "role &#39;deepops_chrony&#39;: playbooks/slurm-cluster.yml" in page


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_only_those_run_and_the_rest_is_said_to_be_left_out(check, pytester, workers):
    result = check("--deepops-changed-only", *workers)
    result.assert_outcomes(passed=4, deselected=0 if workers else 3)
    result.stdout.fnmatch_lines(
        [
            "changed since main: 1 file; only: checks of chrony (roles/deepops_chrony/tasks/*",
            "changed since main: checks of chrony (roles/deepops_chrony/tasks/main.yml)",
            "  left out, since the change does not reach them: 1 of nfs-server, 2 of slurm",
        ]
    )
    told = json.loads((pytester.path / "reports/latest/left-out.json").read_text())
    assert told == {"slurm": 2, "nfs-server": 1}


#: Says what the run is about, once the tests are known.
PARTS = """
import pytest
from deepops_fixtures.session import session_of

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    print("PARTS", *session_of(session.config).rehearsal.chosen.parts, "END")
"""


@pytest.mark.parametrize("role", ["nfs", "slurm"])
def test_what_is_deployed_is_what_all_tests_have_named(run, pytester, branch, role):
    branch.touch(f"roles/{role}/tasks/main.yml")
    pytester.makeconftest(PARTS)
    pytester.makepyfile(TESTS)
    about = ("--deepops-source", branch.tree, "--deepops-changed-since", "main")
    result = run(*about, "--deepops-changed-only", "--collect-only", "-q", "-s")
    assert "PARTS slurm END" in result.stdout.str()


def test_where_no_check_belongs_that_is_said_and_nothing_is_brought_up(check, pytester):
    result = check("--deepops-changed-only", "-k", "not plain", changed=("docs/readme.md",))
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(
        [
            "changed since main: 1 file; only: no check belongs to that",
            "  docs/readme.md -> no playbook reaches it",
        ]
    )
    assert not (pytester.path / "reports").exists()


def test_a_change_that_is_everybodys_runs_everything(check):
    result = check("--deepops-changed-only", changed=("ansible.cfg",))
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(
        ["changed since main: all checks belong: ansible.cfg: Ansible's settings for every *"]
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_ref_that_is_not_there_is_refused(check, pytester, workers):
    result = check(*workers, since="mian")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "There is no branch, tag or commit 'mian' in" in text
    assert "did you mean main?" in text
    assert "Traceback" not in text
    assert not (pytester.path / "reports").exists()
