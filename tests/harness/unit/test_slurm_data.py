"""Slurm's own output as objects; the texts are real output of Slurm 22.05 and 23.11."""

import pytest

from deepops_fixtures.checks.slurm_data import (
    AccountingRecord,
    JobInfo,
    Partition,
    SlurmNode,
    fields,
)

NODE = (
    "NodeName=virtual-gpu01 Arch=x86_64 CoresPerSocket=1  CPUAlloc=1 CPUEfctv=2 CPUTot=2 "
    "CPULoad=0.05 AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:1 "
    "NodeAddr=10.86.1.13 NodeHostName=virtual-gpu01 Version=22.05.8 OS=Linux 6.1.0 #1 SMP "
    "RealMemory=973 AllocMem=0 FreeMem=700 Sockets=2 Boards=1 State={state} ThreadsPerCore=1 "
    "TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=batch  "
    "BootTime=2026-11-24T03:59:00 SlurmdStartTime=2026-11-24T04:02:00 {reason}"
)


def node(state: str, reason: str = "") -> SlurmNode:
    return SlurmNode.parse(NODE.format(state=state, reason=reason))


def test_a_node_is_read_with_its_hardware():
    seen = node("MIXED")
    assert (seen.name, seen.cpus, seen.cpus_allocated, seen.real_memory, seen.gres) == (
        "virtual-gpu01", 2, 1, 973, "gpu:1",
    )  # fmt: skip
    assert (seen.address, seen.slurmd_start) == ("10.86.1.13", "2026-11-24T04:02:00")


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        ("IDLE", True),
        ("MIXED", True),
        ("ALLOCATED", True),
        ("IDLE+DRAIN", False),
        ("MIXED+DRAIN", False),
        ("DOWN", False),
        ("DOWN*", False),
        ("IDLE*", False),
        ("IDLE+NOT_RESPONDING", False),
        ("UNKNOWN", False),
        ("IDLE+COMPLETING", True),
        ("DOWN+INVALID_REG", False),
    ],
)
def test_a_node_is_ready_only_when_jobs_can_start_on_it(state, ready):
    assert node(state).ready is ready


def test_a_reason_keeps_its_blanks_and_signs():
    seen = node("IDLE+DRAIN", "Reason=Prolog error=7, see log [root@2026-11-24T04:00:00]")
    assert seen.reason == "Prolog error=7, see log [root@2026-11-24T04:00:00]"
    assert seen.state == "IDLE+DRAIN"


def test_fields_of_a_partition():
    line = (
        "PartitionName=batch AllowGroups=ALL Default=YES QoS=N/A MaxTime=UNLIMITED "
        "Nodes=virtual-[gpu01,mgmt] PriorityTier=1 State=UP TotalCPUs=3 TotalNodes=2"
    )
    seen = Partition.parse(line)
    assert (seen.name, seen.state, seen.default, seen.total_nodes) == ("batch", "UP", True, 2)
    assert fields(line)["MaxTime"] == "UNLIMITED"


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("COMPLETED", "0:0", (True, 0, 0)),
        ("FAILED", "7:0", (True, 7, 0)),
        ("RUNNING", "0:0", (False, 0, 0)),
        ("OUT_OF_MEMORY", "0:125", (True, 0, 125)),
        ("PENDING", "0:0", (False, 0, 0)),
    ],
)
def test_a_job_knows_whether_and_how_it_ended(state, code, expected):
    job = JobInfo.parse(
        f"JobId=12 JobName=wrap UserId=vagrant(1000) JobState={state} Reason=None "
        f"Dependency=(null) ExitCode={code} NodeList=virtual-mgmt StdOut=/home/me/slurm-12.out"
    )
    assert (job.ended, job.exit_code, job.signal) == expected
    assert (job.id, job.nodes) == (12, "virtual-mgmt")


def test_an_accounting_record_drops_who_cancelled():
    record = AccountingRecord.parse("12|wrap|vagrant|compute-account|CANCELLED by 1000|0:15|n1")
    assert (record.state, record.exit_code, record.signal) == ("CANCELLED", 0, 15)
