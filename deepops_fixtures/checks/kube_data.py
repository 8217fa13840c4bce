"""What the Kubernetes API says, as typed objects. Pure functions from plain JSON to objects;
nothing is asked here.

Fields are those of core/v1, apps/v1 and batch/v1 that 1.20 and 1.35 both serve. What an API leaves
out has the value that the API means by leaving it out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from deepops_fixtures import facts

#: Conditions of a node that are bad when they are True (Kubernetes, Node Status).
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
#: What a pod waits for in vain (reasons of a container's waiting state).
HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
#: Taints that Kubernetes itself puts on control plane nodes.
CONTROL_PLANE_TAINTS = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
)

Plain = dict[str, Any]


def version_numbers(text: str) -> tuple[int, int]:
    """Return major and minor of a version.

    >>> version_numbers("v1.20.2-rc.1+abc")
    (1, 20)
    """
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


@dataclass(frozen=True)
class Condition:
    """A condition of a node, a pod or a Deployment; ``status`` is 'True', 'False' or 'Unknown'."""

    kind: str
    status: str
    reason: str = ""
    message: str = ""

    def __str__(self) -> str:
        why = ": ".join(text for text in (self.reason, self.message) if text)
        return f"{self.kind} is {self.status}" + (f" ({why})" if why else "")

    @classmethod
    def parse_all(cls, status: Plain) -> dict[str, Condition]:
        """Return the conditions of an object's status, by their type."""
        found = [
            cls(
                item["type"], item.get("status", ""), item.get("reason", ""),
                item.get("message", ""),
            )
            for item in status.get("conditions") or ()
        ]  # fmt: skip
        return {item.kind: item for item in found}


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    effect: str
    value: str = ""
    #: When it was put there, '' where the API does not say.
    added: str = ""

    def __str__(self) -> str:
        value = f"={self.value}" if self.value else ""
        return f"{self.key}{value}:{self.effect}" + (f" since {self.added}" if self.added else "")

    @classmethod
    def parse(cls, item: Plain) -> Taint:
        """Return the taint of one item of a node's spec.taints."""
        return cls(item["key"], item["effect"], item.get("value", ""), item.get("timeAdded", ""))

    @property
    def usual(self) -> bool:
        """Whether it keeps users' pods from the control plane, or pods that ask for no GPU from
        the nodes with GPUs: healthy nodes have these."""
        return self.key in (*CONTROL_PLANE_TAINTS, facts.GPU_RESOURCE)


@dataclass(frozen=True)
class KubeNode:
    """A node as the API server knows it."""

    name: str
    conditions: dict[str, Condition]
    #: Version of its kubelet, like 'v1.20.2'.
    version: str = ""
    runtime: str = ""
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()
    #: Type ('InternalIP', 'Hostname') → address.
    addresses: dict[str, str] = field(default_factory=dict)
    #: Resource → quantity as Kubernetes writes it ('2', '981436Ki').
    allocatable: dict[str, str] = field(default_factory=dict)
    #: Every name of every image that the node has told (kubelet tells 50 by default).
    images: frozenset[str] = frozenset()
    pod_cidrs: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    boot_id: str = ""

    @property
    def ready(self) -> bool:
        """Whether its kubelet says that it is ready, and has said so of late."""
        found = self.conditions.get("Ready")
        return found is not None and found.status == "True"

    @property
    def why_not_ready(self) -> str:
        """What its condition Ready says, '' when it is ready."""
        if self.ready:
            return ""
        found = self.conditions.get("Ready")
        return str(found) if found else "its kubelet has told no condition"

    @property
    def pressures(self) -> list[str]:
        """What it is short of, in the kubelet's words."""
        return [
            str(condition)
            for kind, condition in self.conditions.items()
            if kind in PRESSURES and condition.status == "True"
        ]

    @property
    def foreign_taints(self) -> list[Taint]:
        """The taints that keep pods away and that are neither a cordon's nor usual."""
        return [
            taint
            for taint in self.taints
            if taint.effect != "PreferNoSchedule"
            and not taint.usual
            and taint.key != "node.kubernetes.io/unschedulable"
        ]

    @property
    def schedulable(self) -> bool:
        """Whether a pod without tolerations can be put here."""
        return not self.cordoned and not any(
            taint.effect in ("NoSchedule", "NoExecute") for taint in self.taints
        )

    @property
    def address(self) -> str:
        """Its address in the cluster's network, '' when it has told none."""
        return self.addresses.get("InternalIP", "")

    @classmethod
    def parse(cls, item: Plain) -> KubeNode:
        """Return the node of one item of /api/v1/nodes."""
        meta, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
        info = status.get("nodeInfo", {})
        cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        images = [image.get("names") or () for image in status.get("images") or ()]
        return cls(
            name=meta["name"],
            conditions=Condition.parse_all(status),
            version=info.get("kubeletVersion", ""),
            runtime=info.get("containerRuntimeVersion", ""),
            cordoned=bool(spec.get("unschedulable")),
            taints=tuple(map(Taint.parse, spec.get("taints") or ())),
            addresses={each["type"]: each["address"] for each in status.get("addresses") or ()},
            allocatable=dict(status.get("allocatable") or {}),
            images=frozenset(name for names in images for name in names),
            pod_cidrs=tuple(cidrs),
            labels=dict(meta.get("labels") or {}),
            boot_id=info.get("bootID", ""),
        )


