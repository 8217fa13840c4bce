"""The checks of GPUs as a user runs them: what passes, what fails, what is skipped with which
reason. The nodes' GPUs answer from a table."""

import shutil

import pytest

from tests.harness.plugin.conftest import created

CONFTEST = """
import pytest

from deepops_fixtures.checks import Gpus
from tests.harness.unit.gpu_hosts import Reply, healthy, survey
from tests.harness.unit.smi_documents import Card

@pytest.fixture(scope="session")
def gpus_seen():
    one = {one}
    two = healthy(survey=Reply(survey((), driver="none")))
    one.name, two.name = "one", "two"
    return {{"one": Gpus(one), "two": Gpus(two)}}
"""


@pytest.fixture
def gpu_suite(run, pytester, inventory, project, monkeypatch):
    """Return a function that runs tests/gpu on two nodes: 'one' has these GPUs, 'two' has none."""
    shutil.copytree(project / "tests" / "gpu", pytester.path / "gpu")
    monkeypatch.setenv("PYTHONPATH", str(project))

    def suite(one: str, *options: str) -> pytest.RunResult:
        pytester.makeconftest(CONFTEST.format(one=one))
        words = ("--import-mode=importlib", "--deepops-inventory", inventory, "-rs")
        return run("gpu", *words, *options)

    return suite


def test_a_healthy_node_is_green_and_a_node_without_gpu_is_skipped_with_the_reason(gpu_suite):
    result = gpu_suite("healthy(Card(), Card(bus='08', uuid='GPU-2'))")
    # On 'one' MIG (twice) and the fabric are not there to be judged.
    result.assert_outcomes(passed=15, skipped=3 + 18 + 3)
    result.stdout.fnmatch_lines(
        [
            "*two: node 'two' has no NVIDIA device in sysfs",
            "*one: GPU 0 (0000:07:00.0, Tesla V100-SXM2-16GB) is in no NVLink fabric*",
        ]
    )


def test_a_gpu_without_driver_fails_once_and_skips_the_rest(gpu_suite):
    result = gpu_suite("healthy(survey=Reply(survey((Card(),), driver='none')))")
    result.assert_outcomes(passed=1, failed=1, skipped=16 + 18 + 3)
    result.stdout.fnmatch_lines(
        [
            "*one: GPU 0000:07:00.0 [[]10de:1db1[]] has no driver; the kernel module 'nvidia' is*",
            "*the GPUs cannot be asked: one: GPU 0000:07:00.0 [[]10de:1db1[]] has no driver*",
        ]
    )


def test_a_sick_gpu_fails_its_own_check_alone(gpu_suite):
    result = gpu_suite("healthy(Card(remap_failure='Yes', rows='3'))")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        [
            "*one: GPU 0 (0000:07:00.0, Tesla V100-SXM2-16GB) could not remap a bad row*",
            "*warnings summary*",
            "*one: GPU 0 (0000:07:00.0, *) has remapped 3 row(s) of its memory in its life",
        ]
    )


def test_what_is_worth_knowing_of_a_gpu_can_be_made_a_failure(gpu_suite):
    worn = "healthy(Card(rows='3'))"
    assert "failed" not in gpu_suite(worn).parseoutcomes()
    strict = gpu_suite(worn, "-W", "error::deepops_fixtures.checks.VerdictWarning")
    assert strict.parseoutcomes()["failed"] == 1
    strict.stdout.fnmatch_lines(["*VerdictWarning: one: GPU 0 (*) has remapped 3 row(s) of its*"])


def test_a_gpu_that_is_sick_and_worn_says_so_under_strict_warnings(gpu_suite):
    sick = "healthy(Card(remap_failure='Yes', rows='3'))"
    result = gpu_suite(sick, "-W", "error::deepops_fixtures.checks.VerdictWarning")
    result.stdout.fnmatch_lines(["*could not remap a bad row*"])


def test_without_a_gpu_on_the_host_no_cluster_is_made_for_the_checks_of_gpus(
    run, pytester, project
):
    shutil.copytree(project / "tests" / "gpu", pytester.path / "gpu")
    result = run("gpu", "--import-mode=importlib", "-m", "gpu", "-rs")
    counts = result.parseoutcomes()
    assert list(set(counts) - {"warnings", "warning"}) == ["skipped"]
    result.stdout.fnmatch_lines(["SKIPPED*this host has no NVIDIA GPU to hand through (deepops-*"])
    assert "accelerator:" not in result.stdout.str()
    assert created(pytester.path) == []
