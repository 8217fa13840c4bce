"""Live progress: follows the run's journal and prints one line an event, in pytest's output or on
a terminal.

It reads the file that every process of an xdist run writes, so that work in a worker is seen too.
Not for the report: that reads the same journal when all is over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import click

from deepops_fixtures.journal import Event

_COLOURS = {
    "failed": "red",
    "unreachable": "red",
    "interrupted": "red",
    "changed": "yellow",
    "ok": "green",
}


def colours_wanted(stream: TextIO) -> bool:
    """Return whether this stream is a terminal that shows colours (NO_COLOR is heeded)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """Return a duration as a person writes it: 4 s, 1 min 12 s, 1 h 4 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def line_of(event: Event, begin: float, colour: bool) -> str:
    """Return the line that shows this event, '' when it is not worth one."""
    clock = str(timedelta(seconds=int(max(0.0, event.time - begin))))[-5:]
    subject = event.what
    if event.phase == "deploy" and event.kind in ("note", "running"):
        subject = f"{event.detail} : {event.what}"
    elif event.node:
        subject = f"{event.node}: {event.what}"
    outcome = ""
    if event.kind == "begin":
        outcome = "..."
    elif event.kind == "end":
        done = "done" if event.status == "ok" else event.status.upper()
        outcome = f"{done} in {duration(event.seconds or 0)}"
    elif event.kind == "running":
        outcome = f"still running, {duration(event.seconds or 0)}"
        outcome += f", on {event.node}" if event.node else ""
    else:
        took = "" if event.seconds is None else duration(event.seconds)
        word = event.status if event.status != "ok" or event.phase == "deploy" else ""
        outcome = " ".join(part for part in (word, took) if part)
    if colour:
        outcome = click.style(outcome, fg=_COLOURS.get(event.status))
        clock = click.style(clock, dim=True)
        return f"{clock} {click.style(event.phase.ljust(6), bold=True)} {subject}  {outcome}"
    return f"{clock} {event.phase.ljust(6)} {subject}  {outcome}".rstrip()


class Live:
    """A thread that follows a journal file from now on and hands its lines to ``write``."""

    def __init__(self, path: Path, write: Callable[[str], None], *, colour: bool) -> None:
        self._path = path
        self._write = write
        self._colour = colour
        self._offset = 0
        self._begin = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="deepops-live", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Show what is left and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._look()

    def _follow(self) -> None:
        while not self._stop.wait(0.3):
            self._look()

    def _look(self) -> None:
        try:
            with self._path.open("rb") as journal:
                journal.seek(self._offset)
                data = journal.read()
        except OSError:
            return
        whole, newline, _rest = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for text in whole.decode(errors="replace").splitlines():
            event = Event.parse(text)
            if event and event.phase not in ("checks", "stage"):
                self._begin = self._begin or event.time
                self._write(line_of(event, self._begin, self._colour))
