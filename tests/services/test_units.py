"""Every node runs what its DeepOps groups ask for."""

import pytest

from deepops_fixtures.checks import Units
from deepops_fixtures.cluster.running import Node

pytestmark = [pytest.mark.services, pytest.mark.nodes("slurm-cluster", "k8s_cluster")]


def test_every_service_of_the_node_runs_and_comes_back_after_a_reboot(node: Node, units: Units):
    if not units.expected(node):
        pytest.skip("no playbook of this run deploys a service of this node")
    bad = [unit for unit in units.of(node) if not unit.good]
    evidence = "\n".join(units.why(node, unit) for unit in bad)
    assert not bad, f"{node.name}: {'; '.join(map(str, bad))}\n{evidence}"


def test_every_service_of_the_node_listens_on_its_port(node: Node, units: Units):
    listening = units.listening(node)
    silent = [
        f"{service} ({port}/tcp)"
        for service, port in units.ports(node).items()
        if port not in listening
    ]
    assert not silent, f"{node.name}: nothing listens for {', '.join(silent)}"


def test_no_unit_of_the_node_has_failed(node: Node, units: Units):
    failed = units.failed(node)
    assert not failed, f"{node.name}: systemd counts as failed: {', '.join(failed)}"


def test_the_node_has_room_on_its_disks(node: Node):
    output = node.host.check_output("df --output=pcent,target / /var /tmp")
    full = [line.strip() for line in output.splitlines()[1:] if int(line.split("%")[0]) > 90]
    assert not full, f"{node.name}: nearly full: {', '.join(full)}"


def test_the_kernel_of_the_node_has_not_complained(node: Node):
    pattern = "BUG:|Oops:|soft lockup|I/O error|EXT4-fs error|blocked for more than"
    lines = node.host.run("dmesg | grep -E %s | tail -n 5", pattern).stdout.splitlines()
    assert not lines, f"{node.name}: the kernel said {'; '.join(lines)}"
