"""A job gets what it asked for and no more."""

import pytest

pytestmark = pytest.mark.slurm

#: What a job does to see its CPUs: those it may run on, and those it asked for.
AFFINITY = "nproc; grep Cpus_allowed_list /proc/self/status | cut -f2; echo $SLURM_CPUS_ON_NODE"


@pytest.mark.nodes("slurm-node")
def test_job_is_confined_to_its_cpus(fit_node, working_slurm):
    if working_slurm.node(fit_node.name).cpus < 2:
        pytest.skip(f"'{fit_node.name}' has one CPU: there is nothing to be kept out of")
    job = working_slurm.submit(AFFINITY, f"--nodelist={fit_node.name}", name="affinity")
    usable, allowed, asked = job.finish().splitlines()
    info = job.info
    assert int(usable) == int(asked) == info.cpus, (
        f"A job of {asked} CPUs on '{fit_node.name}' may run on {usable} (CPUs {allowed}).\n"
        + job.evidence()
    )


@pytest.mark.nodes("slurm-node")
def test_job_over_its_memory_is_killed_and_its_node_survives(fit_node, working_slurm):
    # tail keeps what it reads until a line ends, and zeros never end one.
    job = working_slurm.submit(
        "head -c 300M /dev/zero | tail", "--mem=40M", f"--nodelist={fit_node.name}", name="memory"
    )
    ended = job.wait()
    assert ended.state == "OUT_OF_MEMORY", f"{ended}\n{job.evidence()}"
    after = working_slurm.node(fit_node.name)
    assert after.accepts_jobs, f"The job's end cost Slurm its node: {after}.\n{job.evidence()}"
    assert working_slurm.run("echo alive", f"--nodelist={fit_node.name}") == "alive"


def test_cancelled_job_ends(working_slurm):
    job = working_slurm.submit("sleep 600", name="cancelled")
    job.wait("RUNNING")
    job.cancel()
    assert job.wait("CANCELLED").state == "CANCELLED"


def test_waiting_job_can_be_cancelled(working_slurm):
    job = working_slurm.submit("true", "--hold", name="held")
    assert job.info.state == "PENDING"
    job.cancel()
    assert job.wait("CANCELLED").nodes == ()
