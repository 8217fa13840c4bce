"""Events and workloads of Kubernetes as typed objects; the rest is in ``kube_data``. Pure
functions from plain JSON to objects; nothing is asked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Plain = dict[str, Any]


@dataclass(frozen=True)
class KubeEvent:
    """An event of core/v1: what a part of Kubernetes noted about an object."""

    kind: str
    reason: str
    message: str
    #: 'Pod/name'.
    about: str
    count: int = 1
    when: str = ""

    def __str__(self) -> str:
        times = f" (x{self.count})" if self.count > 1 else ""
        return f"{self.when} {self.kind} {self.reason} {self.about}: {self.message}{times}".strip()

    @classmethod
    def parse(cls, item: Plain) -> KubeEvent:
        """Return the event of one item of /api/v1/events."""
        about = item.get("involvedObject", {})
        return cls(
            kind=item.get("type", ""),
            reason=item.get("reason", ""),
            message=str(item.get("message", "")).strip(),
            about=f"{about.get('kind', '')}/{about.get('name', '')}",
            count=item.get("count") or 1,
            when=item.get("lastTimestamp") or item.get("eventTime") or "",
        )


@dataclass(frozen=True)
class Workload:
    """A Deployment, DaemonSet or StatefulSet: how many pods it wants and has."""

    kind: str
    name: str
    namespace: str
    wanted: int
    ready: int
    #: Pods of the newest template; for a roll-out.
    updated: int = 0
    #: All of its pods, those of older templates too.
    total: int = 0
    #: Whether the controller has seen the newest specification.
    observed: bool = True
    selector: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f"{self.kind} {self.namespace}/{self.name}"
        return f"{where} has {self.ready} of {self.wanted} pods ready"

    @property
    def complete(self) -> bool:
        """Whether every pod it wants is there, ready and of the newest template."""
        new = self.updated >= self.wanted and self.total <= self.wanted
        return self.observed and new and self.ready >= self.wanted

    @classmethod
    def parse(cls, item: Plain, kind: str) -> Workload:
        """Return the workload of one item of /apis/apps/v1/…; ``kind`` since lists leave it
        out."""
        meta, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
        if kind == "DaemonSet":
            wanted = status.get("desiredNumberScheduled", 0)
            ready, updated = status.get("numberReady", 0), status.get("updatedNumberScheduled", 0)
        else:
            wanted = spec.get("replicas", 1)
            ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
        return cls(
            kind=kind,
            name=meta["name"],
            namespace=meta.get("namespace", ""),
            wanted=wanted,
            ready=ready,
            updated=updated,
            total=0 if kind == "DaemonSet" else status.get("replicas", 0),
            observed=status.get("observedGeneration", 0) >= meta.get("generation", 0),
            selector=dict((spec.get("selector") or {}).get("matchLabels") or {}),
        )
