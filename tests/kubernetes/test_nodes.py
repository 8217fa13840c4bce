"""Each node as Kubernetes sees it, and what on the node makes it one."""

import ipaddress
import json

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import (
    ApiRefused,
    Clocks,
    KubeNode,
    Kubernetes,
    Rsyslog,
    kube_obstacles,
)
from deepops_fixtures.checks.kube_networks import (
    covers,
    node_routes,
    programmed,
    service_networks,
)
from deepops_fixtures.cluster.running import Node

EVERY_NODE = pytest.mark.nodes("kube_control_plane", "kube_node")
pytestmark = pytest.mark.kubernetes


@EVERY_NODE
def test_the_node_is_in_the_api_under_its_name(node: Node, answering_kubernetes: Kubernetes):
    known = answering_kubernetes.nodes
    assert node.name in known, (
        f"{kube_obstacles.why_missing(answering_kubernetes, node)}\n"
        + answering_kubernetes.journal(node, "kubelet")
    )
    told, expected = known[node.name].address, node.address
    assert not expected or told == expected, f"{node.name} is known by {told}, not {expected}"


def test_the_api_knows_no_node_that_is_not_in_the_inventory(
    answering_kubernetes: Kubernetes,
):
    names = {node.name for node in answering_kubernetes.members}
    foreign = sorted(set(answering_kubernetes.nodes) - names)
    assert not foreign, f"not in the inventory's kube_node or kube_control_plane: {foreign}"


@EVERY_NODE
def test_the_node_is_ready(node: Node, kube_node: KubeNode, answering_kubernetes: Kubernetes):
    assert kube_node.ready, (
        f"{node.name} is not Ready: {kube_node.why_not_ready}\n"
        + answering_kubernetes.journal(node, "kubelet")
    )


@EVERY_NODE
def test_the_node_is_short_of_nothing(node: Node, kube_node: KubeNode):
    assert not kube_node.pressures, f"{node.name}: {'; '.join(kube_node.pressures)}"


@EVERY_NODE
def test_the_node_takes_pods(node: Node, kube_node: KubeNode):
    assert not kube_node.cordoned, (
        f"{node.name} is cordoned and was forgotten. Next: kubectl uncordon {node.name}"
    )
    taints = [
        taint for taint in kube_node.foreign_taints if not taint.key.startswith("node.kubernetes")
    ]
    assert not taints, f"{node.name} keeps pods away by {', '.join(map(str, taints))}"


@EVERY_NODE
def test_the_api_server_reaches_the_kubelet_of_the_node(
    node: Node, kube_node: KubeNode, answering_kubernetes: Kubernetes
):
    if kube_obstacles.Machine.look(node).units.get("kubelet") != "active":
        pytest.skip(f"no kubelet runs on {node.name}")
    try:
        said = answering_kubernetes.api.text(f"/api/v1/nodes/{node.name}/proxy/healthz")
    except ApiRefused as error:
        said = error.said
    assert said.strip() == "ok", (
        f"the API server gets from the kubelet of {node.name}: {said.strip()}\n"
        + answering_kubernetes.journal(node, "kubelet")
    )


@EVERY_NODE
def test_the_kubelet_and_the_runtime_of_the_node_run(node: Node, kubernetes: Kubernetes):
    machine = kube_obstacles.Machine.look(node)
    bad = [
        f"{unit} is {machine.units.get(unit) or 'not installed as a unit'}"
        for unit in ("kubelet", "containerd")
        if machine.units.get(unit) != "active"
    ]
    evidence = [kubernetes.journal(node, text.split()[0]) for text in bad]
    assert not bad, "\n".join([f"{node.name}: {'; '.join(bad)}", *evidence])


@EVERY_NODE
def test_the_node_has_a_cni_configuration(node: Node):
    files = kube_obstacles.Machine.look(node).cni
    assert files, f"{node.name}: no CNI configuration in {facts.CNI_CONFIG_DIR}"
    # containerd takes the first by name.
    text = node.host.check_output("cat -- %s", sorted(files)[0])
    try:
        plugins = json.loads(text)
    except ValueError as error:
        pytest.fail(f"{node.name}: {sorted(files)[0]} is no JSON: {error}", pytrace=False)
    assert plugins.get("plugins") or plugins.get("type"), (
        f"{node.name}: {sorted(files)[0]} names no plugin"
    )


