"""What DeepOps puts on Kubernetes: where each part is, why it is not there, whether it works.

A part is looked for in every namespace, by the labels and names that its chart gives; DeepOps'
defaults (``facts.KUBE_PARTS``) decide where several fit, and stand in for what the cluster does
not tell. Not for GPUs in pods: those are in ``kube_gpus`` and ``kube_gpu_pods``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts
from deepops_fixtures.checks import kube_monitoring as monitoring
from deepops_fixtures.checks import kube_probe
from deepops_fixtures.checks.gpu_rules import Verdict
from deepops_fixtures.checks.kube_api import ApiRefused
from deepops_fixtures.checks.kube_places import Placed, place, why_absent

if TYPE_CHECKING:
    from deepops_fixtures.checks.kube_workloads import Workload
    from deepops_fixtures.checks.kubernetes import Kubernetes
    from deepops_fixtures.cluster.running import Node

Plain = dict[str, Any]

_WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet")
#: MetalLB's own objects, newest first; before 0.13 it was a ConfigMap 'config'.
_POOLS = ("/apis/metallb.io/v1beta1/ipaddresspools",)


class DeepopsKubernetes:
    """The parts that DeepOps puts on Kubernetes.

    >>> deepops = checks.DeepopsKubernetes(kubernetes)
    >>> str(deepops.find("grafana"))
    "Grafana in namespace 'monitoring'"
    >>> deepops.answers("grafana").faults
    ()
    """

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes
        self.api = kubernetes.api
        self._found: dict[str, Placed | None] = {}

    @cached_property
    def _services(self) -> list[Plain]:
        return self.api.items("/api/v1/services")

    @cached_property
    def _workloads(self) -> list[Plain]:
        return [
            {**item, "kind": kind}
            for kind in _WORKLOADS
            for item in self.api.items(f"/apis/apps/v1/{kind.lower()}s")
        ]

    def find(self, name: str) -> Placed | None:
        """Return where a part of ``facts.KUBE_PARTS`` is, None when it is nowhere."""
        __tracebackhide__ = True
        if name not in self._found:
            part = facts.KUBE_PARTS[name]
            self._found[name] = place(part, self._services, self._workloads)
        return self._found[name]

    def absent(self, name: str) -> str:
        """Return why there is nothing to check of a part, '' when there is."""
        __tracebackhide__ = True
        return "" if self.find(name) else why_absent(facts.KUBE_PARTS[name])

    def _maybe(self, path: str) -> list[Plain]:
        """Return the items of a list that not every cluster has the kind of."""
        __tracebackhide__ = True
        try:
            return self.api.items(path)
        except ApiRefused as error:
            if error.status != 404:
                raise
            return []

    # -- of any part ------------------------------------------------------------------------

    def ready(self, name: str) -> Verdict:
        """Whether every pod that a part wants is ready. What its workloads are is looked at
        anew."""
        __tracebackhide__ = True
        self._found.pop(name, None)
        vars(self).pop("_workloads", None)
        found = self.find(name)
        if found is None:
            return Verdict(name, unjudged=(self.absent(name),))
        bad = [f"{each}; {self._pods_of(found, each)}" for each in found.workloads
               if each.ready < each.wanted]  # fmt: skip
        none = () if found.workloads else (f"{found} has no Deployment or DaemonSet",)
        return Verdict(found.part.title, tuple(bad), none, len(found.workloads))

    def _pods_of(self, found: Placed, workload: Workload) -> str:
        pods = self.kubernetes.pods(found.namespace, workload.selector)
        return ", ".join(str(pod) for pod in pods if not pod.ready) or "it has made no other pod"

    def nodes_of(self, name: str) -> set[str]:
        """Return the nodes that have a ready pod of a part."""
        __tracebackhide__ = True
        found = self.find(name)
        return {
            pod.node
            for workload in (found.workloads if found else ())
            for pod in self.kubernetes.pods(workload.namespace, workload.selector)
            if pod.ready
        }

    def answers(self, name: str) -> Verdict:
        """Whether a part's Service answers, asked through the API server."""
        __tracebackhide__ = True
        found = self.find(name)
        if found is None or found.service is None:
            why = self.absent(name) or f"{found} has no Service"
            return Verdict(name, unjudged=(why,))
        path = f"{found.path}{found.part.health}"
        try:
            self.api.get(path)
        except ApiRefused as error:
            said = f"{found} does not answer {found.part.health}: {error.said or error.status}"
            said += f"\nNext: kubectl get --raw '{path}'"
            return Verdict(found.part.title, (said,), (), 1)
        return Verdict(found.part.title, (), (), 1)

    def node_port(self, name: str, asker: Node) -> Verdict:
        """Whether a part answers on its NodePort at every node, asked from a machine of the
        cluster."""
        __tracebackhide__ = True
        found = self.find(name)
        if found is None or not found.node_port:
            why = self.absent(name) or f"{found} has no NodePort"
            return Verdict(name, unjudged=(why,))
        scheme = "https" if found.secure else "http"
        faults = []
        addresses = {node.name: node.address for node in self.kubernetes.nodes.values()}
        for node, address in addresses.items():
            url = f"{scheme}://{address}:{found.node_port}{found.part.health}"
            fault = kube_probe.fault(kube_probe.ask(asker, "get", url), (200,))
            if fault:
                faults.append(f"{found.part.title} is not to be had at '{node}' ({url}): {fault}")
        return Verdict(found.part.title, tuple(faults), (), len(addresses))

    # -- GPU operator -----------------------------------------------------------------------

    @property
    def policies(self) -> list[Plain]:
        """The GPU operator's ClusterPolicy objects; [] where it is not there."""
        return self._maybe("/apis/nvidia.com/v1/clusterpolicies")

    def policy(self) -> Verdict:
        """Whether the GPU operator has done what it was told (ClusterPolicy, status.state)."""
        found = self.policies
        return Verdict("GPU operator", tuple(policy_faults(found)),
                       () if found else ("no ClusterPolicy: the GPU operator is not there",),
                       len(found))  # fmt: skip

    # -- load balancer ----------------------------------------------------------------------

    @cached_property
    def pools(self) -> list[str]:
        """The addresses that MetalLB gives away, as it writes them ('10.0.0.100-10.0.0.110',
        '10.0.0.0/28'); DeepOps' default where it tells none."""
        found = [
            address
            for path in _POOLS
            for item in self._maybe(path)
            for address in item.get("spec", {}).get("addresses") or ()
        ]
        return found or list(facts.LOAD_BALANCER_POOL)

    # -- ingress ----------------------------------------------------------------------------

    @property
    def ingress_class(self) -> str:
        """The name of the class that ingress-nginx serves, 'nginx' where the API tells none."""
        for item in self._maybe("/apis/networking.k8s.io/v1/ingressclasses"):
            if "nginx" in str(item.get("spec", {}).get("controller", "")):
                return str(item["metadata"]["name"])
        return "nginx"

    def ingress_addresses(self) -> list[tuple[str, int, int]]:
        """Return where ingress-nginx is to be had: address, port of http, port of https. On the
        nodes' own ports with hostNetwork, else at its load balancer, else on its NodePorts."""
        __tracebackhide__ = True
        found = self.find("ingress")
        if found is None:
            return []
        pods = [
            pod
            for workload in found.workloads
            for pod in self.kubernetes.pods(found.namespace, workload.selector)
            if pod.ready
        ]
        if any(pod.host_network for pod in pods):
            return [(pod.ip, 80, 443) for pod in pods if pod.host_network]
        service = found.service or {}
        given = balanced(service)
        if given:
            return [(address, 80, 443) for address in given]
        ports = {each["port"]: each.get("nodePort") for each in
                 service.get("spec", {}).get("ports") or ()}  # fmt: skip
        if not ports.get(80):
            return []
        return [
            (node.address, int(ports[80]), int(ports.get(443) or 0))
            for node in self.kubernetes.nodes.values()
            if node.ready
        ]

    # -- monitoring -------------------------------------------------------------------------

    def dashboards(self) -> tuple[list[monitoring.Dashboard], list[str]]:
        """Return Grafana's dashboards (ConfigMaps with the label of its sidecar), and sentences
        about those that cannot be read."""
        __tracebackhide__ = True
        items = self.api.items("/api/v1/configmaps", labelSelector=facts.DASHBOARD_LABEL)
        return monitoring.dashboards(items)

    def metrics(self) -> Verdict:
        """Whether Prometheus has every metric of DCGM's that a dashboard asks for."""
        __tracebackhide__ = True
        found = self.find("prometheus")
        if found is None or found.service is None:
            return Verdict("Prometheus", unjudged=(self.absent("prometheus") or "no Service",))
        boards, unreadable = self.dashboards()
        answer = self.api.get(f"{found.path}/api/v1/query", query=monitoring.PRESENT)
        try:
            present = monitoring.names(answer if isinstance(answer, dict) else {"error": answer})
        except ValueError as error:
            return Verdict("Prometheus", (f"{found} does not answer a query: {error}",), (), 1)
        return monitoring.judge(boards, unreadable, present)

    # -- storage ----------------------------------------------------------------------------

    @property
    def storage_class(self) -> str:
        """The name of the StorageClass that the NFS provisioner serves, '' for none."""
        for item in self.api.items("/apis/storage.k8s.io/v1/storageclasses"):
            if "nfs" in str(item.get("provisioner", "")):
                return str(item["metadata"]["name"])
        return ""


