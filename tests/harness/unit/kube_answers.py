"""An API server that answers from a table, and objects as it lists them."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

from deepops_fixtures import facts
from deepops_fixtures.checks import DeepopsKubernetes
from deepops_fixtures.checks.kube_api import ApiRefused
from deepops_fixtures.checks.kube_data import KubeNode, Pod

Plain = dict[str, Any]


class Api:
    """Path → what it gives; an exception is raised. What is in no table is not found."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, **params: str) -> Any:
        self.asked.append((path, params))
        found = self.table.get(path, ApiRefused(f"GET {path}", 404, "NotFound", "not found"))
        if isinstance(found, Exception):
            raise found
        return found

    def items(self, path: str, **params: str) -> list[Plain]:
        return list(self.get(path, **params)["items"])


def kubernetes(table: dict[str, Any], nodes: Iterable[Plain] = (), pods: Iterable[Plain] = ()):
    """A Kubernetes that lists these."""
    lists = {"/api/v1/services": [], "/api/v1/configmaps": []}
    lists |= {
        f"/apis/apps/v1/{kind}": [] for kind in ("deployments", "daemonsets", "statefulsets")
    }
    answers = {path: {"items": items} for path, items in lists.items()}
    for path, found in table.items():
        answers[path] = {"items": found} if isinstance(found, list) else found
    listed = list(pods)
    return types.SimpleNamespace(
        api=Api(answers),
        nodes={node.name: node for node in map(KubeNode.parse, nodes)},
        pods=lambda namespace, labels: [Pod.parse(each) for each in listed],
    )


def service(name: str, namespace: str, labels: Plain | None = None, **spec: Any) -> Plain:
    meta = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"metadata": meta, "spec": {"ports": [{"port": 80, "name": "http"}], **spec}}


def deployment(name: str, namespace: str, labels: Plain, wanted: int = 1, ready: int = 1) -> Plain:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"replicas": wanted, "selector": {"matchLabels": labels}},
        "status": {"readyReplicas": ready, "updatedReplicas": ready},
    }


def node(
    name: str = "gpu01", labels: Plain | None = None, ready: bool = True, **told: str
) -> Plain:
    """A node; ``told``: gpu='2' is nvidia.com/gpu, mig_1g_5gb='7' is nvidia.com/mig-1g.5gb."""
    names = {"gpu": facts.GPU_RESOURCE, "mig_1g_5gb": "nvidia.com/mig-1g.5gb"}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "status": {
            "allocatable": {"cpu": "8", **{names[key]: count for key, count in told.items()}},
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.4"}],
        },
    }


def pod(name: str, where: str, gpus: int = 0, phase: str = "Running", **spec: Any) -> Plain:
    limits = {"limits": {facts.GPU_RESOURCE: str(gpus)}} if gpus else {}
    return {
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"nodeName": where, "containers": [{"name": "main", "resources": limits}], **spec},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.9",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def parts(
    services: Iterable[Plain] = (),
    deployments: Iterable[Plain] = (),
    nodes: Iterable[Plain] = (),
    pods: Iterable[Plain] = (),
    **table: Any,
) -> DeepopsKubernetes:
    """What DeepOps has on a Kubernetes that lists these; ``table``: path → what it gives."""
    lists = {"/api/v1/services": list(services), "/apis/apps/v1/deployments": list(deployments)}
    return DeepopsKubernetes(kubernetes(lists | table, list(nodes), list(pods)))


def known(*args: Any, **told: Any) -> KubeNode:
    """The node as an object."""
    return KubeNode.parse(node(*args, **told))


class Scheduler:
    """A Kubernetes that decides over pods with GPUs as it is told: name of a node, or why none."""

    def __init__(self, *decisions: str, log: str = "", free: str = "2") -> None:
        self.decisions, self.log = list(decisions), log
        self.nodes = {name: known(name, gpu=free) for name in ("a", "b")}
        self.image = "image"
        self.living: dict[str, dict] = {}
        self.limits: list[str] = []
        self.images: list[str] = []
        self.api = types.SimpleNamespace(items=lambda _path: [])

    def _decide(self, name: str, labels: dict) -> dict:
        decision = self.decisions.pop(0)
        found = pod(name, decision if " " not in decision else "", phase="Running")
        found["metadata"]["labels"] = labels
        if " " in decision:
            found["status"] = {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "message": decision}],
            }
        self.living[name] = found
        return found

    def run_pod(
        self, _command: str, *, name: str, resources: dict, image: str = "", **_more
    ) -> Pod:
        self.limits += resources.get("limits", {}).values()
        self.images.append(image)
        return Pod.parse(self._decide(name, {}))

    def create(self, manifest: dict) -> None:
        self.pods_of_job = [
            self._decide(f"job-{number}", {}) for number in range(manifest["spec"]["parallelism"])
        ]

    def pod(self, asked: Pod) -> Pod:
        if asked.name not in self.living:
            raise ApiRefused("GET", 404, "NotFound", "gone")
        return Pod.parse(self.living[asked.name])

    def pods(self, labels: dict) -> list[Pod]:
        return [Pod.parse(each) for each in self.living.values()]

    def wait_ready(self, asked: Pod) -> Pod:
        return self.pod(asked)

    def wait_done(self, asked: Pod, _seconds: float) -> Pod:
        return self.pod(asked)

    def logs(self, _pod: Pod) -> str:
        return self.log

    def delete(self, kind: str, name: str, *_api: str, grace: int | None = None) -> None:
        if kind == "Pod":
            del self.living[name]

    def evidence(self, asked: Pod) -> str:
        return str(self.pod(asked))
