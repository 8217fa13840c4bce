"""Names and ports between the nodes, as the nodes see them."""

from __future__ import annotations

from deepops_fixtures.checks import remote
from deepops_fixtures.cluster.running import Node, Nodes


class Network:
    """The cluster's own network.

    >>> network.addresses(nodes["virtual-mgmt"])["virtual-login"]
    ['10.86.1.11']
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def addresses(self, node: Node) -> dict[str, list[str]]:
        """Return the IPv4 addresses that a node resolves each node's name to, its own included."""
        said = remote.ask(
            node, {other.name: f"timeout 10 getent ahostsv4 {other.name}" for other in self.nodes}
        )
        return {
            name: sorted({line.split()[0] for line in answer.text.splitlines() if line.strip()})
            for name, answer in said.items()
        }

    def answering(self, node: Node, ports: dict[str, int], *, asked_from: Node) -> dict[str, bool]:
        """Return for each service whether its TCP port of ``node`` answers another node."""
        target = node.address or node.name
        said = remote.ask(
            asked_from,
            {
                service: f"timeout 5 bash -c '</dev/tcp/{target}/{port}'"
                for service, port in ports.items()
            },
        )
        return {service: answer.ok for service, answer in said.items()}

    def neighbour(self, node: Node) -> Node:
        """Return another node to look at this one from; itself when it is alone."""
        return next((other for other in self.nodes if other is not node), node)
