"""What the harness is doing, as a stream of events: one JSON object a line in ``events.jsonl`` of
the run.

Code announces steps here and knows nothing of who listens. The live display, the report's timeline
and the other processes of an xdist run are readers of the same file. Not for log output of tools:
each tool's output has a file of its own, whose path a step carries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["begin", "end", "note", "running"]


@dataclass(frozen=True)
class Event:
    """One line of the journal. ``time`` is seconds since the epoch, ``seconds`` a duration."""

    time: float
    kind: Kind
    phase: str
    what: str
    node: str = ""
    status: str = ""
    seconds: float | None = None
    detail: str = ""
    pid: int = 0

    @classmethod
    def parse(cls, line: str) -> Event | None:
        """Return the event on this line, or None for a line that a dying process left
        half-written."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError):
            return None


class Journal:
    """Writer and reader of one run's events. Safe to share between processes: each line is one
    write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, **fields: Any) -> None:
        event = {"time": time.time(), "pid": os.getpid(), **fields}
        data = (
            json.dumps({k: v for k, v in event.items() if v not in ("", None)}) + "\n"
        ).encode()
        # A full disk must stop neither the work nor, above all, the teardown.
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    @contextmanager
    def step(self, phase: str, what: str, node: str = "", detail: str = "") -> Iterator[None]:
        """Announce a step and its end, with its duration and whether it succeeded."""
        begin = time.monotonic()
        self._write(kind="begin", phase=phase, what=what, node=node, detail=detail)
        status = "failed"
        try:
            yield
            status = "ok"
        except (KeyboardInterrupt, SystemExit):
            status = "interrupted"
            raise
        finally:
            took = round(time.monotonic() - begin, 3)
            self._write(kind="end", phase=phase, what=what, node=node, status=status, seconds=took)

    def note(
        self,
        phase: str,
        what: str,
        node: str = "",
        status: str = "",
        detail: str = "",
        seconds: float | None = None,
    ) -> None:
        """Announce something that happened at one moment (or has ended and took ``seconds``)."""
        self._write(
            kind="note",
            phase=phase,
            what=what,
            node=node,
            status=status,
            detail=detail,
            seconds=seconds,
        )

    def running(
        self, phase: str, what: str, node: str = "", detail: str = "", seconds: float | None = None
    ) -> None:
        """Announce that something goes on which began ``seconds`` ago."""
        self._write(
            kind="running", phase=phase, what=what, node=node, detail=detail, seconds=seconds
        )

    def events(self) -> list[Event]:
        """Return every event written so far, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(errors="replace").splitlines()
        return [event for event in map(Event.parse, lines) if event is not None]
