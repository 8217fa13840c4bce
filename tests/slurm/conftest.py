"""What the checks of jobs stand on."""

import pytest

from deepops_fixtures.checks import Slurm
from deepops_fixtures.session import Session


@pytest.fixture(scope="session")
def working_slurm(slurm: Slurm) -> Slurm:
    """Slurm, with every compute node fit for jobs; anything else has a check of its own that is
    red then."""
    obstacles = slurm.all_obstacles()
    if obstacles:
        pytest.skip("no job can be expected to run: " + "; ".join(obstacles))
    return slurm


@pytest.fixture(scope="session")
def overtime_job(working_slurm: Slurm, deepops_session: Session) -> int:
    """The number of a job that runs over its limit of a minute; one for all processes of a run.

    It is submitted when the first job of the run is, and looked at last: Slurm's limits are whole
    minutes. It takes one CPU of the node that has the most, so that other jobs need not wait.
    """
    roomy = max(working_slurm.nodes.values(), key=lambda node: node.cpus)
    options = f"--time=1 --output=/dev/null -w {roomy.name}"
    return deepops_session.once("overtime-job", lambda: working_slurm.submit("sleep 900", options))
