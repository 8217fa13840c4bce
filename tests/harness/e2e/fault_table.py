"""The fault table: what is broken on purpose, and exactly which checks turn red then, saying what.

Every entry was seen on real machines; ``test_faults`` replays the whole table. A check that no
entry turns red has not earned its place yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

GPU = "virtual-gpu01"
MGMT = "virtual-mgmt"
LOGIN = "virtual-login"

UNITS = "test_every_service_of_the_node_runs_and_comes_back_after_a_reboot"
PORTS = "test_every_service_of_the_node_listens_on_its_port"
MOUNTED = "test_home_and_sw_are_mounted_from_the_server"
READY = "test_the_compute_node_is_ready_for_jobs"
NO_CONTROLLER = f"slurmctld on '{LOGIN}' does not answer"


@dataclass(frozen=True)
class Fault:
    """One way to break a cluster."""

    name: str
    node: str
    #: Shell commands that root runs on the node. Nobody mends it: the cluster is put back to its
    #: checkpoint.
    break_it: str
    #: Test name → words that its message must have: the cause.
    red: dict[str, str] = field(default_factory=dict)
    #: Commands for root on other nodes afterwards: node → commands.
    then: dict[str, str] = field(default_factory=dict)


FAULTS = (
    Fault(
        "slurmd-stopped", GPU,
        "systemctl stop slurmd",
        {
            f"{UNITS}[{GPU}]": "slurmd.service is inactive",
            f"{PORTS}[{GPU}]": "nothing listens for slurmd (6818/tcp)",
            f"{READY}[{GPU}]": "slurmd does not run",
        },
    ),
    Fault(
        "wrong-munge-key", GPU,
        "dd if=/dev/urandom of=/etc/munge/munge.key bs=128 count=1 status=none; "
        "systemctl restart munge",
        {
            "test_munge_credentials_of_every_node_decode_on_every_other":
                f"{GPU} has another munge key than the rest",
            "test_munge_key_is_the_same_on_every_node":
                f"munge.key differs from {LOGIN}'s on: {GPU}",
            f"{READY}[{GPU}]": "munge does not accept the controller's credential",
        },
    ),
    Fault(
        "home-unmounted", MGMT,
        "umount --lazy /home",
        {
            f"{MOUNTED}[{MGMT}]": f"{MGMT} has mounted {{'/home': 'nothing'}}",
            "test_a_file_written_on_one_node_is_read_on_every_other": f"{MGMT} does not see what",
            f"{READY}[{MGMT}]": "/home is not mounted",
        },
    ),
    Fault(
        "node-drained", MGMT,
        f"scontrol update NodeName={MGMT} State=DRAIN Reason='bad fan'",
        {f"{READY}[{MGMT}]": "reason: bad fan"},
    ),
    Fault(
        "rsyslog-stopped", GPU,
        "systemctl stop syslog.socket rsyslog.service",
        {
            f"{UNITS}[{GPU}]": "rsyslog.service is inactive",
            f"test_a_log_line_of_the_node_arrives_on_the_server[{GPU}]":
                f"of '{GPU}' arrives in {LOGIN}:/var/log/deepops-hosts/{GPU}: not within",
        },
    ),
    Fault(
        "slurm.conf-differs", MGMT,
        "echo '# edited by hand' >> /etc/slurm/slurm.conf",
        {
            "test_every_node_has_the_same_slurm_configuration":
                f"differs from the controller's on {MGMT}",
        },
    ),
    Fault(
        "wrong-address-in-hosts", MGMT,
        f"sed -i 's/^[0-9.]* {GPU}$/192.0.2.7 {GPU}/' /etc/hosts",
        {
            f"test_the_node_resolves_every_node_to_its_cluster_address[{MGMT}]":
                f"{MGMT} resolves {GPU} -> 192.0.2.7",
        },
    ),
    Fault(
        "disk-full", MGMT,
        "fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - 100000000)) /var/filler",
        {f"test_the_node_has_room_on_its_disks[{MGMT}]": f"{MGMT}: nearly full"},
    ),
    Fault(
        "slurmctld-stopped", LOGIN,
        "systemctl stop slurmctld",
        {
            f"{UNITS}[{LOGIN}]": "slurmctld.service is inactive",
            f"{PORTS}[{LOGIN}]": "nothing listens for slurmctld (6817/tcp)",
            "test_slurmctld_answers": "does not answer 'scontrol ping'",
            "test_the_cluster_is_registered_in_accounting": "slurmctld has not registered",
            "test_partition_batch_is_up_and_default_and_has_every_compute_node": NO_CONTROLLER,
            f"{READY}[{GPU}]": NO_CONTROLLER,
            f"{READY}[{MGMT}]": NO_CONTROLLER,
            f"test_slurm_knows_the_cpus_the_node_has[{GPU}]": NO_CONTROLLER,
            f"test_slurm_knows_the_cpus_the_node_has[{MGMT}]": NO_CONTROLLER,
            f"test_slurm_knows_the_memory_the_node_has[{GPU}]": NO_CONTROLLER,
            f"test_slurm_knows_the_memory_the_node_has[{MGMT}]": NO_CONTROLLER,
        },
    ),
    Fault(
        "slurmdbd-stopped", LOGIN,
        "systemctl stop slurmdbd",
        {
            f"{UNITS}[{LOGIN}]": "slurmdbd.service is inactive",
            f"{PORTS}[{LOGIN}]": "nothing listens for slurmdbd (6819/tcp)",
            "test_the_cluster_is_registered_in_accounting": "slurmdbd",
            "test_accounting_knows_the_finished_job_its_user_and_its_exit_code":
                f"slurmdbd on '{LOGIN}' does not answer sacct",
        },
    ),
    Fault(
        "clock-off", MGMT,
        "systemctl stop chrony; date -s '+45 seconds'",
        {
            f"{UNITS}[{MGMT}]": "chrony.service is inactive",
            "test_the_clocks_of_all_nodes_agree": f"{MGMT} is 4",
            f"test_the_clock_of_the_node_follows_a_source[{MGMT}]": "chrony does not answer",
        },
    ),
    Fault(
        "jobs-not-confined", GPU,
        "sed -i '/^Constrain/s/=yes/=no/' /etc/slurm/cgroup.conf; "
        "sed -i /pam_slurm_adopt/d /etc/pam.d/sshd; systemctl restart slurmd",
        {
            "test_every_node_has_the_same_slurm_configuration":
                f"cgroup.conf differs from {MGMT}'s on {GPU}",
            f"test_ssh_to_the_compute_node_is_refused_without_a_job[{GPU}]":
                f"has no job on {GPU} and got in",
            "test_a_job_sees_only_the_cpus_it_asked_for": f"on {GPU} (2 CPUs) could take 2",
            "test_a_job_over_its_memory_is_killed_and_its_node_survives":
                "took 400 MiB with 80 MiB granted and is COMPLETED",
        },
    ),
    Fault(
        "neglected", MGMT,
        "chmod 0644 /etc/munge/munge.key; systemd-run --unit=neglected false; "
        "echo '<2>EXT4-fs error (device vda1): made up by a test' > /dev/kmsg",
        {
            f"test_munge_key_can_be_read_by_munge_alone[{MGMT}]": "munge.key is munge:munge 644",
            f"test_no_unit_of_the_node_has_failed[{MGMT}]": "neglected.service",
            f"test_the_kernel_of_the_node_has_not_complained[{MGMT}]": "EXT4-fs error",
        },
    ),
)  # fmt: skip


def in_rounds(faults: Iterable[Fault], *names: str) -> tuple[tuple[Fault, ...], ...]:
    """Return the faults that are tried at the same time, given as their names with spaces between:
    faults with no check in common share one run of all checks."""
    table = {fault.name: fault for fault in faults}
    return tuple(tuple(table[name] for name in together.split()) for together in names)


ROUNDS = in_rounds(
    FAULTS,
    "slurmd-stopped home-unmounted",
    "wrong-munge-key rsyslog-stopped node-drained slurm.conf-differs wrong-address-in-hosts "
    "disk-full neglected",
    "slurmctld-stopped",
    "jobs-not-confined slurmdbd-stopped clock-off",
)
