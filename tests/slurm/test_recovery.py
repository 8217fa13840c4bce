"""What breaks and comes back: the controller, a compute node."""

import time

import pytest

from deepops_fixtures.checks import Slurm, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.destructive]


def test_a_restart_of_slurmctld_keeps_the_queue(working_slurm: Slurm):
    number = working_slurm.submit("sleep 10; echo survived")
    waiting = working_slurm.submit("true", f"--output=/dev/null --dependency=afterok:{number}")
    working_slurm.wait_state(number, "RUNNING")
    working_slurm.controller.host.run_expect([0], "systemctl restart slurmctld")
    wait_until("slurmctld answers again", lambda: working_slurm.controller_answers, bool, 60)
    assert working_slurm.job(waiting).state == "PENDING", working_slurm.evidence(waiting)
    job = working_slurm.wait(number)
    assert job.state == "COMPLETED", working_slurm.evidence(number)
    assert working_slurm.output(job).strip() == "survived"
    assert working_slurm.wait(waiting).state == "COMPLETED"
    working_slurm.login.user_host.run("rm -f -- %s", job.stdout)


@pytest.mark.slow
def test_a_compute_node_comes_back_after_a_reboot(working_slurm: Slurm):
    node = working_slurm.cluster.slurm_nodes[-1]
    before = node.host.check_output("cat /proc/sys/kernel/random/boot_id")
    slurmd_before = working_slurm.nodes[node.name].slurmd_start
    node.host.run("systemd-run --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot")
    node.reconnect()

    def boot() -> str:
        time.sleep(2)
        return node.try_command("cat /proc/sys/kernel/random/boot_id")

    wait_until(
        f"{node.name} answers after its reboot", boot, lambda new: new not in ("", before), 240
    )
    # slurmctld notices late that a node was gone: a job sent before the new slurmd has registered
    # would wait for the old one.
    wait_until(
        f"{node.name} is ready for jobs after its reboot",
        lambda: working_slurm.nodes[node.name],
        lambda seen: seen.ready and seen.slurmd_start != slurmd_before,
        180,
        evidence=lambda: working_slurm.log(node),
    )
    assert working_slurm.run("hostname -s", options=f"-w {node.name}") == node.name
