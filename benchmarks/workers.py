"""How much sooner the check suite ends with several workers, and what bounds it.

    deepops-virtual up --name bench --parts slurm && deepops-virtual deploy bench --parts slurm
    python benchmarks/workers.py bench
    deepops-virtual destroy bench

Runs the project's checks on a cluster that is deployed, one after another and by 2 and 4 workers
of xdist, destructive ones left out. One run goes before them that is not counted, so that all find
the guests equally warm. Beside each time stands how many CPUs of this host the guests used on
average: where that is all there are, the guests and not the workers are what a run waits for. The
goal: 4 workers take 0.7 of the serial time or less, where the guests leave a CPU free.
"""

from __future__ import annotations

import os
import statistics
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import common
import psutil
from rich.table import Table

from deepops_fixtures import resources
from deepops_fixtures.cluster import hypervisor

CHECKS = "(slurm or services) and not destructive"


@dataclass(frozen=True)
class Run:
    """One run of the suite: its seconds, and the CPUs that were busy meanwhile, on average."""

    seconds: float
    guests: float
    host: float


def guests_seconds(name: str) -> float:
    """Return the CPU seconds that the QEMU processes of an instance have used since they began."""
    used = 0.0
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if "guest=deepops-" in command and hypervisor.instance_of(process, command) == name:
            with suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
    return used


def host_seconds() -> float:
    """Return the CPU seconds that all CPUs of this host together were busy since it began."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def one_run(name: str, workers: int, folder: Path, markers: str) -> Run:
    """Run the checks with these markers once."""
    guests, host = guests_seconds(name), host_seconds()
    options = ["-q", "-m", markers, "--deepops-attach", name]
    if workers:
        options += ["-n", str(workers)]
    seconds = common.pytest(folder, *options, *resources.checks()).seconds
    return Run(
        seconds,
        (guests_seconds(name) - guests) / seconds,
        (host_seconds() - host) / seconds,
    )


def measure(
    name: str, counts: list[int], rounds: int, folder: Path, markers: str
) -> dict[int, list[Run]]:
    """Run the suite once to warm the guests up, then with each number of workers in turns."""
    one_run(name, 0, folder, markers)
    runs: dict[int, list[Run]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            runs[count].append(one_run(name, count, folder, markers))
            common.say(f"{way(count)}: {common.readable(runs[count][-1].seconds)}")
    return runs


def way(workers: int) -> str:
    """Return the words for a number of workers."""
    return f"-n {workers}" if workers else "serial"


def show_processors(runs: dict[int, list[Run]]) -> None:
    """Print how busy the host's CPUs were."""
    cpus = os.cpu_count()
    table = Table("way", "guests", "all of the host", title=f"CPUs busy on average, of {cpus}")
    for count, found in runs.items():
        guests = statistics.median(run.guests for run in found)
        host = statistics.median(run.host for run in found)
        table.add_row(way(count), f"{guests:.2f}", f"{host:.2f}")
    common.console.print(table)


def main() -> None:
    """Measure and print both tables."""
    parser = common.parser(__doc__)
    parser.add_argument("cluster", help="name of a cluster instance that is deployed")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each way [default: 1]")
    parser.add_argument(
        "--workers", default="2,4", help="numbers of workers to compare [default: 2,4]"
    )
    parser.add_argument(
        "--markers",
        default=CHECKS,
        help=f"which checks, as pytest's -m has it [default: {CHECKS}]",
    )
    arguments = parser.parse_args()
    counts = [0, *map(int, arguments.workers.split(","))]
    with common.workplace() as folder:
        runs = measure(arguments.cluster, counts, arguments.rounds, folder, arguments.markers)
    times = {way(count): [run.seconds for run in found] for count, found in runs.items()}
    common.show(f"the check suite on '{arguments.cluster}'", times)
    show_processors(runs)
    numbers = {way(count): [asdict(run) for run in found] for count, found in runs.items()}
    common.write(arguments.json, {"cpus": os.cpu_count(), "runs": numbers})


if __name__ == "__main__":
    main()
