"""What the plugin costs a run that asks for no cluster: start-up, collection, 200 empty tests.

    python benchmarks/startup.py

Three ways in turns and in a random order: pytest alone (no plugin but its own), pytest with every
installed plugin except ours (xdist, html, testinfra among them), and with ours. Python's compiled
files are kept in a folder of the benchmark, so that every way finds them. The goal: ours on top of
plain pytest costs 1.3 times plain pytest or less.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import common
from rich.progress import track

MODULE = """\
import pytest


@pytest.mark.parametrize("number", range(200))
def test_nothing(number):
    pass
"""
PLAIN, OTHERS, OURS = "pytest alone", "with the other plugins", "with ours too"
#: Way → pytest's options and the variables that bring it about.
WAYS: Mapping[str, tuple[list[str], dict[str, str]]] = {
    PLAIN: ([], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
    OTHERS: (["-p", "no:deepops"], {}),
    OURS: ([], {}),
}
GOAL = 1.3


def one_run(way: str, folder: Path) -> float:
    """Return the seconds of one run from the start of its process to its end."""
    options, variables = WAYS[way]
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled"), **variables}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "tests"]
    return common.seconds_of(
        lambda: subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    )


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Run every way once to fill the caches, then in turns; return the seconds each run took."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_nothing.py").write_text(MODULE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for way in WAYS:
        one_run(way, folder)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in track(range(rounds), description="measuring", console=common.console):
        for way in random.sample(list(WAYS), len(WAYS)):
            times[way].append(one_run(way, folder))
    return times


def main() -> None:
    """Measure and print the table, and what ours alone adds."""
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each way [default: 15]")
    arguments = parser.parse_args()
    with common.workplace() as folder:
        times = measure(folder, arguments.rounds)
    common.show("200 empty tests, no cluster asked for", times)
    plain, others, ours = (statistics.median(times[way]) for way in WAYS)
    ratio = (plain + ours - others) / plain
    common.say(
        f"Ours adds {common.readable(ours - others)}: {ratio:.2f} of plain pytest "
        f"(goal: {GOAL} or less), {ours / others:.2f} of pytest with the other plugins."
    )
    common.write(arguments.json, {"times": times, "ours_on_plain": ratio})


if __name__ == "__main__":
    main()
