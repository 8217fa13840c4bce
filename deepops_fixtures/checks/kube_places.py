"""Where a part that DeepOps puts on Kubernetes is: recognised by labels and names in what the API
lists. Pure functions; nothing is asked here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deepops_fixtures import facts
from deepops_fixtures.checks.kube_workloads import Workload

Plain = dict[str, Any]


def matches(item: Plain, part: facts.Part) -> bool:
    """Return whether an object has one of a part's sets of labels, itself or its pods."""
    own = item["metadata"].get("labels") or {}
    template = ((item.get("spec") or {}).get("template") or {}).get("metadata") or {}
    return any(
        wanted.items() <= there.items()
        for wanted in part.labels
        for there in (own, template.get("labels") or {})
    )


@dataclass(frozen=True)
class Placed:
    """A part that is there."""

    part: facts.Part
    namespace: str
    #: Its Service as the API has it, None when it has none.
    service: Plain | None
    workloads: tuple[Workload, ...]

    def __str__(self) -> str:
        return f"{self.part.title} in namespace '{self.namespace}'"

    @property
    def port(self) -> Plain:
        """The Service's port that the part answers on; {} without a Service."""
        ports = (self.service or {}).get("spec", {}).get("ports") or []
        named = ("http-web", "http", "web", "https")
        by_number = [each for each in ports if each["port"] == self.part.port]
        by_name = [each for name in named for each in ports if each.get("name") == name]
        return dict(next(iter([*by_number, *by_name, *ports]), {}))

    @property
    def secure(self) -> bool:
        """Whether that port speaks TLS."""
        port = self.port
        return port.get("port") in (443, 8443) or str(port.get("name", "")).startswith("https")

    @property
    def node_port(self) -> int:
        """The port that every node answers on for it, 0 for none."""
        return int(self.port.get("nodePort") or 0)

    @property
    def path(self) -> str:
        """Where the API server passes requests on to its Service."""
        name = (self.service or {})["metadata"]["name"]
        scheme = "https" if self.secure else "http"
        return (
            f"/api/v1/namespaces/{self.namespace}/services/"
            f"{scheme}:{name}:{self.port['port']}/proxy"
        )


def place(
    part: facts.Part, services: Iterable[Plain], workloads: Iterable[Plain]
) -> Placed | None:
    """Return where a part is, None when it is nowhere.

    ``workloads``: Deployments, DaemonSets and StatefulSets, each with its 'kind'.
    """
    running = [item for item in workloads if matches(item, part)]
    offered = [item for item in services if matches(item, part)]
    offered = offered or [item for item in services if item["metadata"]["name"] in part.services]
    homes = [item["metadata"]["namespace"] for item in [*offered, *running]]
    if not homes:
        return None
    home = part.namespace if part.namespace in homes else homes[0]

    def rank(item: Plain) -> tuple[bool, bool, int]:
        meta, spec = item["metadata"], item.get("spec") or {}
        ports = [each["port"] for each in spec.get("ports") or ()]
        known = part.services.index(meta["name"]) if meta["name"] in part.services else 99
        return spec.get("clusterIP") == "None", part.port not in ports, known

    here = sorted((each for each in offered if each["metadata"]["namespace"] == home), key=rank)
    return Placed(
        part,
        home,
        here[0] if here else None,
        tuple(
            Workload.parse(each, each["kind"])
            for each in running
            if each["metadata"]["namespace"] == home
        ),
    )


def why_absent(part: facts.Part) -> str:
    """Return what was looked for in vain."""
    sets = [",".join(f"{key}={value}" for key, value in each.items()) for each in part.labels]
    named = f", nor a Service named {' or '.join(part.services)}" if part.services else ""
    return (
        f"no Service, Deployment, DaemonSet or StatefulSet of {part.title} in any namespace "
        f"(no label {' or '.join(sets)}{named}); DeepOps puts it into '{part.namespace}'"
    )
