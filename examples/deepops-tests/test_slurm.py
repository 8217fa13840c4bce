"""What this checkout promises of its Slurm."""

import pytest

pytestmark = pytest.mark.slurm


def test_users_have_the_batch_partition(batch):
    assert batch.state == "UP"


@pytest.mark.nodes("slurm-node")
def test_a_job_runs_on_each_compute_node(node, slurm):
    assert slurm.run("hostname -s", options=f"-w {node.name}") == node.name
