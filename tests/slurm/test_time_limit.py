"""Time limits, which Slurm counts in whole minutes: the job was submitted when the session began.
"""

import pytest

pytestmark = pytest.mark.slurm


def test_job_over_its_time_limit_is_killed(overlong_job, working_slurm):
    assert overlong_job is not None, "the job could not be submitted when the session began"
    ended = overlong_job.wait(seconds=240)
    assert ended.state == "TIMEOUT", f"{ended}\n{overlong_job.evidence()}"
