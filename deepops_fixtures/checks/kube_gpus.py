"""The GPUs of a node as Kubernetes has them, against the node itself: what can be given to pods,
what the labels say, who has which.

Pure functions from what the API and nvidia-smi say to verdicts; pods are run by ``kube_gpu_pods``.
Sources: NVIDIA's device plugin for the names of resources and the strategies of MIG, GPU feature
discovery for the labels, Kubernetes' documentation of extended resources.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts
from deepops_fixtures.checks.gpu_rules import Verdict

if TYPE_CHECKING:
    from deepops_fixtures.checks.kube_data import KubeNode
    from deepops_fixtures.checks.nvidia_smi_data import SmiReport

#: Label of a node whose GPUs are simulated, see ``deepops_fixtures.simulation``.
SIMULATED = "deepops-fixtures/simulated-gpus"
_SLICE = re.compile(r"^\s+MIG (\S+)\s+Device", re.MULTILINE)


def mig_profiles(listing: str) -> Counter[str]:
    """Return the resources of the MIG devices in what ``nvidia-smi -L`` prints, and how many.

    >>> mig_profiles("GPU 0: A100\\n  MIG 1g.5gb+me  Device  0: (UUID: MIG-1)\\n")
    Counter({'nvidia.com/mig-1g.5gb.me': 1})
    """
    names = (each.replace("+", ".") for each in _SLICE.findall(listing))
    return Counter(f"{facts.MIG_RESOURCES}{name}" for name in names)


def resources(node: KubeNode) -> dict[str, int]:
    """Return what a node can give of NVIDIA's; {} where no device plugin has told any."""
    return {
        name: int(count)
        for name, count in node.allocatable.items()
        if name.startswith((facts.GPU_RESOURCE, facts.MIG_RESOURCES))
    }


def strategy(node: KubeNode) -> str:
    """Return how the device plugin names MIG devices: 'none', 'single' (as GPUs) or 'mixed' (each
    kind by its own name)."""
    return node.labels.get("nvidia.com/mig.strategy", "none")


def _told(node: KubeNode) -> tuple[dict[str, int], str]:
    """Return a node's resources, and why they cannot be judged ('' when they can)."""
    copies = node.labels.get("nvidia.com/gpu.replicas", "1") or "1"
    if SIMULATED in node.labels:
        return {}, "its GPUs in Kubernetes are SIMULATED"
    if copies not in ("0", "1"):
        return {}, f"each of its GPUs is given to {copies} pods"
    return resources(node), ""


def gpu_count(node: KubeNode, cards: int, listing: str, sliced: int) -> Verdict:
    """Whether Kubernetes has as many GPUs to give as the node has.

    ``cards``: GPUs in the node's sysfs; ``sliced``: how many of them have MIG on; ``listing``:
    what ``nvidia-smi -L`` prints there.
    """
    told, unjudged = _told(node)
    if unjudged:
        return Verdict(node.name, unjudged=(unjudged,))
    how, slices = strategy(node), sum(mig_profiles(listing).values())
    wanted = cards
    if sliced and how == "single":
        wanted = slices
    elif sliced and how == "mixed":
        wanted = cards - sliced
    has = told.get(facts.GPU_RESOURCE)
    if has is None and wanted:
        text = (
            f"Kubernetes has no {facts.GPU_RESOURCE} on it, the node has {wanted} GPU(s): the "
            "device plugin has not told the kubelet any"
        )
        return Verdict(node.name, (text,), (), 1)
    faults = []
    if (has or 0) != wanted:
        also = f" (MIG is on for {sliced}, strategy '{how}')" if sliced else ""
        faults.append(
            f"Kubernetes can give {has} {facts.GPU_RESOURCE}, the node has {wanted}{also}"
        )
    return Verdict(node.name, tuple(faults), (), 1)


def mig_count(node: KubeNode, listing: str) -> Verdict:
    """Whether Kubernetes has the MIG devices to give that nvidia-smi lists, kind by kind."""
    told, unjudged = _told(node)
    there = mig_profiles(listing)
    given = {name: count for name, count in told.items() if name.startswith(facts.MIG_RESOURCES)}
    if unjudged or not (there or any(given.values())):
        return Verdict(node.name, unjudged=(unjudged or "it has no MIG device",))
    how = strategy(node)
    if how != "mixed" and not any(given.values()):
        why = f"its MIG devices have no names of their own: the strategy of MIG is '{how}'"
        return Verdict(node.name, unjudged=(why,))
    faults = [
        f"Kubernetes can give {given.get(name, 0)} {name}, nvidia-smi lists {there[name]}"
        for name in sorted(there | Counter(given))
        if given.get(name, 0) != there[name]
    ]
    return Verdict(node.name, tuple(faults), (), len(there))


