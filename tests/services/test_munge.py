"""munge: what authenticates every word that Slurm's daemons say to one another."""

import pytest

from deepops_fixtures.checks import Munge
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.services


def test_munge_credentials_of_every_node_decode_on_every_other(deepops: Nodes, munge: Munge):
    refused = munge.refusals(deepops.group("slurm-cluster"))
    assert not refused, munge.blame(refused)


def test_munge_key_is_the_same_on_every_node(deepops: Nodes, munge: Munge):
    digests = {node.name: munge.key_digest(node) for node in deepops.group("slurm-cluster")}
    reference = digests[deepops.slurm_controller.name]
    odd = sorted(name for name, digest in digests.items() if digest != reference)
    assert not odd, (
        f"munge.key differs from {deepops.slurm_controller.name}'s on: {', '.join(odd)}"
    )


@pytest.mark.piece("munge")
@pytest.mark.nodes("slurm-cluster")
def test_munge_key_can_be_read_by_munge_alone(node: Node):
    key = node.host.file("/etc/munge/munge.key")
    assert (key.user, key.group, key.mode & 0o077) == ("munge", "munge", 0), (
        f"{node.name}: munge.key is {key.user}:{key.group} {key.mode:o}"
    )
