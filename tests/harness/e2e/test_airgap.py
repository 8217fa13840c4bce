"""An airgapped machine: it reaches its host and nobody else, and a way out that somebody opens is
named."""

import pytest

from tests.harness.e2e.conftest import nodes_of

pytestmark = pytest.mark.slow

NAME = "e2e-airgap"


def test_an_airgapped_machine_reaches_its_host_alone_and_a_way_out_is_named(
    commands, project, nothing_left
):
    check = str(project / "tests" / "services" / "test_airgap.py")
    test = "test_no_node_reaches_beyond_the_host"
    words = ("--cluster", "tiny", "--airgap", "--reuse", "never", "--name", NAME)
    try:
        up = commands.virtual("up", *words)
        assert up.status == 0, up.output
        assert ", airgapped" in commands.virtual("status").output
        closed = commands.virtual("test", NAME, check)
        assert closed.outcomes()[test] == ("passed", ""), closed.output
        assert "had no way out" in (closed.run_dir / "report.html").read_text()

        host = nodes_of(NAME)["virtual-login"].host
        gateway = host.check_output("echo $SSH_CONNECTION").split()[0]
        host.run_expect([0], "ip route add default via %s dev eth0", gateway)
        outcome, message = commands.virtual("test", NAME, check).outcomes()[test]
        assert outcome == "failure"
        assert f"virtual-login: it has a default route: default via {gateway} dev eth0" in message
        assert f"leaves the node (192.0.2.1 via {gateway} dev eth0" in message
        # libvirt turns it away: the network is closed on the host's side too.
        assert "ended with ECONNREFUSED" in message or "ended with EHOSTUNREACH" in message
    finally:
        gone = commands.virtual("destroy", NAME)
    assert gone.status == 0, gone.output
