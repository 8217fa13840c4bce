"""Programs with a deadline: nothing they started survives it."""

import os

import psutil
import pytest

from deepops_fixtures.errors import StepTimeout
from deepops_fixtures.proc import Deadline, run_logged, tail


def runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_and_status_are_kept(tmp_path):
    log = tmp_path / "logs" / "x.log"
    command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    assert run_logged(command, log=log, deadline=Deadline.after(10), what="it") == 3
    assert "out\nerr" in log.read_text()


def test_past_the_deadline_the_whole_group_is_ended(tmp_path):
    pid_file = tmp_path / "pid"
    script = f"sh -c 'echo $$ > {pid_file}; exec sleep 60' & echo halfway; wait"
    with pytest.raises(StepTimeout, match="'the tool'") as caught:
        run_logged(
            ["sh", "-c", script],
            log=tmp_path / "x.log",
            deadline=Deadline.after(0.6),
            what="'the tool'",
        )
    assert "halfway" in caught.value.detail
    assert not runs(int(pid_file.read_text()))


def test_an_interruption_ends_the_group_too(tmp_path):
    groups: list[int] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged(
            ["sleep", "60"],
            log=tmp_path / "x.log",
            deadline=Deadline.after(30),
            what="it",
            on_start=groups.append,
            on_tick=interrupt,
        )
    with pytest.raises(ProcessLookupError):
        os.killpg(groups[0], 0)


def test_the_tail_of_what_is_not_there_is_empty(tmp_path):
    assert tail(tmp_path / "none") == ""
    (tmp_path / "some").write_text("a\nb\nc\n")
    assert tail(tmp_path / "some", 2) == "b\nc"
