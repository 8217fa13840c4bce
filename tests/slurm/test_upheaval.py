"""What Slurm has to live through. Each check breaks something and mends it; never on a cluster in
use.
"""

import pytest

from deepops_fixtures.checks import remote
from deepops_fixtures.checks.waiting import wait_until
from deepops_fixtures.errors import CheckFailed
from deepops_fixtures.proc import Deadline

pytestmark = [pytest.mark.slurm, pytest.mark.destructive]


def _restart(node, unit):
    answer = remote.run(node, f"systemctl restart {unit}")
    assert answer.ok, f"'systemctl restart {unit}' failed on '{node.name}': {answer.text}"


def test_queue_survives_a_restart_of_slurmctld(working_slurm, basis):
    running = working_slurm.submit("sleep 600", name="running")
    held = working_slurm.submit("echo released", "--hold", name="held")
    running.wait("RUNNING")
    where = running.info.nodes
    _restart(working_slurm.nodes.slurm_controller, "slurmctld")
    wait_until(
        "An answer of slurmctld after its restart",
        lambda: working_slurm.command("timeout 10 scontrol ping").text,
        deadline=Deadline.after(60),
        done=lambda said: "is UP" in said,
        evidence=lambda: working_slurm.log("SlurmctldLogFile"),
    )
    assert (running.info.state, running.info.nodes) == ("RUNNING", where), running.evidence()
    assert held.info.state == "PENDING", held.evidence()
    running.cancel()
    working_slurm.check(f"scontrol release {held.id}")
    assert held.finish() == "released"


def test_running_job_survives_a_restart_of_slurmd(working_slurm, basis):
    job = working_slurm.submit("sleep 5; echo survived", name="survivor")
    name = job.wait("RUNNING").nodes[0]
    _restart(working_slurm.nodes[name], "slurmd")
    assert job.finish() == "survived"
    working_slurm.wait_for_node(name, seconds=60)


def test_drained_node_gets_no_jobs_until_it_is_resumed(working_slurm, fit_nodes, basis):
    name = fit_nodes[-1].name
    working_slurm.update(f"NodeName={name}", "State=DRAIN", "Reason=deepops-fixtures check")
    try:
        drained = working_slurm.node(name)
        assert not drained.accepts_jobs
        assert drained.reason == "deepops-fixtures check"
        job = working_slurm.submit("hostname -s", f"--nodelist={name}", name="drained")
        wait_until(
            f"The reason why job {job.id} waits",
            lambda: job.info,
            deadline=Deadline.after(30),
            done=lambda info: "Drained" in info.reason or "DRAINED" in info.reason,
            never=lambda info: info.state != "PENDING",
            evidence=job.evidence,
        )
    finally:
        working_slurm.update(f"NodeName={name}", "State=RESUME")
    assert job.finish() == name


@pytest.mark.slow
def test_compute_node_comes_back_from_a_reboot(working_slurm, fit_nodes, basis):
    node = fit_nodes[-1]
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = remote.run(node, boot).text
    working_slurm.update(f"NodeName={node.name}", "State=DRAIN", "Reason=deepops-fixtures reboot")
    try:
        wait_until(
            f"The end of the last job on '{node.name}'",
            lambda: working_slurm.node(node.name),
            deadline=Deadline.after(150),
            done=lambda seen: seen.cpus_alloc == 0 and "COMPLETING" not in seen.states,
            evidence=working_slurm.queue,
        )
        remote.run(node, "systemd-run --on-active=1 systemctl reboot")
        wait_until(
            f"A new boot of '{node.name}'",
            lambda: remote.run(node, boot).text,
            deadline=Deadline.after(300),
            done=lambda seen: len(seen) == len(before) and seen != before,
            transient=(CheckFailed,),
            interval=2,
        )
    finally:
        working_slurm.update(f"NodeName={node.name}", "State=RESUME")
    working_slurm.wait_for_node(node.name, seconds=180)
    assert working_slurm.run("hostname -s", f"--nodelist={node.name}") == node.name
