"""What the checks of jobs stand on."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import Slurm
from deepops_fixtures.session import Session


@pytest.fixture(scope="session")
def obstacles(slurm: Slurm, deepops_session: Session) -> Callable[[], list[str]]:
    """A function that tells why no job can be expected to run; it looks again whenever a test has
    failed since, so that what breaks half-way costs one test its patience and not every test."""
    seen: list[str] = []
    looked_at = -1

    def look() -> list[str]:
        nonlocal seen, looked_at
        if looked_at != deepops_session.failures:
            seen, looked_at = slurm.all_obstacles(), deepops_session.failures
        return seen

    return look


@pytest.fixture
def working_slurm(slurm: Slurm, obstacles: Callable[[], list[str]]) -> Slurm:
    """Slurm, with every compute node fit for jobs; anything else has a check of its own that is
    red then."""
    found = obstacles()
    if found:
        pytest.skip("no job can be expected to run: " + "; ".join(found))
    return slurm


@pytest.fixture
def overtime_job(working_slurm: Slurm, deepops_session: Session) -> int:
    """The number of a job that runs over its limit of a minute; one for all processes of a run.

    It is submitted when the first job of the run is, and looked at last: Slurm's limits are whole
    minutes. It takes one CPU of the node that has the most, so that other jobs need not wait.
    """
    roomy = max(working_slurm.nodes.values(), key=lambda node: node.cpus)
    options = f"--time=1 --output=/dev/null -w {roomy.name}"
    return deepops_session.once("overtime-job", lambda: working_slurm.submit("sleep 900", options))
