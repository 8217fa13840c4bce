"""The nodes' clocks: how far they are apart, and what they follow. Source: chronyc(1), "tracking".
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from deepops_fixtures.checks import remote
from deepops_fixtures.checks.waiting import failure
from deepops_fixtures.cluster.running import Node, Nodes


@dataclass(frozen=True)
class Tracking:
    """What chrony follows: ``source`` by name or address, ``stratum``, and the leap status."""

    source: str
    stratum: int
    leap: str

    @property
    def synchronised(self) -> bool:
        """Whether chrony calls its clock set."""
        return self.leap != "Not synchronised" and 0 < self.stratum < 16


@dataclass(frozen=True)
class Reading:
    """A node's clock minus ours, and how wrong that may be for the time the question took;
    seconds.
    """

    offset: float
    error: float


class Clocks:
    """The clocks of a cluster.

    >>> clocks.apart(nodes["virtual-login"], nodes["virtual-gpu01"])
    0.012
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def read(self, node: Node) -> Reading:
        """Read a node's clock; the best of three questions asked over one path."""
        best = Reading(0, float("inf"))
        for _ in range(3):
            before = time.time()
            said = remote.run(node, "date +%s.%N", user="").text
            after = time.time()
            reading = Reading(float(said) - (before + after) / 2, (after - before) / 2)
            best = min(best, reading, key=lambda one: one.error)
            if best.error < 0.3:
                break
        return best

    def apart(self, one: Node, other: Node) -> float:
        """Return by how many seconds two clocks differ at least, the time of the questions taken
        off.
        """
        first, second = self.read(one), self.read(other)
        return max(0.0, abs(first.offset - second.offset) - first.error - second.error)

    def tracking(self, node: Node) -> Tracking:
        """Return what a node's chrony follows."""
        __tracebackhide__ = True
        answer = remote.run(node, "timeout 10 chronyc -c tracking")
        fields = answer.text.strip().split(",")
        if not answer.ok or len(fields) < 14:
            raise failure(f"chrony on '{node.name}' does not answer.", answer.text)
        return Tracking(source=fields[1], stratum=int(fields[2]), leap=fields[-1])
