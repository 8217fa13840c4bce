"""How long until the first check: a first run, which makes its cluster, against the runs after it.

    python benchmarks/second_run.py                          # one check on a deployed cluster
    python benchmarks/second_run.py --whole-suite            # all of the project's checks

The checkpoints of this cluster are dropped. Then one pytest command runs several times, from its
own folder: the first run is cold, it brings the cluster up, deploys and keeps checkpoints; every
later one starts from the checkpoint. The time to the first check goes from the start of pytest's
process to the moment at which the first test's own body begins; it includes Python's start,
collection, restoring and setting the clocks. The goal: a fortieth of the cold run's or less.

A cold run of the cluster 'debian' takes about ten minutes on two emulated CPUs, 'tiny' one.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import common
import first_check

from deepops_fixtures import resources
from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.topology import ClusterSpec

MODULE = "def test_the_cluster_is_there({fixture}):\n    assert len({fixture})\n"
COLD, WARM = "first run, cold", "later runs, from the checkpoint"
GOAL = 0.025


@dataclass(frozen=True)
class Run:
    """One run: the seconds until its first check and until its end, and what it said of both."""

    first_check: float
    whole: float
    restored: bool
    said: str


def drop_checkpoints(cluster: str, folder: Path) -> None:
    """Drop every checkpoint of a cluster; one in use ends the benchmark."""
    listed = json.loads(common.virtual(folder, "checkpoint", "list", "--json").output)
    names = [item["id"] for item in listed["checkpoints"] if item["cluster"] == cluster]
    if names:
        common.virtual(folder, "checkpoint", "drop", *names)
        common.say(f"dropped: {', '.join(names)}")


def one_run(cluster: str, checks: list[Path], folder: Path) -> Run:
    """Run the checks once and return how long it took."""
    moment = folder / "first-check"
    moment.unlink(missing_ok=True)
    here = str(Path(__file__).parent)
    env = {
        first_check.VARIABLE: str(moment),
        "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    options = ["-p", "first_check", "--deepops-cluster", cluster, "--deepops-reuse", "auto"]
    ended = common.pytest(folder, *options, *checks, env=env)
    lines = ended.output.splitlines()
    said = [line for line in lines if line.startswith(("start: ", "time: "))]
    restored = any("restored from checkpoint" in line for line in said)
    first = float(moment.read_text()) - ended.begin
    return Run(first, ended.seconds, restored, "; ".join(said))


def measure(cluster: str, checks: list[Path], runs: int, folder: Path) -> list[Run]:
    """Run once cold, then warm; return the runs, the cold one first."""
    found: list[Run] = []
    for number in range(runs + 1):
        run = one_run(cluster, checks, folder)
        if run.restored is (number == 0):
            raise SystemExit(f"Run {number + 1} did not begin as it should have: {run.said}")
        common.say(
            f"run {number + 1}: first check after {common.readable(run.first_check)}, "
            f"end after {common.readable(run.whole)} ({run.said})"
        )
        found.append(run)
    return found


def own_check(spec: ClusterSpec, folder: Path) -> Path:
    """Write a module with one check that asks for as much of the cluster as there can be."""
    fixture = "virtual_cluster" if not spec.deployment else "deepops"
    path = folder / "test_first.py"
    path.write_text(MODULE.format(fixture=fixture))
    return path


def options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--cluster", default="debian", help="a cluster's name or file [default: debian]"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs after the first [default: 3]")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--checks", type=Path, nargs="+", metavar="PATH", help="run these instead of one check"
    )
    what.add_argument(
        "--whole-suite", action="store_true", help="run all checks that come with the project"
    )
    return parser.parse_args()


def main() -> None:
    """Drop the checkpoints, run, and print the two tables."""
    arguments = options()
    spec = topology.load(arguments.cluster)
    cluster = str(topology.find(arguments.cluster).absolute())
    with common.workplace() as folder:
        checks = resources.checks() if arguments.whole_suite else arguments.checks
        checks = [path.absolute() for path in checks or [own_check(spec, folder)]]
        drop_checkpoints(spec.name, folder)
        cold, *warm = measure(cluster, checks, arguments.runs, folder)
    first = {COLD: [cold.first_check], WARM: [run.first_check for run in warm]}
    whole = {COLD: [cold.whole], WARM: [run.whole for run in warm]}
    ratio = common.show(f"until the first check on '{spec.name}'", first)[WARM]
    common.show("until the end of the run", whole)
    common.say(
        f"Later runs reach their first check {1 / ratio:.0f} times sooner: {ratio:.3f} of the "
        f"first run (goal: {GOAL} or less)."
    )
    common.write(arguments.json, {"cluster": spec.name, "first_check": first, "whole": whole})


if __name__ == "__main__":
    main()