def balanced(service: Mapping[str, Any]) -> list[str]:
    """Return the addresses that a load balancer has given to a Service."""
    told = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [each["ip"] for each in told if each.get("ip")]


def policy_faults(policies: Iterable[Plain]) -> list[str]:
    """Return what keeps the GPU operator from being ready, with its own words."""
    found = []
    for item in policies:
        status = item.get("status") or {}
        if status.get("state") == "ready":
            continue
        said = [
            str(each.get("message"))
            for each in status.get("conditions") or ()
            if each.get("message") and each.get("status") != "False"
        ]
        found.append(
            f"ClusterPolicy '{item['metadata']['name']}' is "
            f"'{status.get('state') or 'without a state'}'"
            + (f": {'; '.join(said)}" if said else "")
        )
    return found


def in_pool(address: str, pools: Iterable[str]) -> bool:
    """Return whether an address is one of those that may be given.

    >>> in_pool("10.0.0.105", ["10.0.0.100-10.0.0.110"])
    True
    """
    asked = ipaddress.ip_address(address)
    for pool in pools:
        first, dash, last = (text.strip() for text in pool.partition("-"))
        if dash:
            low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
            if asked.version == low.version and int(low) <= int(asked) <= int(high):
                return True
        elif asked in ipaddress.ip_network(first, strict=False):
            return True
    return False
