"""What Slurm's commands print, as typed objects. Pure functions from text to objects; nothing is
run here.

``scontrol -o show`` and ``sacct --parsable2`` are read rather than ``--json``: their fields have
kept their names and meaning from 20.11 to 24.11, while the JSON changed its shape with each data
parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z_/:]*)=")
_BAD_STATES = frozenset(
    {
        "DOWN",
        "DRAIN",
        "DRAINED",
        "DRAINING",
        "FAIL",
        "FAILING",
        "ERROR",
        "UNKNOWN",
        "NOT_RESPONDING",
        "INVALID_REG",
        "FUTURE",
        "POWERED_DOWN",
        "REBOOT",
        "MAINT",
    }
)
ENDED = frozenset(
    {
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "OUT_OF_MEMORY",
        "NODE_FAIL",
        "PREEMPTED",
        "BOOT_FAIL",
        "DEADLINE",
        "REVOKED",
    }
)


def fields(line: str) -> dict[str, str]:
    """Return the Key=Value pairs of one line of ``scontrol -o show``; values may contain blanks.

    >>> fields("NodeName=n1 State=IDLE+DRAIN Reason=bad disk [root@2026-01-01]")["Reason"]
    'bad disk [root@2026-01-01]'
    """
    marks = list(_FIELD.finditer(line))
    pairs: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        end = following.start() if following else len(line)
        pairs.setdefault(mark[1], line[mark.end() : end].strip())
    return pairs


@dataclass(frozen=True)
class SlurmNode:
    """A node as slurmctld sees it (scontrol(1), show node). Memory is MiB."""

    name: str
    states: frozenset[str]
    cpus: int
    cpus_allocated: int
    real_memory: int
    reason: str = ""
    address: str = ""
    gres: str = ""
    #: When the slurmd that slurmctld last heard from began ('2026-11-24T04:02:00').
    slurmd_start: str = ""

    @property
    def ready(self) -> bool:
        """Whether jobs can start here now or as soon as the running ones end."""
        return not self.states & _BAD_STATES and bool(self.states & {"IDLE", "MIXED", "ALLOCATED"})

    @property
    def state(self) -> str:
        """The states in one word, as Slurm joins them: IDLE+DRAIN."""
        return "+".join(sorted(self.states, key=lambda word: word in _BAD_STATES))

    @classmethod
    def parse(cls, line: str) -> SlurmNode:
        """Return the node of one line of ``scontrol -o show node``."""
        pairs = fields(line)
        text = pairs.get("State", "UNKNOWN")
        words = {word for word in re.split(r"[+]", text.rstrip("*~#!%$@^-")) if word}
        if "*" in text:
            words.add("NOT_RESPONDING")
        return cls(
            name=pairs.get("NodeName", ""),
            states=frozenset(words),
            cpus=int(pairs.get("CPUTot", 0)),
            cpus_allocated=int(pairs.get("CPUAlloc", 0)),
            real_memory=int(pairs.get("RealMemory", 0)),
            reason=pairs.get("Reason", ""),
            address=pairs.get("NodeAddr", ""),
            gres=pairs.get("Gres", "").replace("(null)", ""),
            slurmd_start=pairs.get("SlurmdStartTime", ""),
        )


@dataclass(frozen=True)
class Partition:
    """A partition (scontrol(1), show partition)."""

    name: str
    state: str
    default: bool
    nodes: str
    total_nodes: int

    @classmethod
    def parse(cls, line: str) -> Partition:
        """Return the partition of one line of ``scontrol -o show partition``."""
        pairs = fields(line)
        return cls(
            name=pairs.get("PartitionName", ""),
            state=pairs.get("State", ""),
            default=pairs.get("Default", "") == "YES",
            nodes=pairs.get("Nodes", ""),
            total_nodes=int(pairs.get("TotalNodes", 0)),
        )


@dataclass(frozen=True)
class JobInfo:
    """A job as slurmctld knows it (scontrol(1), show job)."""

    id: int
    state: str
    reason: str
    exit_code: int
    signal: int
    nodes: str
    stdout: str
    raw: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether the job is over, well or badly."""
        return self.state in ENDED

    @classmethod
    def parse(cls, line: str) -> JobInfo:
        """Return the job of one line of ``scontrol -o show job``."""
        pairs = fields(line)
        code, _, signal = pairs.get("ExitCode", "0:0").partition(":")
        return cls(
            id=int(pairs.get("JobId", 0)),
            state=pairs.get("JobState", ""),
            reason=pairs.get("Reason", ""),
            exit_code=int(code),
            signal=int(signal or 0),
            nodes=pairs.get("NodeList", "").replace("(null)", ""),
            stdout=pairs.get("StdOut", ""),
            raw=pairs,
        )


@dataclass(frozen=True)
class AccountingRecord:
    """A job or step in the accounting database (sacct(1))."""

    id: str
    name: str
    user: str
    account: str
    state: str
    exit_code: int
    signal: int
    nodes: str

    FORMAT = "JobID,JobName,User,Account,State,ExitCode,NodeList"

    @classmethod
    def parse(cls, line: str) -> AccountingRecord:
        """Return the record of one line of ``sacct --parsable2 --noheader --format=FORMAT``."""
        job, name, user, account, state, exit_code, nodes = line.split("|")[:7]
        code, _, signal = exit_code.partition(":")
        return cls(
            id=job,
            name=name,
            user=user,
            account=account,
            state=state.split(" ", 1)[0],
            exit_code=int(code or 0),
            signal=int(signal or 0),
            nodes=nodes,
        )
