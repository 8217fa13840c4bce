"""Every fault of the table turns red exactly the checks it should, and they name the cause."""

import pytest

from deepops_fixtures.checks import Slurm, wait_until
from deepops_fixtures.rehearsal import Rehearsal
from tests.harness.e2e.conftest import Commands, nodes_of
from tests.harness.e2e.fault_table import FAULTS, ROUNDS, Fault
from tests.harness.e2e.playing import play, rehearsal_of

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def test_every_fault_of_the_table_is_tried_once():
    assert sorted(fault.name for together in ROUNDS for fault in together) == sorted(
        fault.name for fault in FAULTS
    )


@pytest.fixture(scope="module")
def rehearsal(slurm_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return rehearsal_of(slurm_cluster, tmp_path_factory.mktemp("rehearsal"))


@pytest.mark.parametrize(
    "faults", ROUNDS, ids=lambda faults: "+".join(fault.name for fault in faults)
)
def test_faults_turn_red_exactly_the_checks_that_name_them(
    faults: tuple[Fault, ...], slurm_cluster: str, rehearsal: Rehearsal, commands: Commands
):
    slurm = Slurm(nodes_of(slurm_cluster))
    wait_until("the cluster is whole", slurm.all_obstacles, lambda found: not found, 60)
    checks = [str(commands.project / "tests" / name) for name in ("slurm", "services")]
    play(faults, slurm_cluster, rehearsal, commands, *checks, "-m", "not destructive and not late")
