"""munge: what authenticates every word that Slurm's daemons say to one another."""

import pytest

from deepops_fixtures.checks import Munge
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.services


@pytest.mark.nodes("slurm-cluster")
def test_munge_credential_made_on_the_node_decodes_on_every_other(
    node: Node, deepops: Nodes, munge: Munge
):
    credential = munge.encode(node)
    said = {other.name: munge.decode(other, credential) for other in deepops.group("slurm-cluster")}
    refused = {name: status for name, status in said.items() if not status.startswith("Success")}
    assert not refused, f"a credential of {node.name} is refused: {refused}"


def test_munge_key_is_the_same_on_every_node(deepops: Nodes, munge: Munge):
    digests = {node.name: munge.key_digest(node) for node in deepops.group("slurm-cluster")}
    reference = digests[deepops.slurm_controller.name]
    odd = sorted(name for name, digest in digests.items() if digest != reference)
    assert not odd, f"munge.key differs from {deepops.slurm_controller.name}'s on: {', '.join(odd)}"


@pytest.mark.nodes("slurm-cluster")
def test_munge_key_can_be_read_by_munge_alone(node: Node):
    key = node.host.file("/etc/munge/munge.key")
    assert (key.user, key.group, key.mode & 0o377) == ("munge", "munge", 0), (
        f"{node.name}: munge.key is {key.user}:{key.group} {key.mode:o}"
    )