@dataclass(frozen=True)
class Pod:
    """A pod. ``waiting`` and ``ended`` are container → reason."""

    name: str
    namespace: str
    phase: str
    conditions: dict[str, Condition] = field(default_factory=dict)
    node: str = ""
    ip: str = ""
    restarts: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    #: Container → reason of its last end ('Completed', 'Error', 'OOMKilled').
    ended: dict[str, str] = field(default_factory=dict)
    #: Container → exit status of its last end.
    exit_codes: dict[str, int] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    #: 'Kind/name' of the object that made it, '' for a pod on its own.
    owner: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    deleting: bool = False
    uid: str = ""
    host_network: bool = False

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ", on no node yet"
        why = ", ".join([*self.waiting.values(), *self.ended.values(), *self.messages])
        return f"pod {self.namespace}/{self.name} is {self.phase}{where}" + (
            f" ({why})" if why else ""
        )

    @property
    def ready(self) -> bool:
        """Whether all its containers are ready, and it is not being deleted."""
        found = self.conditions.get("Ready")
        return found is not None and found.status == "True" and not self.deleting

    @property
    def done(self) -> bool:
        """Whether it has ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def hopeless(self) -> bool:
        """Whether it waits for something that time alone will not bring."""
        return bool(HOPELESS & set(self.waiting.values()))

    @property
    def unschedulable(self) -> str:
        """Why the scheduler finds no node for it, '' when it has one or has not been looked at."""
        found = self.conditions.get("PodScheduled")
        return found.message if found and found.status == "False" else ""

    @classmethod
    def parse(cls, item: Plain) -> Pod:
        """Return the pod of one item of /api/v1/pods."""
        meta, status = item["metadata"], item.get("status", {})
        containers = [
            *(status.get("initContainerStatuses") or ()),
            *(status.get("containerStatuses") or ()),
        ]
        states = {each["name"]: each.get("state") or {} for each in containers}
        ends = {
            each["name"]: (each.get("state") or {}).get("terminated")
            or (each.get("lastState") or {}).get("terminated")
            for each in containers
        }
        owner = next(iter(meta.get("ownerReferences") or ()), None)
        said = [state.get("waiting", {}).get("message", "") for state in states.values()]
        return cls(
            name=meta["name"],
            namespace=meta.get("namespace", ""),
            phase=status.get("phase", "Unknown"),
            conditions=Condition.parse_all(status),
            node=item.get("spec", {}).get("nodeName", ""),
            ip=status.get("podIP", ""),
            restarts=sum(each.get("restartCount", 0) for each in containers),
            waiting={
                name: state["waiting"].get("reason", "")
                for name, state in states.items()
                if "waiting" in state
            },
            ended={name: end.get("reason", "") for name, end in ends.items() if end},
            exit_codes={name: end.get("exitCode", -1) for name, end in ends.items() if end},
            messages=tuple(
                text for text in (status.get("reason"), status.get("message"), *said) if text
            ),
            owner=f"{owner['kind']}/{owner['name']}" if owner else "",
            labels=dict(meta.get("labels") or {}),
            deleting="deletionTimestamp" in meta,
            uid=meta.get("uid", ""),
            host_network=bool(item.get("spec", {}).get("hostNetwork")),
        )


@dataclass(frozen=True)
class KubeJob:
    """A batch/v1 Job. ``wanted`` is the number of pods that have to succeed."""

    name: str
    namespace: str
    wanted: int
    succeeded: int
    failed: int
    conditions: dict[str, Condition] = field(default_factory=dict)
    #: 'Indexed' or 'NonIndexed'; '' where the API has no such field (before 1.21).
    mode: str = ""

    def __str__(self) -> str:
        told = "; ".join(str(each) for each in self.conditions.values()) or "no condition yet"
        return (
            f"job {self.namespace}/{self.name}: {self.succeeded} of {self.wanted} pod(s) "
            f"succeeded, {self.failed} failed ({told})"
        )

    def _is(self, kind: str) -> bool:
        return kind in self.conditions and self.conditions[kind].status == "True"

    @property
    def complete(self) -> bool:
        """Whether all of it has succeeded."""
        return self._is("Complete")

    @property
    def has_failed(self) -> bool:
        """Whether Kubernetes has given it up."""
        return self._is("Failed")

    @classmethod
    def parse(cls, item: Plain) -> KubeJob:
        """Return the job of one item of /apis/batch/v1/jobs."""
        spec, status = item.get("spec", {}), item.get("status", {})
        return cls(
            name=item["metadata"]["name"],
            namespace=item["metadata"].get("namespace", ""),
            wanted=spec.get("completions") or spec.get("parallelism") or 1,
            succeeded=status.get("succeeded", 0),
            failed=status.get("failed", 0),
            conditions=Condition.parse_all(status),
            mode=spec.get("completionMode", ""),
        )
