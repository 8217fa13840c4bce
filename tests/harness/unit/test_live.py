"""Progress lines."""

import io
import time

import pytest

from deepops_fixtures.journal import Event, Journal
from deepops_fixtures.live import Live, colours_wanted, duration, line_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (9.96, "10.0 s"), (42, "42 s"), (59.7, "1 min 00 s"), (192, "3 min 12 s"),
     (3700, "1 h 01 min")],
)  # fmt: skip
def test_a_duration_reads_as_a_person_writes_it(seconds, text):
    assert duration(seconds) == text


def test_a_task_is_shown_with_its_role_and_outcome():
    event = Event(
        75.0, "note", "deploy", "Run munge", status="changed", seconds=0.7, detail="munge"
    )
    assert line_of(event, 10.0, colour=False) == "01:05 deploy munge : Run munge  changed 0.7 s"


def test_a_failed_step_is_loud():
    event = Event(75.0, "end", "up", "starting", status="failed", seconds=3.0)
    assert line_of(event, 75.0, colour=False) == "00:00 up     starting  FAILED in 3.0 s"
    assert "\x1b[" in line_of(event, 75.0, colour=True)


def test_colours_are_for_terminals(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not colours_wanted(io.StringIO())
    assert colours_wanted(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours_wanted(Terminal())


def test_the_follower_shows_what_other_processes_write_too(tmp_path):
    lines: list[str] = []
    live = Live(tmp_path / "events.jsonl", lines.append, colour=False)
    live.start()
    Journal(tmp_path / "events.jsonl").note("up", "booted", node="virtual-login")
    deadline = time.monotonic() + 5
    while not lines and time.monotonic() < deadline:
        time.sleep(0.05)
    Journal(tmp_path / "events.jsonl").note("up", "ready")
    live.stop()
    assert [line.split("up     ")[1] for line in lines] == ["virtual-login: booted", "ready"]


def test_a_long_task_says_that_it_still_runs_and_where():
    event = Event(
        75.0, "running", "deploy", "Slurm", node="b, c", seconds=60.2, detail="slurm-cluster"
    )
    line = line_of(event, 15.0, colour=False)
    assert line == "01:00 deploy slurm-cluster : Slurm  still running, 1 min 00 s, on b, c"
