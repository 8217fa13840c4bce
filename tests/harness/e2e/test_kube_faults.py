"""Every fault of Kubernetes' table turns red exactly the checks it should, and they name the
cause."""

import pytest

from deepops_fixtures.checks import Kubernetes, kube_obstacles, wait_until
from deepops_fixtures.rehearsal import Rehearsal
from tests.harness.e2e.conftest import Commands, nodes_of
from tests.harness.e2e.fault_table import Fault
from tests.harness.e2e.kube_fault_table import FAULTS, FIRST, ROUNDS
from tests.harness.e2e.playing import play, rehearsal_of

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def test_every_fault_of_the_table_is_tried_once():
    assert sorted(fault.name for together in ROUNDS for fault in together) == sorted(
        fault.name for fault in FAULTS
    )


@pytest.fixture(scope="module")
def rehearsal(kubernetes_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return rehearsal_of(kubernetes_cluster, tmp_path_factory.mktemp("rehearsal"))


def test_every_check_of_a_whole_cluster_is_green(kubernetes_cluster: str, commands: Commands):
    run = commands.pytest(
        str(commands.project / "tests" / "kubernetes"), "-m", "not destructive", "-n", "2", "-q",
        "--deepops-attach", kubernetes_cluster, "--deepops-simulated-gpus",
    )  # fmt: skip
    assert run.status == 0, run.output
    passed = [name for name, (kind, _) in run.outcomes().items() if kind == "passed"]
    assert len(passed) > 55, passed
    assert "SIMULATED in 4 checks" in run.output


@pytest.mark.parametrize(
    "faults", ROUNDS, ids=lambda faults: "+".join(fault.name for fault in faults)
)
def test_faults_turn_red_exactly_the_checks_that_name_them(
    faults: tuple[Fault, ...],
    request: pytest.FixtureRequest,
    kubernetes_cluster: str,
    rehearsal: Rehearsal,
    commands: Commands,
):
    if faults not in ROUNDS[:FIRST] and not request.config.getoption("--harness-all-faults"):
        pytest.skip("played with --harness-all-faults")
    kubernetes = Kubernetes(nodes_of(kubernetes_cluster), rehearsal.run_dir)
    wait_until(
        "the cluster is whole",
        lambda: kube_obstacles.all_obstacles(kubernetes),
        lambda found: not found,
        120,
    )
    checks = str(commands.project / "tests" / "kubernetes")
    play(faults, kubernetes_cluster, rehearsal, commands, checks, "-m", "not destructive")
