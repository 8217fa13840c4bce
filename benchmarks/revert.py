"""Putting a cluster back after a test that broke it: ours against ``vagrant snapshot restore``.

    python benchmarks/revert.py                       # one small guest, about three minutes
    python benchmarks/revert.py --cluster debian

Brings a cluster up, puts it back several times with Vagrant's snapshots, then as many times with
ours, and destroys it. Before each time every node gets a file that has to be gone afterwards.

Vagrant's command returns when the guests run, with the time of the snapshot on their clocks; ours
returns when every guest has answered and its clock is right. So Vagrant's is measured twice:
alone, and followed by the step that ours ends with, setting the clocks over ssh; that is the
baseline. How far off the clocks are afterwards is printed for each. The goal: a ratio of 1 or
less.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import common

from deepops_fixtures.cluster import restoring, taking, topology, waking
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.cluster.running import Nodes, RunningCluster
from deepops_fixtures.cluster.vagrant_tool import environment
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline
from deepops_fixtures.settings import Settings

VAGRANT, ALONE, OURS = "vagrant, then clocks set", "vagrant alone", "ours, clocks set"
GOAL = 0.2
_FILE = "/root/broken-by-a-test"


class Clocks:
    """How far the guests' clocks were off after each way of putting them back, at worst."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}

    def look(self, way: str, nodes: Nodes) -> None:
        """See that nothing is left of what was done to the nodes, and what time it is there."""
        for node in nodes:
            begin = time.time()
            said = node.run_script(f"ls {_FILE} 2>/dev/null; date +%s.%N", 120).split()
            if len(said) != 1:
                raise SystemExit(f"'{node.name}' was not put back by '{way}': {said}")
            middle = (begin + time.time()) / 2
            off = abs(float(said[0]) - middle)
            self.worst[way] = max(self.worst.get(way, 0.0), off)


def repeat(
    way: str, put_back: Callable[[], object], nodes: Nodes, rounds: int, clocks: Clocks
) -> list[float]:
    """Break the nodes and put them back, several times; return the seconds each took."""
    times = []
    for number in range(rounds):
        for node in nodes:
            node.run_script(f"touch {_FILE}; sync", 120)
            node.reconnect()
        times.append(common.seconds_of(put_back))
        clocks.look(way, nodes)
        common.say(f"{way}, {number + 1}: {common.readable(times[-1])}")
    return times


def by_vagrant(
    book: LedgerBook, nodes: Nodes, rounds: int, clocks: Clocks, folder: Path
) -> dict[str, list[float]]:
    """Measure Vagrant's way, with and without clocks; its snapshot is deleted in any case."""
    name, names = nodes.cluster.name, [node.name for node in nodes]
    env, config = environment(book.get(name), book), book.path(name) / "ssh_config"
    restore = partial(_vagrant, "restore", env, folder)

    def restore_and_wake() -> None:
        restore()
        waking.wake(config, name, names, Deadline.after(taking.PATIENCE))

    _vagrant("save", env, folder)
    try:
        return {
            VAGRANT: repeat(VAGRANT, restore_and_wake, nodes, rounds, clocks),
            ALONE: repeat(ALONE, restore, nodes, rounds, clocks),
        }
    finally:
        for node in nodes:
            node.reconnect()
        _vagrant("delete", env, folder)


def _vagrant(verb: str, env: dict[str, str], folder: Path) -> None:
    common.run(["vagrant", "snapshot", verb, "benchmark"], folder, env)


def by_us(
    book: LedgerBook, nodes: Nodes, rounds: int, clocks: Clocks, folder: Path
) -> list[float]:
    """Measure our way: a checkpoint of the run's own, and going back to it."""
    store, journal, running = Store(book), Journal(folder / "events.jsonl"), nodes.cluster
    manifest = taking.take(store, running.name, running, "here", {})
    put_back = partial(restoring.revert, store, manifest, running, journal)
    return repeat(OURS, put_back, nodes, rounds, clocks)


def main() -> None:
    """Bring the cluster up, measure both ways, destroy it, print the table."""
    parser = common.parser(__doc__)
    parser.add_argument("--cluster", default="tiny", help="name or file [default: tiny]")
    parser.add_argument("--rounds", type=int, default=5, help="times of each way [default: 5]")
    arguments = parser.parse_args()
    cluster = topology.find(arguments.cluster).absolute()
    name, clocks = f"bench-{secrets.token_hex(2)}", Clocks()
    book = LedgerBook(Settings.load().state_dir)
    with common.workplace() as folder:
        try:
            common.virtual(folder, "up", "--cluster", cluster, "--name", name, "--reuse", "never")
            text = (book.path(name) / "cluster.json").read_text()
            nodes = Nodes(RunningCluster.model_validate_json(text))
            times = {
                **by_vagrant(book, nodes, arguments.rounds, clocks, folder),
                OURS: by_us(book, nodes, arguments.rounds, clocks, folder),
            }
        finally:
            common.destroy(name, folder)
    ratio = common.show(f"putting {len(nodes)} nodes of '{cluster.stem}' back", times)[OURS]
    for way, off in clocks.worst.items():
        common.say(f"{way}: clocks off by up to {common.readable(off)} afterwards")
    common.say(f"Ours takes {ratio:.2f} of the time of '{VAGRANT}' (goal: {GOAL} or less).")
    common.write(arguments.json, {"times": times, "clocks_off": clocks.worst})


if __name__ == "__main__":
    main()
