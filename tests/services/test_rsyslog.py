"""Every node's log lines reach the controller."""

import pytest

from deepops_fixtures.checks import Rsyslog
from deepops_fixtures.cluster.running import Node

pytestmark = pytest.mark.services


@pytest.mark.nodes("slurm-node", "k8s_cluster")
def test_a_log_line_of_the_node_arrives_on_the_server(node: Node, rsyslog: Rsyslog):
    if node is rsyslog.server:
        pytest.skip("this node is the server")
    found = rsyslog.line_arrives(node)
    assert found.endswith("/syslog.log"), f"{node.name}: its line is in {found}"
