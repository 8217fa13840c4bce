"""NVIDIA's part of Kubernetes: GPU operator or device plugin, what nodes offer, what labels say,
what a pod sees."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import (
    DeepopsKubernetes,
    GpuPods,
    Gpus,
    KubeNode,
    Kubernetes,
    Verdict,
    kube_gpus,
)
from deepops_fixtures.cluster.running import Node

pytestmark = [pytest.mark.kubernetes, pytest.mark.gpu]
Settle = Callable[[Verdict], None]


@pytest.fixture
def stack(
    answering_kubernetes: Kubernetes, deepops_kubernetes: DeepopsKubernetes
) -> DeepopsKubernetes:
    """A Kubernetes that has NVIDIA's device plugin."""
    absent = deepops_kubernetes.absent("device-plugin")
    if absent:
        pytest.skip(absent)
    return deepops_kubernetes


@pytest.fixture
def gpu_node(kube_node: KubeNode, stack: DeepopsKubernetes) -> KubeNode:
    """The node as the API knows it, in a Kubernetes that has NVIDIA's device plugin."""
    return kube_node


@pytest.fixture
def driven_gpus(node: Node, gpus_seen: dict[str, Gpus]) -> Gpus:
    """The GPUs of the node, none at all among them; skips where the driver does not answer, which
    has a check of its own."""
    gpus = gpus_seen.setdefault(node.name, Gpus(node))
    if not gpus.absent and gpus.obstacle:
        pytest.skip(f"the GPUs cannot be asked: {gpus.obstacle}")
    return gpus


def _listing(gpus: Gpus) -> str:
    return "" if gpus.absent else str(gpus.smi.run("-L").stdout)


# -- what is deployed -----------------------------------------------------------------------


@pytest.mark.usefixtures("answering_kubernetes")
def test_the_gpu_operator_is_ready(deepops_kubernetes: DeepopsKubernetes, settle: Settle):
    settle(deepops_kubernetes.policy())


@pytest.mark.parametrize("part", ["device-plugin", "feature-discovery", "dcgm-exporter"])
def test_nvidias_pods_are_ready_on_every_node_that_they_are_for(
    stack: DeepopsKubernetes, part: str, settle: Settle
):
    absent = stack.absent(part)
    if absent:
        pytest.skip(absent)
    settle(stack.ready(part))


@pytest.mark.nodes("kube_node")
def test_the_device_plugin_runs_on_every_node_with_gpus(
    gpu_node: KubeNode, stack: DeepopsKubernetes, driven_gpus: Gpus
):
    if driven_gpus.absent:
        pytest.skip(driven_gpus.absent)
    assert gpu_node.name in stack.nodes_of("device-plugin"), (
        f"{gpu_node.name}: it has {len(driven_gpus.survey.gpus)} GPU(s) and no ready pod of "
        "NVIDIA's device plugin"
    )


# -- what Kubernetes has to give ------------------------------------------------------------


@pytest.mark.nodes("kube_node")
def test_kubernetes_has_the_gpus_of_the_node_to_give(
    gpu_node: KubeNode, driven_gpus: Gpus, settle: Settle
):
    sliced = 0 if driven_gpus.absent else sum(bool(gpu.mig) for gpu in driven_gpus.smi.gpus)
    cards = len(driven_gpus.survey.gpus)
    settle(kube_gpus.gpu_count(gpu_node, cards, _listing(driven_gpus), sliced))


@pytest.mark.nodes("kube_node")
def test_kubernetes_has_the_mig_devices_of_the_node_to_give(
    gpu_node: KubeNode, driven_gpus: Gpus, settle: Settle
):
    settle(kube_gpus.mig_count(gpu_node, _listing(driven_gpus)))


@pytest.mark.nodes("kube_node")
def test_the_labels_of_the_node_say_what_its_gpus_are(
    gpu_node: KubeNode, driven_gpus: Gpus, settle: Settle
):
    if driven_gpus.absent:
        pytest.skip(driven_gpus.absent)
    settle(kube_gpus.labels(gpu_node, driven_gpus.smi.report))


# -- what a pod sees ------------------------------------------------------------------------


@pytest.fixture
def pods_of_node(working_kubernetes: Kubernetes, gpu_pods: GpuPods, node: Node) -> GpuPods:
    """Pods with real GPUs of the node."""
    if gpu_pods.simulated:
        pytest.skip("the GPUs are SIMULATED: there is none to see in a pod")
    if node.name not in gpu_pods.free:
        pytest.skip(f"Kubernetes has no free GPU on node '{node.name}'")
    return gpu_pods


@pytest.mark.nodes("kube_node")
def test_a_pod_sees_the_gpu_that_it_asks_for(pods_of_node: GpuPods, node: Node, settle: Settle):
    settle(pods_of_node.sees(node.name, 1))


@pytest.mark.nodes("kube_node")
def test_a_pod_that_asks_for_no_gpu_sees_none(pods_of_node: GpuPods, node: Node, settle: Settle):
    settle(pods_of_node.hidden(node.name))
