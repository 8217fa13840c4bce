"""The pods' network: pod to pod, pod to Service, names, ports of the nodes."""

import itertools
import re

import pytest

from deepops_fixtures.checks import ExecResult, Kubernetes, WebServers, kube_probe, wait_until
from deepops_fixtures.checks.kube_networks import programmed
from deepops_fixtures.checks.kube_web import PORT
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.kubernetes

#: Seconds for the endpoints of new pods to reach every node's kube-proxy, and names the DNS.
SETTLE = 45


def told(done: ExecResult) -> str:
    """Return what a request within a pod gave, for a message."""
    return done.stdout.strip() or done.stderr.strip() or f"nothing (status {done.rc})"


@pytest.mark.nodes("kube_control_plane", "kube_node")
def test_a_pod_runs_on_the_node(node: Node, web: WebServers):
    pod = web.pods.get(node.name)
    if pod is None:
        pytest.skip(f"{node.name} takes no pods")
    assert pod.node == node.name, f"{pod} was to run on {node.name}"
    assert pod.ip, f"{pod} has no address"
    log = web.kubernetes.logs(pod)
    assert log == f"serving on {node.name}", f"its log is: {log}"


def test_pods_of_different_nodes_reach_one_another(web: WebServers):
    pairs = list(itertools.permutations(web.pods, 2))
    if not pairs:
        pytest.skip("only one node takes pods")
    bad = []
    for one, other in pairs:
        done = web.fetch(one, web.pods[other].ip)
        if done.stdout != other:
            bad.append(f"{one} -> {other} ({web.pods[other].ip}:{PORT}): {told(done)}")
    assert not bad, f"pods do not reach one another: {'; '.join(bad)}"


def test_a_pod_of_every_node_reaches_the_service(web: WebServers):
    for node in web.pods:
        wait_until(
            f"a pod on {node} reaches the Service at {web.address}:80",
            lambda node=node: told(web.fetch(node, web.address, 80)),
            lambda page: page in web.pods,
            SETTLE,
            evidence=lambda node=node: web.kubernetes.journal(
                web.kubernetes.cluster[node], "kube-proxy"
            ),
        )


def test_the_service_spreads_over_the_pods_of_all_nodes(web: WebServers):
    if len(web.pods) < 2:
        pytest.skip("only one node takes pods")
    client = next(iter(web.pods))
    seen: set[str] = set()

    def ask() -> set[str]:
        seen.add(told(web.fetch(client, web.address, 80)))
        return seen

    # kube-proxy takes a pod at random: 24 times the same of two happens once in 8 million runs.
    wait_until(
        f"Service {web.address}:80 leads to pods on {', '.join(web.pods)}",
        ask,
        lambda pages: pages >= set(web.pods),
        SETTLE,
        pause=0,
    )


def test_the_api_is_reached_by_its_service_address_from_a_pod_of_every_node(web: WebServers):
    spec = web.kubernetes.get("/api/v1/namespaces/default/services/kubernetes")["spec"]
    address, port = spec["clusterIP"], spec["ports"][0]["port"]
    bad = []
    for node, pod in web.pods.items():
        # Go's TLS server answers plain HTTP with a complaint.
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}"
        done = web.kubernetes.exec(pod, ask)
        if "HTTP" not in done.stdout:
            bad.append(f"from {node}: {told(done)}")
    assert not bad, f"the API at {address}:{port} is not reached: {'; '.join(bad)}"


@pytest.mark.nodes("kube_control_plane", "kube_node")
def test_the_api_is_reached_by_its_service_address_from_the_node(
    node: Node, answering_kubernetes: Kubernetes
):
    spec = answering_kubernetes.get("/api/v1/namespaces/default/services/kubernetes")["spec"]
    address, port = spec["clusterIP"], spec["ports"][0]["port"]
    if not programmed(node, address):
        pytest.skip(f"{node.name} has no rule for {address}, for which there is a check")
    # Whatever the answer is: it is the server's.
    fault = kube_probe.fault(kube_probe.ask(node, "get", f"https://{address}:{port}/version"))
    route = node.host.run("ip route get %s 2>&1", address).stdout.strip()
    assert not fault, f"{node.name} does not reach the API at {address}:{port}: {fault} ({route})"


def test_pods_of_every_node_resolve_the_service(resolving_kubernetes: Kubernetes, web: WebServers):
    for node, pod in web.pods.items():
        config = resolving_kubernetes.exec(pod, "cat /etc/resolv.conf").stdout
        match = re.search(rf"\b{re.escape(web.domain)}\.(\S+)", config)
        assert match, f"/etc/resolv.conf of a pod on {node} does not search {web.domain}: {config}"
        for name in (web.name, f"{web.name}.{web.domain}.{match[1]}"):
            wait_until(
                f"a pod on {node} resolves '{name}' to {web.address}",
                lambda node=node, name=name: web.lookup(node, name),
                lambda seen: seen[0] == [web.address],
                SETTLE,
                evidence=lambda config=config: config,
            )


def test_a_headless_service_gives_each_pod_a_name(
    resolving_kubernetes: Kubernetes, web: WebServers
):
    client = next(iter(web.pods))
    config = resolving_kubernetes.exec(web.pods[client], "cat /etc/resolv.conf").stdout
    match = re.search(rf"\b{re.escape(web.domain)}\.(\S+)", config)
    domain = f"{web.headless}.{web.domain}.{match[1] if match else 'cluster.local'}"
    expected = sorted(pod.ip for pod in web.pods.values())
    wait_until(
        f"'{domain}' resolves to the pods' addresses {expected}",
        lambda: web.lookup(client, domain),
        lambda seen: sorted(seen[0]) == expected,
        SETTLE,
    )
    pod = list(web.pods.values())[-1]
    wait_until(
        f"'{pod.name}.{domain}' resolves to {pod.ip}",
        lambda: web.lookup(client, f"{pod.name}.{domain}"),
        lambda seen: seen[0] == [pod.ip],
        SETTLE,
    )


@pytest.mark.nodes("kube_control_plane", "kube_node")
def test_the_node_port_answers_from_outside(node: Node, web: WebServers, deepops: Nodes):
    address = node.address or web.kubernetes.nodes[node.name].address
    login = deepops.login
    script = (
        "import sys, urllib.request; "
        "print(urllib.request.urlopen(sys.argv[1], timeout=8).read().decode().strip())"
    )
    url = f"http://{address}:{web.node_port}/"

    def ask() -> str:
        done = login.host.run("python3 -c %s %s 2>&1", script, url)
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    wait_until(
        f"{login.name} gets the page of Service {web.name} at {url}",
        ask,
        lambda page: page in web.pods,
        SETTLE,
        evidence=lambda: web.kubernetes.journal(node, "kube-proxy"),
    )
