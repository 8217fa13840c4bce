"""How bring-up and deployment grow with the number of nodes, against growth in proportion.

    python benchmarks/scaling.py --nodes 2,4,8 --plot scaling.svg

For each number a cluster is made from the box (no checkpoint is used or kept), deployed, and
destroyed: virtual-login controls Slurm and serves files, all others compute. The first number is
the baseline. 'linear' is what its time would come to if every node cost the same; the goal is to
stay below. Needs for 8 nodes: 13 GB of free memory where guests are emulated, 64 GiB of free disk.
On two emulated CPUs the three clusters take about an hour.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import jinja2
import yaml
from rich.table import Table


@dataclass(frozen=True)
class Point:
    """One cluster: how many nodes, and the seconds that each phase took."""

    nodes: int
    up: float
    deploy: float
    down: float

    @property
    def total(self) -> float:
        """Seconds until it is deployed."""
        return self.up + self.deploy


def cluster_file(count: int, controller: int, others: int, folder: Path) -> Path:
    """Write the file of a cluster with this many nodes of these sizes (MiB)."""
    nodes: dict[str, dict[str, Any]] = {
        "virtual-login": {"groups": ["slurm-master", "slurm-nfs"], "memory": controller}
    }
    for number in range(1, count):
        nodes[f"virtual-node{number:02d}"] = {"groups": ["slurm-node"], "memory": others}
    for address, node in enumerate(nodes.values(), start=11):
        node |= {"cpus": 1, "disk": 8, "address": address}
    path = folder / f"nodes-{count}.yml"
    path.write_text(yaml.safe_dump({"box": "debian12", "deployment": "slurm", "nodes": nodes}))
    return path


def measure(count: int, cluster: Path, folder: Path) -> Point:
    """Bring one cluster up, deploy, destroy; return the seconds of its phases."""
    name = f"bench-{count}-{secrets.token_hex(2)}"
    ups, deploys = folder / f"up-{count}", folder / f"deploy-{count}"
    try:
        common.virtual(
            folder, "up", "--cluster", cluster, "--name", name, "--reuse", "never",
            "--up-timeout", "3600", "--boot-timeout", "1800", "--reports", ups,
        )  # fmt: skip
        common.virtual(folder, "deploy", name, "--deploy-timeout", "7200", "--reports", deploys)
    finally:
        down = common.seconds_of(lambda: common.destroy(name, folder))
    return Point(count, common.phases(ups)["Up"], common.phases(deploys)["Deploy"], down)


def show(points: Sequence[Point]) -> None:
    """Print a row a cluster; the first is the baseline."""
    first = points[0]
    table = Table("nodes", "up", "deploy", "down", "up + deploy", "ratio", "linear would be")
    for item in points:
        cells = (item.up, item.deploy, item.down, item.total)
        ratio, linear = item.total / first.total, item.nodes / first.nodes
        table.add_row(
            str(item.nodes), *map(common.readable, cells), f"{ratio:.2f}", f"{linear:.2f}"
        )
    common.console.print(table)


def _step(largest: float, count: int) -> float:
    """Return a round step with which an axis up to ``largest`` has at most ``count`` ticks."""
    steps = [factor * 10.0**power for power in range(5) for factor in (1, 2, 5)]
    return next(step for step in steps if largest / step <= count)


def plot(points: Sequence[Point]) -> str:
    """Return an SVG drawing: minutes over nodes, as measured and in proportion."""
    first, most = points[0], points[-1].nodes
    minutes = {item.nodes: item.total / 60 for item in points}
    linear = {item.nodes: first.total / 60 * item.nodes / first.nodes for item in points}
    step = _step(max(*minutes.values(), *linear.values()), 8)
    top = step * -(-max(*minutes.values(), *linear.values()) // step)
    left, right, high, low = 80.0, 600.0, 60.0, 340.0

    def line(values: Mapping[int, float]) -> list[tuple[float, float]]:
        return [
            (round(left + (right - left) * x / most, 1), round(low - (low - high) * y / top, 1))
            for x, y in values.items()
        ]

    template = Path(__file__).with_name("scaling.svg.j2").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        left=left,
        right=right,
        high=high,
        low=low,
        measured=line(minutes),
        linear=line(linear),
        columns=[(x, item.nodes) for item, (x, _y) in zip(points, line(minutes), strict=True)],
        rows=[
            (low - (low - high) * step * i / top, f"{step * i:g}")
            for i in range(round(top / step) + 1)
        ],
    )


def options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = common.parser(__doc__)
    parser.add_argument("--nodes", default="2,4,8", help="sizes of the clusters [default: 2,4,8]")
    for name, default in (("controller", 512), ("others", 384)):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="MIB",
            help=f"memory of the {name} [default: {default}]",
        )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the growth as SVG")
    return parser.parse_args()


def main() -> None:
    """Measure every size, print the table, draw the plot."""
    arguments = options()
    counts = sorted(map(int, arguments.nodes.split(",")))
    points: list[Point] = []
    with common.workplace() as folder:
        for count in counts:
            cluster = cluster_file(count, arguments.controller, arguments.others, folder)
            points.append(measure(count, cluster, folder))
            show(points)
    if arguments.plot:
        arguments.plot.write_text(plot(points))
    common.write(arguments.json, {"points": [asdict(item) for item in points]})


if __name__ == "__main__":
    main()
