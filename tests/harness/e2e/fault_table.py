"""Five ways to break a Slurm cluster by hand, and the checks that must turn red for each.

Everything else stays green, or skips with the cause. The sets hold for a run of all checks
(``-m "slurm or services"``): a check skips for a cause only where its reporter runs too.
"""

from __future__ import annotations

from dataclasses import dataclass

NODE = "virtual-gpu01"
SERVICES = "tests/services"
SLURM = "tests/slurm"
_UNITS = "test_services_of_each_role_are_active_and_enabled"

#: Ends when the node takes jobs again; run on the node as root.
_TAKES_JOBS = (
    "timeout 120 sh -c 'until sinfo --noheader --nodes=$(hostname -s) --format=%t"
    ' | grep -qxE "idle|mix|alloc"; do sleep 1; done\''
)


@dataclass(frozen=True)
class Fault:
    """One breakage. Commands run as root on ``node``; each red check's text has ``message``."""

    name: str
    node: str
    break_command: str
    repair_command: str
    expected_red: frozenset[str]
    message: str


FAULTS = (
    Fault(
        name="slurmd stopped",
        node=NODE,
        break_command="systemctl stop slurmd",
        repair_command=f"systemctl start slurmd && {_TAKES_JOBS}",
        expected_red=frozenset([f"{SERVICES}/test_nodes.py::{_UNITS}[{NODE}]"]),
        message=r"slurmd is inactive \(dead\)",
    ),
    Fault(
        name="wrong munge key",
        node=NODE,
        # Written in place, so that owner and mode stay what they are.
        break_command=(
            "cp -a /etc/munge/munge.key /etc/munge/munge.key.right"
            " && head -c 1024 /dev/urandom > /etc/munge/munge.key && systemctl restart munge"
        ),
        repair_command=(
            "mv /etc/munge/munge.key.right /etc/munge/munge.key && systemctl restart munge slurmd"
            f" && {_TAKES_JOBS}"
        ),
        expected_red=frozenset(
            f"{SERVICES}/test_munge.py::{check}[{NODE}]"
            for check in (
                "test_munge_credential_made_on_one_node_decodes_on_every_other",
                "test_munge_key_is_the_same_as_everywhere",
            )
        ),
        message=rf"'{NODE}'[^\n]*(Invalid credential|is not that of the other nodes)",
    ),
    Fault(
        name="home unmounted",
        node=NODE,
        break_command="umount --lazy /home",
        repair_command=f"mount /home && {_TAKES_JOBS}",
        expected_red=frozenset(
            [f"{SERVICES}/test_nfs.py::test_home_and_sw_are_mounted_from_the_server[{NODE}]"]
        ),
        message=rf"On '{NODE}' /home is not mounted",
    ),
    Fault(
        name="node drained",
        node=NODE,
        break_command=f"scontrol update NodeName={NODE} State=DRAIN Reason='broken by hand'",
        repair_command=f"scontrol update NodeName={NODE} State=RESUME && {_TAKES_JOBS}",
        expected_red=frozenset(
            [f"{SLURM}/test_compute_nodes.py::test_compute_node_accepts_jobs[{NODE}]"]
        ),
        message=rf"{NODE} is [A-Z+]*DRAIN[A-Z+]*: broken by hand",
    ),
    Fault(
        name="rsyslog stopped",
        node=NODE,
        # Its socket would start it again at the next line.
        break_command="systemctl stop syslog.socket rsyslog.service",
        repair_command="systemctl start syslog.socket rsyslog.service",
        expected_red=frozenset([f"{SERVICES}/test_nodes.py::{_UNITS}[{NODE}]"]),
        message=r"rsyslog is inactive \(dead\)",
    ),
)
