"""Every fault of the table turns red exactly the checks it should, and they name the cause."""

import pytest

from deepops_fixtures.checks import Slurm, wait_until
from deepops_fixtures.rehearsal import Rehearsal
from deepops_fixtures.settings import Settings
from tests.harness.e2e.conftest import Commands, nodes_of
from tests.harness.e2e.fault_table import FAULTS, ROUNDS, Fault

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def test_every_fault_of_the_table_is_tried_once():
    assert sorted(fault.name for together in ROUNDS for fault in together) == sorted(
        fault.name for fault in FAULTS
    )


@pytest.fixture(scope="module")
def rehearsal(slurm_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """The rehearsal that puts the cluster back to how it is now."""
    settings = Settings.load({"attach": slurm_cluster})
    made = Rehearsal(settings, tmp_path_factory.mktemp("rehearsal"))
    made.ensure_baseline()
    return made


@pytest.mark.parametrize(
    "faults", ROUNDS, ids=lambda faults: "+".join(fault.name for fault in faults)
)
def test_faults_turn_red_exactly_the_checks_that_name_them(
    faults: tuple[Fault, ...], slurm_cluster: str, rehearsal: Rehearsal, commands: Commands
):
    nodes = nodes_of(slurm_cluster)
    slurm = Slurm(nodes)
    wait_until("the cluster is whole", slurm.all_obstacles, lambda found: not found, 60)
    try:
        for fault in faults:
            nodes[fault.node].host.run_expect([0], fault.break_it)
        checks = [str(commands.project / "tests" / name) for name in ("slurm", "services")]
        select = ["-m", "not destructive and not late", "-n", "3", "-q"]
        run = commands.pytest(*checks, "--deepops-attach", slurm_cluster, *select)
    finally:
        rehearsal.go_back()
    outcomes = run.outcomes()
    red = {name: text for name, (kind, text) in outcomes.items() if kind in ("failure", "error")}
    expected = {name: cause for fault in faults for name, cause in fault.red.items()}
    assert set(red) == set(expected), run.output
    silent = {name: red[name] for name, cause in expected.items() if cause not in red[name]}
    assert not silent, "red without the cause in the message"
    assert run.status == 1
    assert (run.run_dir / "bundle.tar.gz").is_file()
