"""Machines of a box made like installed ones (``vagrant/as-installed.sh``), before the playbooks
of a checkout are applied to them.

Not for what makes a machine a node of this cluster: that is the provider's identity.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deepops_fixtures import resources
from deepops_fixtures.cluster.running import Node, Nodes, RunningCluster
from deepops_fixtures.errors import DeployError
from deepops_fixtures.journal import Journal


def script() -> Path:
    """Return the script that does it."""
    return resources.vagrant() / "as-installed.sh"


def ready(running: RunningCluster, journal: Journal) -> None:
    """Run the script on all nodes at once. Raises DeployError naming the node."""

    def one(node: Node) -> None:
        done = node.host.run("sh -c %s", script().read_text())
        if done.rc != 0:
            raise DeployError(
                f"'{node.name}' could not be made like an installed machine.",
                detail=(done.stderr or done.stdout).strip(),
                hint=f"deepops-virtual ssh {running.name} {node.name}; sh -x {script()} there",
            )

    nodes = list(Nodes(running))
    what = "giving the machines what an installed one has (apt's lists, rsyslog)"
    with journal.step("prepare", what), ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(one, nodes))
