"""Names, clocks and users: what has to agree on every node before anything else can."""

import ipaddress

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Clocks
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.services


@pytest.mark.nodes("slurm-cluster")
def test_the_node_resolves_every_node_to_its_cluster_address(node: Node, deepops: Nodes):
    wrong = []
    for other in deepops.group("slurm-cluster"):
        found = node.host.run("getent ahostsv4 %s", other.name).stdout.split()
        address = found[0] if found else ""
        expected = other.address or address
        if not address or ipaddress.ip_address(address).is_loopback or address != expected:
            wrong.append(
                f"{other.name} -> {address or 'nothing'} (expected {expected or 'an address'})"
            )
    assert not wrong, f"{node.name} resolves {'; '.join(wrong)}"


def test_the_clocks_of_all_nodes_agree(deepops: Nodes, clocks: Clocks):
    offsets = {node.name: clocks.offset(node) for node in deepops.group("slurm-cluster")}
    ahead = max(offsets, key=lambda name: offsets[name][0])
    behind = min(offsets, key=lambda name: offsets[name][0])
    difference = offsets[ahead][0] - offsets[behind][0]
    uncertainty = offsets[ahead][1] + offsets[behind][1]
    # munge refuses credentials that are minutes off; logs and accounting want a second.
    assert difference < 1 + uncertainty, (
        f"{ahead} is {difference:.2f} s (± {uncertainty:.2f} s) ahead of {behind}"
    )


@pytest.mark.nodes("slurm-cluster")
def test_the_clock_of_the_node_follows_a_source(node: Node):
    done = node.host.run("chronyc -c tracking")
    assert done.rc == 0, f"{node.name}: chrony does not answer: {done.stdout.strip()}"
    tracking = done.stdout.strip().split(",")
    reference, stratum, leap = tracking[1], int(tracking[2]), tracking[-1]
    assert leap != "Not synchronised" and 0 < stratum < 16, (
        f"{node.name}: chrony follows '{reference or 'nobody'}' at stratum {stratum} ({leap})"
    )


def test_users_of_the_services_have_one_number_on_every_node(deepops: Nodes):
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
