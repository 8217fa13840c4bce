"""What one check costs: a command through the harness, against raw multiplexed ssh.

Run it on a cluster that is up:

    deepops-virtual up --cluster tiny --name bench
    python benchmarks/check_cost.py bench
    deepops-virtual destroy bench

Both run the same command over the same kind of connection, in turns and in a random order, so that
a busy host slows both. The ratio of the medians is what counts; the goal is 1.15 or less. What the
harness avoids, sudo and a connection for each command, is measured after that: the end of a login
keeps an emulated node busy for a while, at the cost of whichever command comes next.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable

import common
import testinfra
from rich.progress import track

from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.cluster.running import Nodes, RunningCluster
from deepops_fixtures.settings import Settings

COMMAND = "systemctl is-active ssh"


Ways = dict[str, Callable[[], object]]


def ways(name: str, node_name: str) -> tuple[Ways, Ways]:
    """Return the ways to compare, the baseline first, and those the harness avoids."""
    folder = LedgerBook(Settings.load().state_dir).path(name)
    cluster = RunningCluster.model_validate_json((folder / "cluster.json").read_text())
    assert cluster.ssh_config
    node = Nodes(cluster, record=lambda _record: None)[node_name]
    config = str(cluster.ssh_config)
    raw = ["ssh", "-F", config, "-l", "root", node_name, COMMAND]
    alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    with_sudo = testinfra.get_host(f"ssh://{node_name}", ssh_config=config, sudo=True)
    compared = {
        "raw ssh as root, multiplexed": lambda: subprocess.run(
            raw, capture_output=True, check=True
        ),
        "harness: node.host.run": lambda: node.host.run(COMMAND),
    }
    avoided = {
        "testinfra with sudo, multiplexed": lambda: with_sudo.run(COMMAND),
        "raw ssh, a connection each": lambda: subprocess.run(
            [*raw[:3], *alone, *raw[3:]], capture_output=True, check=True
        ),
    }
    return compared, avoided


def measure(measured: Ways, rounds: int) -> dict[str, list[float]]:
    """Run every way once to warm up, then in turns; return the seconds each run took."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for way in measured.values():
        way()
    for _ in track(range(rounds), description="measuring", console=common.console):
        for name in random.sample(list(measured), len(measured)):
            times[name].append(common.seconds_of(measured[name]))
    return times


def main() -> None:
    """Measure and print the table."""
    parser = common.parser(__doc__)
    parser.add_argument("cluster", help="name of a cluster instance that is up")
    parser.add_argument("--node", default="virtual-login")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    compared, avoided = ways(arguments.cluster, arguments.node)
    times = measure(compared, arguments.rounds) | measure(avoided, max(5, arguments.rounds // 4))
    common.show(f"'{COMMAND}' on {arguments.node}", times)
    common.write(arguments.json, {"times": times})


if __name__ == "__main__":
    main()
