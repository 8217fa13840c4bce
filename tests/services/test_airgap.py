"""An airgapped cluster (``--deepops-airgap``): it came up from what this host brought it, and it
reaches nobody else."""

import pytest

from deepops_fixtures.checks import WayOut
from deepops_fixtures.cluster.running import Nodes

pytestmark = pytest.mark.services


def test_no_node_reaches_beyond_the_host(deepops: Nodes):
    if not deepops.cluster.airgap:
        pytest.skip("these nodes may reach whom they like: no --deepops-airgap")
    leaks = [f"{node.name}: {text}" for node in deepops for text in WayOut.of(node).leaks]
    assert not leaks, "the cluster is not airgapped:\n" + "\n".join(leaks)
