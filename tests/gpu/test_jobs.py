"""A Slurm job is given the GPUs that it asks for, and not one more."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import GpuCensus, GpuJobs, Gpus, Slurm, Verdict

pytestmark = [pytest.mark.gpu, pytest.mark.nodes("slurm-node")]
Settle = Callable[[Verdict], None]


@pytest.fixture
def gres(working_gpus: Gpus, gpu_census: GpuCensus) -> int:
    """How many GPUs Slurm has to give on the node."""
    name = working_gpus.node.name
    count = gpu_census.slurm.get(name, 0)
    if not count:
        pytest.skip(f"Slurm has no gres 'gpu' on node '{name}'")
    return count


@pytest.fixture
def gpu_jobs(gres: int, slurm: Slurm) -> GpuJobs:
    """Jobs with GPUs on a Slurm that can run some."""
    found = slurm.all_obstacles()
    if found:
        pytest.skip("no job can be expected to run: " + "; ".join(found))
    return GpuJobs(slurm)


def test_a_job_sees_the_one_gpu_it_asks_for(gpus: Gpus, gpu_jobs: GpuJobs, settle: Settle):
    settle(gpu_jobs.sees(gpus.node.name, 1))


def test_a_job_sees_all_gpus_when_it_asks_for_all(
    gpus: Gpus, gres: int, gpu_jobs: GpuJobs, settle: Settle
):
    settle(gpu_jobs.sees(gpus.node.name, gres))


def test_a_job_that_asks_for_no_gpu_sees_none(gpus: Gpus, gpu_jobs: GpuJobs, settle: Settle):
    settle(gpu_jobs.sees(gpus.node.name, 0))
