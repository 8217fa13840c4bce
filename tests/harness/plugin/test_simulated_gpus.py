"""GPU scheduling as a user checks it: SIMULATED GPUs are named everywhere, and exist only where
they are asked for."""

import shutil

import pytest

CONFTEST = """
import pytest

from deepops_fixtures import simulation
from deepops_fixtures.checks import kube_gpu_pods
from tests.harness.unit.kube_answers import Scheduler, known

FULL = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."

kube_gpu_pods.STAYS = 0

@pytest.fixture(scope="session")
def kubernetes(deepops):
    # What the scheduler decides, over the checks of the module in their order.
    found = Scheduler("one", FULL, "two", FULL, "one", "two")
    found.nodes = {{name: known(name, **{told}) for name in ("one", "two")}}
    found.api.patch = lambda path, body: None
    return found

@pytest.fixture
def working_kubernetes(kubernetes):
    return kubernetes
"""
#: As on hosts that are ours to change.
OURS = """
@pytest.fixture
def simulated_gpus(gpu_supply, gpu_turn, kubernetes):
    with simulation.simulated(kubernetes, ["one", "two"]) as supply:
        yield supply
"""


@pytest.fixture
def suite(run, pytester, inventory, project, monkeypatch):
    """Return a function that runs the checks of GPU scheduling on nodes that offer this."""
    (pytester.path / "kubernetes").mkdir()
    module = "tests/kubernetes/test_gpu_scheduling.py"
    shutil.copy(project / module, pytester.path / "kubernetes")
    monkeypatch.setenv("PYTHONPATH", str(project))

    def checked(*options: str, told: str = "{}", more: str = "") -> pytest.RunResult:
        pytester.makeconftest(CONFTEST.format(told=told) + more)
        return run("kubernetes", "--import-mode=importlib", "--deepops-inventory", inventory, "-v",
                   "-rs", *options)  # fmt: skip

    return checked


def test_nothing_is_simulated_unless_it_is_asked_for(suite):
    result = suite()
    result.assert_outcomes(skipped=4)
    assert "SIMULATED" not in result.stdout.str()
    result.stdout.fnmatch_lines(["SKIPPED*Kubernetes has no nvidia.com/gpu on any node"])


def test_nothing_is_simulated_on_hosts_that_are_not_ours(suite):
    result = suite("--deepops-simulated-gpus")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(
        ["SKIPPED*these hosts are not ours: no GPUs are simulated on them"]
    )


def test_a_check_with_simulated_gpus_says_so_in_its_name_and_in_the_verdict(suite):
    result = suite("--deepops-simulated-gpus", more=OURS)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "*::test_a_pod_that_asks_for_a_gpu_runs_where_one_is[[]SIMULATED[]] PASSED*",
            "*GPUs of Kubernetes: SIMULATED in 4 checks, asked for by --deepops-simulated-gpus.",
        ]
    )


def test_real_gpus_are_checked_under_their_own_names(suite):
    result = suite("-k", "runs_where", told="{'gpu': '1'}")
    result.assert_outcomes(passed=1, deselected=3)
    assert "SIMULATED" not in result.stdout.str()
