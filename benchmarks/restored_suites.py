"""Whether a restored cluster is as good as a new one: the whole check suite on it, many times.

    pytest -m "slurm or services" --deepops-cluster debian      # leaves the checkpoint
    python benchmarks/restored_suites.py --rounds 20 -- -n 3

Every round restores the cluster from its checkpoint, runs all checks, destructive ones included,
and destroys it; what follows ``--`` goes to pytest. A check that is not green is named, with the
folder of its round, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deepops_fixtures import resources


def suite(cluster: str, folder: Path, more: list[str]) -> tuple[int, float, Path]:
    """Run the suite once on the restored cluster; return status, seconds and JUnit file."""
    junit = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    command += ["-m", "slurm or services", "--deepops-cluster", cluster]
    command += ["--deepops-reuse", "require", f"--junitxml={junit}", *more]
    begin = time.monotonic()
    with (folder / "output.log").open("wb") as log:
        done = subprocess.run(
            [*command, *map(str, resources.checks())],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode, time.monotonic() - begin, junit


def outcomes(junit: Path) -> tuple[int, int, list[str]]:
    """Return how many checks passed, how many were skipped, and what the others said."""
    passed, skipped, bad = 0, 0, []
    for case in ElementTree.parse(junit).iter("testcase"):
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        if wrong is not None:
            said = (wrong.get("message") or "").splitlines() or [""]
            bad.append(f"{case.get('name')}: {said[0][:200]}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, skipped, bad


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cluster", default="debian")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("pytest", nargs="*", help="more arguments of pytest, after --")
    arguments = parser.parse_args()
    console = Console()
    times, red = [], 0
    for number in range(1, arguments.rounds + 1):
        folder = Path(tempfile.mkdtemp(prefix=f"restored-{number:02d}-"))
        status, seconds, junit = suite(arguments.cluster, folder, arguments.pytest)
        passed, skipped, bad = outcomes(junit) if junit.exists() else (0, 0, ["no check ran"])
        good = status == 0 and passed > 0 and not bad
        times.append(seconds)
        red += not good
        word = "green" if good else f"RED (status {status})"
        console.print(
            f"round {number}: {word}, {passed} passed, {skipped} skipped, {seconds:.0f} s"
            + ("" if good else f", {folder}")
        )
        for text in bad:
            console.print(f"  {text}", style="red", markup=False)
    table = Table("rounds", "green", "red", "median", "longest")
    table.add_row(
        str(len(times)),
        str(len(times) - red),
        str(red),
        f"{statistics.median(times):.0f} s",
        f"{max(times):.0f} s",
    )
    console.print(table)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
