"""What the benchmarks share: commands with a time, one table, one JSON file.

Every number that a benchmark prints is a ratio against a baseline of the same run, because the
seconds themselves are the host's. The caller's DEEPOPS_* variables count, as they do elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.journal import Journal
from deepops_fixtures.report import timeline
from deepops_fixtures.settings import Settings

console = Console()


@dataclass(frozen=True)
class Ended:
    """A command that ended well: when it began, how long it took, what it wrote on stdout."""

    begin: float
    seconds: float
    output: str


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's own text and that knows ``--json``."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there too")
    return made


@contextmanager
def workplace() -> Iterator[Path]:
    """Give an empty folder to run in; it goes when all went well, else its path is said."""
    folder = Path(tempfile.mkdtemp(prefix="deepops-benchmark-"))
    try:
        yield folder
    except BaseException:
        say(f"What was written so far is in {folder}")
        raise
    shutil.rmtree(folder)


def run(
    command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None
) -> Ended:
    """Run a command in a folder to its end. One that fails ends the benchmark with its output."""
    begin, clock = time.time(), time.perf_counter()
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - clock
    if done.returncode != 0:
        last = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-40:])
        words = " ".join(map(str, command))
        raise SystemExit(f"{last}\n'{words}' ended with status {done.returncode}.")
    return Ended(begin, seconds, done.stdout)


def pytest(folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run pytest in a folder, its reports below it."""
    options = ["-p", "no:cacheprovider", f"--deepops-reports={folder / 'reports'}"]
    return run([sys.executable, "-m", "pytest", *options, *arguments], folder, env)


def virtual(folder: Path, *arguments: str | Path) -> Ended:
    """Run ``deepops-virtual`` in a folder."""
    return run([Path(sys.executable).with_name("deepops-virtual"), *arguments], folder)


def destroy(name: str, folder: Path) -> None:
    """Destroy an instance if there is one of that name."""
    if LedgerBook(Settings.load().state_dir).read(name):
        virtual(folder, "destroy", name)


def say(text: str) -> None:
    """Print a line of text as it is, however long."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def phases(reports: Path) -> dict[str, float]:
    """Return the seconds by phase of the one run below a folder of reports."""
    journal = next(path for path in reports.glob("*/events.jsonl") if not path.parent.is_symlink())
    return timeline.build(Journal(journal).events(), []).phases


def readable(seconds: float) -> str:
    """Return a time with as many digits as it is worth."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 2 else f"{seconds:.1f} s"


def show(title: str, times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print a row a way of doing one thing; return each way's ratio to the first, the baseline."""
    baseline = statistics.median(next(iter(times.values())))
    ratios = {name: statistics.median(values) / baseline for name, values in times.items()}
    table = Table("way", "median", "worst", "runs", "ratio", title=title, title_justify="left")
    for name, values in times.items():
        median, worst = readable(statistics.median(values)), readable(max(values))
        table.add_row(name, median, worst, str(len(values)), f"{ratios[name]:.2f}")
    console.print(table)
    return ratios


def write(path: Path | None, numbers: Mapping[str, Any]) -> None:
    """Write the raw numbers as JSON where ``--json`` asked for it."""
    if path:
        path.write_text(json.dumps(numbers, indent=1) + "\n")
