"""Running other programs: in their own process group, with a deadline, their output in a log file.

Not for commands on the nodes of a cluster (testinfra does those) nor for playbooks
(ansible-runner).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepops_fixtures.errors import StepTimeout


@dataclass(frozen=True)
class Deadline:
    """A moment by which something has to be done; passed down, so that nested steps share one
    budget."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return self.left <= 0


def boot_id() -> str:
    """Return what tells this start of this host from its others (random(4))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def tail(path: Path, lines: int = 25) -> str:
    """Return the last lines of a text file, or '' when there is none."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def kill_group(pgid: int, grace: float = 10.0) -> None:
    """End a process group: SIGTERM, then SIGKILL for what is left after ``grace`` seconds."""
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pgid, signum)
        except (ProcessLookupError, PermissionError):
            return
        deadline = Deadline.after(patience)
        while not deadline.passed:
            if not group_alive(pgid):
                return
            time.sleep(0.05)


def group_alive(pgid: int) -> bool:
    """Return whether a process of this group still runs (zombies do not count)."""
    import psutil

    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == pgid and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def run_logged(
    command: Sequence[str | Path],
    *,
    log: Path,
    deadline: Deadline,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_start: Callable[[int], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    hint: str = "",
) -> int:
    """Run ``command`` to its end and return its exit status.

    Its output is appended to ``log``. It leads a process group of its own, so that a Ctrl-C in the
    terminal reaches only us, and so that nothing it started survives it: the group is ended when
    the deadline passes (StepTimeout) and when anything interrupts the wait. ``on_start`` gets the
    group's id before the wait begins, ``on_tick`` is called about four times a second.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        sink.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        sink.flush()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        if on_start:
            on_start(process.pid)
        while process.poll() is None:
            if deadline.passed:
                raise StepTimeout(
                    f"{what} did not end within {deadline.seconds:.0f} s and was stopped.",
                    detail=tail(log),
                    hint=hint or f"read {log}",
                )
            if on_tick:
                on_tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.25)
        return process.returncode
    finally:
        if process.poll() is None:
            kill_group(process.pid)
            process.wait()
