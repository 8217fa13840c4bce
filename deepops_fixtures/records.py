"""Plain records that rooms hand to one another: what was run on a node and what came back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CommandRecord:
    """One command on one node. ``exit_status`` is -1 when there was no connection; ``seconds`` is
    its duration."""

    node: str
    command: str
    exit_status: int
    stdout: str
    stderr: str
    seconds: float
    user: str = "root"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a report that travels between processes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CommandRecord:
        """Return the record of such data."""
        return cls(**data)


@dataclass(frozen=True)
class CheckOutcome:
    """How one test ended: 'passed', 'failed', 'error', 'skipped'; ``begin`` is seconds since the
    epoch."""

    nodeid: str
    outcome: str
    begin: float
    seconds: float
    node: str = ""
    #: The first line of what it said: the cause.
    message: str = ""
    worker: str = ""
    #: The parts of DeepOps that it is a statement about, by its markers.
    parts: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether it speaks against the cluster."""
        return self.outcome in ("failed", "error")

    @property
    def name(self) -> str:
        """The test's own name, without its file."""
        return self.nodeid.rsplit("::", 1)[-1]
