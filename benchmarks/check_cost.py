"""What one check costs: a command through the harness, against raw multiplexed ssh.

Run it on a cluster that is up:

    deepops-virtual up --cluster tiny --name bench
    python benchmarks/check_cost.py bench
    deepops-virtual destroy bench

Both run the same command over the same kind of connection, in turns, so that a busy host slows
both. The ratio of the medians is what counts; the goal is 1.2 or less. Plain testinfra (its own
ssh backend without our ssh_config's multiplexing) and sudo are shown for comparison.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable

import testinfra
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.cluster.running import Nodes, RunningCluster
from deepops_fixtures.settings import Settings

COMMAND = "systemctl is-active ssh"


def ways(name: str, node_name: str) -> dict[str, Callable[[], object]]:
    """Return the ways to run the command, the baseline first."""
    folder = LedgerBook(Settings.load().state_dir).path(name)
    cluster = RunningCluster.model_validate_json((folder / "cluster.json").read_text())
    assert cluster.ssh_config
    node = Nodes(cluster, record=lambda _record: None)[node_name]
    config = str(cluster.ssh_config)
    raw = ["ssh", "-F", config, "-l", "root", node_name, COMMAND]
    alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    with_sudo = testinfra.get_host(f"ssh://{node_name}", ssh_config=config, sudo=True)
    return {
        "raw ssh, multiplexed": lambda: subprocess.run(raw, capture_output=True, check=True),
        "harness: node.host.run": lambda: node.host.run(COMMAND),
        "harness: node.user_host.run": lambda: node.user_host.run(COMMAND),
        "testinfra with sudo, multiplexed": lambda: with_sudo.run(COMMAND),
        "raw ssh, a connection each": lambda: subprocess.run(
            [*raw[:3], *alone, *raw[3:]], capture_output=True, check=True
        ),
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cluster", help="name of a cluster instance that is up")
    parser.add_argument("--node", default="virtual-login")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    measured = ways(arguments.cluster, arguments.node)
    times: dict[str, list[float]] = {way: [] for way in measured}
    for way in measured.values():
        way()
    for _ in track(range(arguments.rounds), description="measuring"):
        for name, way in measured.items():
            begin = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begin)
    baseline = statistics.median(times["raw ssh, multiplexed"])
    table = Table(
        "way", "median", "worst of 10", "ratio", title=f"'{COMMAND}' on {arguments.node}"
    )
    for name, values in times.items():
        median, slow = statistics.median(values), statistics.quantiles(values, n=10)[-1]
        table.add_row(
            name, f"{median * 1e3:.0f} ms", f"{slow * 1e3:.0f} ms", f"{median / baseline:.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
