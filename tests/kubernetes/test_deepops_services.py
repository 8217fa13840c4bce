"""What DeepOps puts on Kubernetes besides GPUs: ingress, load balancer, registry, monitoring,
dashboard, shared volumes. What a cluster does not have is skipped, with what was looked for."""

import secrets
from collections.abc import Callable

import pytest

from deepops_fixtures.checks import (
    DeepopsKubernetes,
    Kubernetes,
    Verdict,
    WebServers,
    kube_services,
)
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.kubernetes
Settle = Callable[[Verdict], None]
Have = Callable[[str], None]


@pytest.fixture
def have(answering_kubernetes: Kubernetes, deepops_kubernetes: DeepopsKubernetes) -> Have:
    """A function that skips where a part is not there, and says where it was looked for."""

    def wanted(part: str) -> None:
        absent = deepops_kubernetes.absent(part)
        if absent:
            pytest.skip(absent)

    return wanted


@pytest.fixture
def asker(deepops: Nodes) -> Node:
    """The machine from which Services are asked, as a user's would: the login node."""
    return deepops.login


PARTS = [
    "ingress",
    "metallb",
    "registry",
    "prometheus",
    "grafana",
    "alertmanager",
    "dashboard",
    "nfs-provisioner",
]


@pytest.mark.parametrize("part", PARTS)
def test_the_pods_of_a_service_are_ready(
    have: Have, deepops_kubernetes: DeepopsKubernetes, part: str, settle: Settle
):
    have(part)
    settle(deepops_kubernetes.ready(part))


@pytest.mark.parametrize("part", ["prometheus", "grafana", "alertmanager", "dashboard"])
def test_a_service_answers(
    have: Have, deepops_kubernetes: DeepopsKubernetes, part: str, settle: Settle
):
    have(part)
    settle(deepops_kubernetes.answers(part))


@pytest.mark.parametrize(
    "part", ["prometheus", "grafana", "alertmanager", "dashboard", "registry"]
)
def test_a_service_answers_at_every_node(
    have: Have, deepops_kubernetes: DeepopsKubernetes, asker: Node, part: str, settle: Settle
):
    have(part)
    settle(deepops_kubernetes.node_port(part, asker))


@pytest.mark.gpu
def test_prometheus_has_every_metric_that_the_gpu_dashboard_asks_for(
    have: Have, deepops_kubernetes: DeepopsKubernetes, settle: Settle
):
    have("dcgm-exporter")
    have("prometheus")
    settle(deepops_kubernetes.metrics())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_ingress_leads_to_its_service(
    have: Have,
    working_kubernetes: Kubernetes,
    deepops_kubernetes: DeepopsKubernetes,
    asker: Node,
    scheme: str,
    settle: Settle,
    request: pytest.FixtureRequest,
):
    have("ingress")
    web: WebServers = request.getfixturevalue("web")
    settle(kube_services.ingress(deepops_kubernetes, web, asker, scheme))


def test_a_load_balancer_gives_an_address_that_answers(
    have: Have,
    working_kubernetes: Kubernetes,
    deepops_kubernetes: DeepopsKubernetes,
    asker: Node,
    settle: Settle,
    request: pytest.FixtureRequest,
):
    have("metallb")
    web: WebServers = request.getfixturevalue("web")
    settle(kube_services.load_balancer(deepops_kubernetes, web, asker))


def test_the_registry_gives_back_the_image_that_it_was_given_and_a_pod_runs_it(
    have: Have,
    working_kubernetes: Kubernetes,
    deepops_kubernetes: DeepopsKubernetes,
    deepops: Nodes,
    settle: Settle,
):
    have("registry")
    node = (deepops.group("kube_node") or deepops.group("kube_control_plane"))[0]
    repository = f"deepops-check-{secrets.token_hex(4)}"
    settle(kube_services.registry(deepops_kubernetes, node, repository))
    settle(kube_services.registry_pod(deepops_kubernetes, node, repository))


def test_pods_on_two_nodes_share_a_file(
    have: Have,
    working_kubernetes: Kubernetes,
    deepops_kubernetes: DeepopsKubernetes,
    settle: Settle,
):
    have("nfs-provisioner")
    if not deepops_kubernetes.storage_class:
        pytest.fail("the NFS provisioner runs and no StorageClass is served by it", pytrace=False)
    able = sorted(node.name for node in working_kubernetes.nodes.values() if node.schedulable)
    if not able:
        pytest.skip("no node takes pods")
    # Where one node alone takes pods, two pods there share it.
    settle(kube_services.shared_file(deepops_kubernetes, (able * 2)[:2]))
