"""What slurmdbd keeps of jobs that have ended."""

import pytest

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def _accounting_runs(services, requires):
    requires("slurmdbd", "mariadb", on=services.nodes.slurm_controller)


def test_finished_job_is_in_accounting_with_its_user_account_and_node(working_slurm):
    job = working_slurm.submit("true", name="accounted")
    info = job.wait("COMPLETED")
    record = job.accounted
    assert (record.state, record.exit_code) == ("COMPLETED", 0)
    assert record.user == working_slurm.check("id -un", user="")
    assert (record.account, record.partition) == (info.account, info.partition)
    assert record.account, "the job was charged to no account"
    assert record.nodes == info.nodes


def test_failed_job_is_in_accounting_with_its_exit_code(working_slurm):
    job = working_slurm.submit("exit 3", name="exit3")
    ended = job.wait()
    assert (ended.state, ended.exit_code) == ("FAILED", 3), job.evidence()
    record = job.accounted
    assert (record.state, record.exit_code) == ("FAILED", 3)
