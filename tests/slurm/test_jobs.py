"""What users do: run, submit, chain, cancel, exceed."""

import re

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Slurm, wait_until
from deepops_fixtures.cluster.running import Node

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("overtime_job")]


@pytest.mark.nodes("slurm-node")
def test_a_job_runs_on_the_compute_node(node: Node, working_slurm: Slurm):
    assert working_slurm.run("hostname -s", options=f"-w {node.name}") == node.name


def test_a_job_runs_across_all_compute_nodes(working_slurm: Slurm):
    names = sorted(node.name for node in working_slurm.cluster.slurm_nodes)
    output = working_slurm.run("hostname -s", nodes=len(names))
    assert sorted(output.split()) == names


def test_a_batch_job_writes_its_output_to_the_shared_home(working_slurm: Slurm):
    job = working_slurm.wait(working_slurm.submit("echo hello from $(hostname -s); id -un"))
    assert job.state == "COMPLETED", working_slurm.evidence(job.id)
    lines = working_slurm.output(job).splitlines()
    user = working_slurm.login.user_host.check_output("id -un")
    assert lines == [f"hello from {job.nodes}", user], f"{job.stdout} on the login node: {lines}"
    working_slurm.login.user_host.run("rm -f -- %s", job.stdout)


def test_an_array_job_runs_every_task(working_slurm: Slurm):
    folder = working_slurm.login.user_host.check_output("mktemp -d -p $HOME .deepops-check-XXXXXX")
    script = "echo $SLURM_ARRAY_TASK_ID > " + folder + "/$SLURM_ARRAY_TASK_ID"
    number = working_slurm.submit(script, "--array=1-3 --output=/dev/null")
    wait_until(
        f"the three tasks of job {number} have written to {folder}",
        lambda: working_slurm.login.user_host.check_output("ls %s", folder).split(),
        lambda names: sorted(names) == ["1", "2", "3"],
        120,
        evidence=lambda: working_slurm.evidence(number),
    )
    working_slurm.login.user_host.run("rm -rf -- %s", folder)


def test_a_dependent_job_waits_for_its_predecessor(working_slurm: Slurm):
    first = working_slurm.submit("sleep 2", "--output=/dev/null")
    second = working_slurm.submit("true", f"--output=/dev/null --dependency=afterok:{first}")
    after = working_slurm.wait(second)
    before = working_slurm.job(first)
    assert (before.state, after.state) == ("COMPLETED", "COMPLETED"), working_slurm.evidence(
        second
    )
    assert before.raw["EndTime"] <= after.raw["StartTime"], (
        f"job {second} began at {after.raw['StartTime']}, {first} ended at {before.raw['EndTime']}"
    )


def test_a_cancelled_job_ends(working_slurm: Slurm):
    number = working_slurm.submit("sleep 600", "--output=/dev/null")
    working_slurm.cancel(number)
    job = working_slurm.wait(number, seconds=60)
    assert job.state == "CANCELLED", f"job {number} is {job.state}"


def test_accounting_knows_the_finished_job_its_user_and_its_exit_code(working_slurm: Slurm):
    job = working_slurm.wait(working_slurm.submit("exit 7", "--output=/dev/null"))
    assert (job.state, job.exit_code) == ("FAILED", 7), working_slurm.evidence(job.id)
    user = working_slurm.login.user_host.check_output("id -un")
    records = wait_until(
        f"accounting knows how job {job.id} ended",
        lambda: working_slurm.accounting(job.id),
        lambda found: bool(found) and found[0].state not in ("RUNNING", "PENDING", "COMPLETING"),
        45,
    )
    record = records[0]
    assert (record.user, record.state, record.exit_code) == (user, "FAILED", 7), record
    assert record.account == facts.ACCOUNT, f"job {job.id} was charged to '{record.account}'"


def test_a_job_over_its_memory_is_killed_and_its_node_survives(working_slurm: Slurm):
    node = working_slurm.cluster.slurm_nodes[-1]
    hog = "exec python3 -c 'held = bytearray(400 << 20); print(len(held))'"
    number = working_slurm.submit(hog, f"--mem=80M -w {node.name}")
    job = working_slurm.wait(number)
    assert job.state == "OUT_OF_MEMORY", (
        f"job {number} took 400 MiB with 80 MiB granted and is {job.state}\n"
        + working_slurm.evidence(number)
    )
    seen = working_slurm.nodes[node.name]
    assert seen.ready, f"{node.name} is {seen.state} after it: {seen.reason}"
    working_slurm.login.user_host.run("rm -f -- %s", job.stdout)


def test_a_job_sees_only_the_cpus_it_asked_for(working_slurm: Slurm):
    by_name = sorted(working_slurm.nodes.values(), key=lambda node: node.name)
    biggest = max(by_name, key=lambda node: node.cpus)
    if biggest.cpus < 2:
        pytest.skip("no compute node has two CPUs")
    # An affinity mask alone is only a wish: this asks for every CPU, and the cgroup decides.
    script = "taskset -c 0-1023 nproc"
    options = f"-w {biggest.name} --cpus-per-task=1"
    count = working_slurm.run(script, options=options)
    assert count == "1", (
        f"a job of one CPU on {biggest.name} ({biggest.cpus} CPUs) could take {count} of them"
    )


@pytest.mark.piece("mpi-program")
def test_mpi_ranks_on_all_nodes_talk_over_pmix(working_slurm: Slurm):
    nodes = working_slurm.cluster.slurm_nodes
    ranks = max(2, len(nodes))
    output = working_slurm.run(
        f"exec {facts.MPI_HELLO}", nodes=len(nodes), tasks=ranks, options="--mpi=pmix", seconds=180
    )
    found = sorted(re.findall(r"rank (\d+) of (\d+) on (\S+)", output))
    assert [(int(rank), int(size)) for rank, size, _ in found] == [
        (rank, ranks) for rank in range(ranks)
    ], f"ranks did not find one another (PMIx):\n{output}"
    assert {host for _, _, host in found} == {node.name for node in nodes}, output
    assert f"sum {sum(range(ranks))}" in output, f"the ranks' messages are lost:\n{output}"


@pytest.mark.late
def test_a_job_over_its_time_limit_is_killed(working_slurm: Slurm, overtime_job: int):
    job = working_slurm.wait(overtime_job, seconds=180)
    assert job.state == "TIMEOUT", f"job {overtime_job} had a minute and is {job.state}"
