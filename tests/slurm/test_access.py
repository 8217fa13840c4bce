"""Who may log in to a compute node: whom the allow-list names, and whoever has a job there."""

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Access, Slurm
from deepops_fixtures.cluster.running import Node

pytestmark = [pytest.mark.slurm, pytest.mark.nodes("slurm-node")]


def test_ssh_to_the_compute_node_is_refused_without_a_job(
    node: Node, access: Access, working_slurm: Slurm
):
    let_in, said = access.attempt(node)
    assert not let_in, f"{facts.PLAIN_USER} has no job on {node.name} and got in"
    assert "no active jobs" in said, f"{node.name} refused for another reason: {said}"


def test_ssh_to_the_compute_node_is_let_in_with_a_job(
    node: Node, access: Access, working_slurm: Slurm
):
    submit = f"cd && sbatch --parsable --output=/dev/null -w {node.name} --wrap='sleep 300'"
    login = working_slurm.login.host
    number = int(login.check_output(f"sudo -n -iu {facts.PLAIN_USER} sh -c %s", submit))
    try:
        working_slurm.wait_state(number, "RUNNING")
        let_in, said = access.attempt(node)
        assert let_in, f"{facts.PLAIN_USER} has job {number} on {node.name} and is refused: {said}"
    finally:
        login.run(f"scancel {number}")
        working_slurm.wait(number)
