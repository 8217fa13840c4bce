"""Networks of Kubernetes: which the Services have, where a node's routes lead, whether a node
knows a Service."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from deepops_fixtures.checks.kubernetes import Kubernetes

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_RANGE = (
    "for file in /proc/[0-9]*/cmdline; do tr '\\0' '\\n' <\"$file\" 2>/dev/null | "
    "sed -n 's/^--service-cluster-ip-range=//p'; done"
)
# Services are in the tables of iptables, of ipvs (addresses in hexadecimal), or of nftables.
_RULES = (
    "PATH=$PATH:/usr/sbin:/sbin; "
    'iptables-save -t nat 2>/dev/null | grep -qF "$1/32" || '
    'grep -qi "$2" /proc/net/ip_vs 2>/dev/null || '
    'nft list ruleset 2>/dev/null | grep -qwF "$1"'
)


def service_networks(kubernetes: Kubernetes) -> list[Network]:
    """Return the networks that Services get their addresses from: what kube-apiserver was started
    with, else the /24 around the API's own Service."""
    said = kubernetes.plane.host.run("sh -c %s", _RANGE).stdout.split()
    if said:
        return [ipaddress.ip_network(text) for text in said[0].split(",")]
    spec = kubernetes.get("/api/v1/namespaces/default/services/kubernetes")["spec"]
    return [ipaddress.ip_network(f"{spec['clusterIP']}/24", strict=False)]


def covers(one: Network, other: Network) -> bool:
    """Return whether two networks share an address."""
    return one.version == other.version and one.overlaps(other)


def node_routes(node: Node) -> dict[str, Network]:
    """Return the routes of a node but the default one: line of ip-route(8) → network."""
    found: dict[str, Network] = {}
    for line in node.host.check_output("ip -4 route show").splitlines():
        words = line.split()
        # kube-proxy's own interface holds the Services' addresses (ipvs).
        if not words or "kube-ipvs0" in words:
            continue
        if words[0] in ("unreachable", "blackhole", "prohibit"):
            words = words[1:]
        if words[0] != "default":
            found[line.strip()] = ipaddress.ip_network(words[0])
    return found


def programmed(node: Node, address: str) -> bool:
    """Return whether a node has a rule for a Service's address (IPv4)."""
    digits = ipaddress.ip_address(address).packed.hex()
    return bool(node.host.run("sh -c %s sh %s %s", _RULES, address, digits).rc == 0)
