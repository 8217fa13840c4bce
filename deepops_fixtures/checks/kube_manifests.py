"""The objects that the checks make, as the API takes them. Pure functions; nothing is sent here.

Pods take as little as possible: one small container, a second to end, no token of a service
account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepops_fixtures import facts
from deepops_fixtures.checks.kube_data import CONTROL_PLANE_TAINTS

Plain = dict[str, Any]

#: Label by which what a run has left is found; Kubernetes' objects of the checks carry it.
LABELS = {"deepops-fixtures": "check"}
#: What lets a pod that is pinned to a node run on a control plane node and on one kept for GPUs.
TOLERATIONS = [
    *({"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in CONTROL_PLANE_TAINTS),
    {"key": facts.GPU_RESOURCE, "operator": "Exists"},
]
_SPECIAL = {"NetworkPolicy": "networkpolicies", "StorageClass": "storageclasses"}
_GLOBAL = frozenset(
    {"Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "StorageClass", "PersistentVolume"}
)


def path_of(kind: str, namespace: str = "", name: str = "", api: str = "v1") -> str:
    """Return where the API keeps objects of a kind.

    >>> path_of("Deployment", "default", "web", "apps/v1")
    '/apis/apps/v1/namespaces/default/deployments/web'
    """
    base = f"/api/{api}" if "/" not in api else f"/apis/{api}"
    plural = _SPECIAL.get(kind) or f"{kind.lower()}{'' if kind == 'Endpoints' else 's'}"
    middle = f"/namespaces/{namespace}" if namespace and kind not in _GLOBAL else ""
    return f"{base}{middle}/{plural}" + (f"/{name}" if name else "")


def container(
    command: str | Sequence[str],
    image: str,
    *,
    resources: Mapping[str, Mapping[str, str]] | None = None,
    environment: Mapping[str, str] | None = None,
    mounts: Mapping[str, str] | None = None,
) -> Plain:
    """Return a container; a command that is one string is the shell's. ``mounts`` is path →
    volume's name.

    Every container knows NODE_NAME, POD_NAME and POD_IP.
    """
    told = {
        "NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name", "POD_IP": "status.podIP",
    }  # fmt: skip
    return {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command] if isinstance(command, str) else list(command),
        "env": [
            *(
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in told.items()
            ),
            *({"name": name, "value": value} for name, value in (environment or {}).items()),
        ],
        "resources": {key: dict(value) for key, value in (resources or {}).items()},
        "volumeMounts": [
            {"name": volume, "mountPath": path} for path, volume in (mounts or {}).items()
        ],
    }


def pod_spec(main: Plain, *, node: str = "", restart: str = "Never", **more: Any) -> Plain:
    """Return a pod's specification with one container; ``node`` pins it to a node by its label,
    so that the scheduler and not the test decides whether it fits."""
    spec: Plain = {
        "containers": [main],
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        spec["tolerations"] = TOLERATIONS
    return spec | more


def _made(
    api: str, kind: str, name: str, spec: Plain, labels: Mapping[str, str] | None = None
) -> Plain:
    """Return an object with the label of the checks."""
    meta = {"name": name, "labels": {**LABELS, **(labels or {})}}
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}


def pod(name: str, spec: Plain, labels: Mapping[str, str] | None = None) -> Plain:
    """Return a pod."""
    return _made("v1", "Pod", name, spec, labels)


def template(spec: Plain, labels: Mapping[str, str]) -> Plain:
    """Return the pod template of a Deployment or a Job."""
    return {"metadata": {"labels": {**LABELS, **labels}}, "spec": spec}


def service(name: str, selector: Mapping[str, str], port: int, **spec: Any) -> Plain:
    """Return a Service that leads to a port of the pods with these labels; ``spec`` overrides."""
    ports = [{"port": 80, "targetPort": port, "protocol": "TCP"}]
    return _made("v1", "Service", name, {"selector": dict(selector), "ports": ports} | spec)


def _lasting(name: str, pods: int, spec: Plain) -> Plain:
    """Return what a Deployment and a StatefulSet say alike: so many pods with the label
    app=name, started anew when they end."""
    labels = {"app": name}
    return {
        "replicas": pods,
        "selector": {"matchLabels": labels},
        "template": template({**spec, "restartPolicy": "Always"}, labels),
    }


def deployment(name: str, replicas: int, spec: Plain) -> Plain:
    """Return a Deployment whose pods carry the label app=name."""
    body = _lasting(name, replicas, spec) | {"progressDeadlineSeconds": 120}
    return _made("apps/v1", "Deployment", name, body)


def job(name: str, spec: Plain, *, pods: int = 1, indexed: bool = False) -> Plain:
    """Return a Job of so many pods at once, each of which has to succeed once."""
    body: Plain = {
        "backoffLimit": 0,
        "completions": pods,
        "parallelism": pods,
        "template": template(spec, {"app": name}),
    }
    if indexed:
        body["completionMode"] = "Indexed"
    return _made("batch/v1", "Job", name, body)


def stateful_set(name: str, pods: int, spec: Plain) -> Plain:
    """Return a StatefulSet of so many pods at once, name-0, name-1, …; the Service of its name
    gives them their names."""
    body = _lasting(name, pods, spec) | {"serviceName": name, "podManagementPolicy": "Parallel"}
    return _made("apps/v1", "StatefulSet", name, body)


def apart(name: str) -> Plain:
    """Return the affinity that keeps pods with the label app=name on a node each."""
    return {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {"app": name}},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
    }