def labels(node: KubeNode, report: SmiReport) -> Verdict:
    """Whether the labels of GPU feature discovery say what nvidia-smi says: product, count,
    driver, whether the GPUs can be sliced."""
    said = {name: value for name, value in node.labels.items() if name.startswith("nvidia.com/")}
    if "nvidia.com/gpu.product" not in said and "nvidia.com/gpu.count" not in said:
        why = "it has no labels of GPU feature discovery (nvidia.com/gpu.product, …)"
        return Verdict(node.name, unjudged=(why,))
    faults, judged = [], 0
    for name, wanted in _true_labels(report).items():
        if name not in said:
            continue
        judged += 1
        if said[name] not in wanted:
            faults.append(
                f"the label {name} is '{said[name]}', nvidia-smi says '{' or '.join(wanted)}'"
            )
    product, names = said.get("nvidia.com/gpu.product", ""), _products(report)
    judged += 1
    if not any(product == name or product.startswith(f"{name}-") for name in names):
        faults.append(
            f"the label nvidia.com/gpu.product is '{product}', nvidia-smi says "
            f"'{' and '.join(sorted(names)) or 'no GPU'}'"
        )
    if said.get("nvidia.com/mig.strategy", "none") not in ("none", "single", "mixed"):
        faults.append(
            f"the label nvidia.com/mig.strategy is '{said['nvidia.com/mig.strategy']}', which is "
            "none of 'none', 'single' and 'mixed'"
        )
    return Verdict(node.name, tuple(faults), (), judged)


def _products(report: SmiReport) -> set[str]:
    # With MIG or sharing '-MIG-1g.5gb' or '-SHARED' follow.
    return {re.sub(r"[^A-Za-z0-9._]+", "-", gpu.name).strip("-") for gpu in report.gpus}


def _true_labels(report: SmiReport) -> dict[str, tuple[str, ...]]:
    """Return label → what it may be, by nvidia-smi."""
    count = len(report.gpus)
    # Strategy 'single' counts the slices.
    slices = sum(len(gpu.mig_devices) if gpu.mig else 1 for gpu in report.gpus)
    capable = any(gpu.mig is not None for gpu in report.gpus)
    major = report.driver_version.partition(".")[0]
    found = {
        "nvidia.com/gpu.count": tuple(dict.fromkeys((str(count), str(slices)))),
        "nvidia.com/mig.capable": (str(capable).lower(),),
    }
    if major:
        found["nvidia.com/cuda.driver.major"] = (major,)
        found["nvidia.com/cuda.driver-version.major"] = (major,)
        found["nvidia.com/cuda.driver-version.full"] = (report.driver_version,)
    return found


# -- who has them ---------------------------------------------------------------------------


def _asked(pod: Mapping[str, Any], resource: str) -> int:
    """Return how many of a resource a pod has: its containers' together, or what its greediest
    init container has, which runs before them."""

    def limits(kind: str) -> list[int]:
        return [
            int((each.get("resources") or {}).get("limits", {}).get(resource, 0))
            for each in pod.get("spec", {}).get(kind) or ()
        ]

    return max([sum(limits("containers")), *limits("initContainers")])


def taken(pods: Iterable[Mapping[str, Any]], resource: str) -> Counter[str]:
    """Return node → how many of a resource the pods on it have (items of /api/v1/pods)."""
    found: Counter[str] = Counter()
    for pod in pods:
        node, phase = pod.get("spec", {}).get("nodeName"), pod.get("status", {}).get("phase")
        if node and phase not in ("Succeeded", "Failed"):
            found[node] += _asked(pod, resource)
    return found


def free(
    nodes: Iterable[KubeNode], pods: Iterable[Mapping[str, Any]], resource: str = ""
) -> dict[str, int]:
    """Return node → how many GPUs a new pod can have there, for the nodes that are ready, take
    pods and have any at all."""
    name = resource or facts.GPU_RESOURCE
    used = taken(pods, name)
    return {
        node.name: max(0, int(node.allocatable[name]) - used[node.name])
        for node in nodes
        if int(node.allocatable.get(name, "0")) and node.ready and not node.cordoned
    }
