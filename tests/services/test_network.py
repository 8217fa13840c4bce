"""Names, clocks and users: what has to agree on every node before anything else can."""

import ipaddress
from typing import NamedTuple

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Clocks, wait_until
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.services


class Tracking(NamedTuple):
    """What chronyc says of the source that a node follows."""

    source: str
    stratum: int
    leap: str


def members(nodes: Nodes) -> list[Node]:
    """Return the nodes that belong to Slurm or to Kubernetes."""
    groups = {"slurm-cluster", "k8s_cluster"}
    return [node for node in nodes if groups & set(node.groups)]


@pytest.mark.piece("hosts")
@pytest.mark.nodes("slurm-cluster", "k8s_cluster")
def test_the_node_resolves_every_node_to_its_cluster_address(node: Node, deepops: Nodes):
    wrong = []
    for other in members(deepops):
        found = node.host.run("getent ahostsv4 %s", other.name).stdout.split()
        address = found[0] if found else ""
        expected = other.address or address
        if not address or ipaddress.ip_address(address).is_loopback or address != expected:
            wrong.append(
                f"{other.name} -> {address or 'nothing'} (expected {expected or 'an address'})"
            )
    assert not wrong, f"{node.name} resolves {'; '.join(wrong)}"


def test_the_clocks_of_all_nodes_agree(deepops: Nodes, clocks: Clocks):
    offsets = {node.name: clocks.offset(node) for node in members(deepops)}
    ahead = max(offsets, key=lambda name: offsets[name][0])
    behind = min(offsets, key=lambda name: offsets[name][0])
    difference = offsets[ahead][0] - offsets[behind][0]
    uncertainty = offsets[ahead][1] + offsets[behind][1]
    # munge refuses credentials that are minutes off; logs and accounting want a second.
    assert difference < 1 + uncertainty, (
        f"{ahead} is {difference:.2f} s (± {uncertainty:.2f} s) ahead of {behind}"
    )


@pytest.mark.piece("chrony")
@pytest.mark.nodes("slurm-cluster", "k8s_cluster")
def test_the_clock_of_the_node_follows_a_source(node: Node, clocks: Clocks):
    def tracking() -> Tracking:
        done = node.host.run("chronyc -c tracking")
        assert done.rc == 0, f"{node.name}: chrony does not answer: {done.stdout.strip()}"
        fields = done.stdout.strip().split(",")
        return Tracking(fields[1] or "nobody", int(fields[2]), fields[-1])

    # After a start, or a jump of the clock, chrony asks its source several times, seconds apart,
    # before it believes it.
    wait_until(
        f"the clock of {node.name} follows a source",
        tracking,
        lambda seen: seen.leap != "Not synchronised" and 0 < seen.stratum < 16,
        45,
        pause=2,
        evidence=lambda: clocks.why_alone(node),
    )


@pytest.mark.piece("slurm", "plain-user")
def test_users_of_the_services_have_one_number_on_every_node(deepops: Nodes):
    if not deepops.group("slurm-cluster"):
        pytest.skip("the cluster has no Slurm, and so no users of its services")
    names = ("munge", "slurm", facts.PLAIN_USER)
    numbers = {
        node.name: node.host.check_output("id -u munge; id -u slurm; id -u %s", names[2]).split()
        for node in deepops.group("slurm-cluster")
    }
    reference = numbers[deepops.slurm_controller.name]
    odd = {
        node: dict(zip(names, found, strict=True))
        for node, found in numbers.items()
        if found != reference
    }
    assert not odd, f"other user numbers than {deepops.slurm_controller.name}'s {reference}: {odd}"