@EVERY_NODE
def test_kube_proxy_of_the_node_programs_the_services(
    node: Node, answering_kubernetes: Kubernetes
):
    unit = kube_obstacles.Machine.look(node).units.get("kube-proxy", "")
    pod = None if unit else kube_obstacles.proxy_pods(answering_kubernetes).get(node.name)
    address = answering_kubernetes.get("/api/v1/namespaces/default/services/kubernetes")
    address = address["spec"]["clusterIP"]
    if not unit and pod is None and programmed(node, address):
        pytest.skip(f"another program than kube-proxy programs the Services of {node.name}")
    # The rules of a kube-proxy that has died stay, so that the program is asked for first.
    running = unit == "active" or (pod is not None and pod.ready)
    assert running, (
        f"kube-proxy of {node.name} is {unit or pod or 'neither a unit nor a pod'}\n"
        + answering_kubernetes.journal(node, "kube-proxy")
    )
    assert programmed(node, address), (
        f"{node.name} has no rule for {address}, the Service of the API\n"
        + answering_kubernetes.journal(node, "kube-proxy")
    )


@EVERY_NODE
def test_the_clock_of_the_node_agrees_with_the_control_planes(
    node: Node, clocks: Clocks, kubernetes: Kubernetes
):
    if node is kubernetes.plane:
        pytest.skip("this node is the control plane")
    here, there = clocks.offset(node), clocks.offset(kubernetes.plane)
    difference, uncertainty = abs(here[0] - there[0]), here[1] + there[1]
    assert difference < 2 + uncertainty, (
        f"the clock of {node.name} is {difference:.1f} s (± {uncertainty:.1f} s) from that of "
        f"{kubernetes.plane.name}"
    )


def test_the_pod_networks_of_the_nodes_do_not_overlap(answering_kubernetes: Kubernetes):
    pairs = [
        (node.name, ipaddress.ip_network(text))
        for node in answering_kubernetes.nodes.values()
        for text in node.pod_cidrs
    ]
    if not pairs:
        pytest.skip("the nodes have no pod network of their own: the CNI plugin gives addresses")
    clashes = [
        f"{one}'s {network} and {other}'s {second}"
        for number, (one, network) in enumerate(pairs)
        for other, second in pairs[number + 1 :]
        if network.version == second.version and network.overlaps(second)
    ]
    clashes += [
        f"{node.name}'s address {node.address} and the pods' {network}"
        for node in answering_kubernetes.nodes.values()
        for _, network in pairs
        if node.address and ipaddress.ip_address(node.address) in network
    ]
    assert not clashes, f"networks clash: {'; '.join(clashes)}"


def test_the_service_network_is_used_for_nothing_else(answering_kubernetes: Kubernetes):
    services = service_networks(answering_kubernetes)
    nodes = answering_kubernetes.nodes.values()
    used = {
        f"pods of {node.name}": ipaddress.ip_network(text)
        for node in nodes
        for text in node.pod_cidrs
    }
    used |= {
        f"{node.name} itself": ipaddress.ip_network(node.address) for node in nodes if node.address
    }
    for machine in answering_kubernetes.members:
        for route, network in node_routes(machine).items():
            used[f"route of {machine.name} '{route}'"] = network
    clashes = [
        f"{network} ({what})"
        for what, network in used.items()
        if any(covers(service, network) for service in services)
    ]
    names = ", ".join(map(str, services))
    assert not clashes, f"the network of the Services {names} is also: {'; '.join(clashes)}"


@EVERY_NODE
def test_a_log_line_of_the_kubernetes_node_arrives_on_the_server(node: Node, rsyslog: Rsyslog):
    if node is rsyslog.server:
        pytest.skip("this node is the server")
    found = rsyslog.line_arrives(node)
    assert found.endswith("/syslog.log"), f"{node.name}: its line is in {found}"
