"""Every fault of the table turns red exactly the checks it should, and they name the cause."""

import pytest

from deepops_fixtures.checks import Slurm, wait_until
from tests.harness.e2e.conftest import Commands, nodes_of
from tests.harness.e2e.fault_table import FAULTS, Fault

pytestmark = [pytest.mark.slow, pytest.mark.faults]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_turns_red_exactly_the_checks_that_name_it(
    fault: Fault, slurm_cluster: str, commands: Commands
):
    nodes = nodes_of(slurm_cluster)
    host, slurm = nodes[fault.node].host, Slurm(nodes)
    wait_until("the cluster is whole", slurm.all_obstacles, lambda found: not found, 120)
    host.run_expect([0], fault.break_it)
    try:
        checks = [str(commands.project / "tests" / name) for name in ("slurm", "services")]
        select = ["-m", "not destructive and not late", "-n", "3", "-q"]
        run = commands.pytest(*checks, "--deepops-attach", slurm_cluster, *select)
    finally:
        host.run_expect([0], fault.mend_it)
    outcomes = run.outcomes()
    red = {name: text for name, (kind, text) in outcomes.items() if kind in ("failure", "error")}
    assert set(red) == set(fault.red), run.output
    silent = {name: red[name] for name, cause in fault.red.items() if cause not in red[name]}
    assert not silent, "red without the cause in the message"
    assert run.status == 1
    assert (run.run_dir / "bundle.tar.gz").is_file()
    wait_until("the cluster is whole again", slurm.all_obstacles, lambda found: not found, 120)
