"""Why no pod can be expected to run: what the machines themselves say, before the API has noticed.

Each of these has a check of its own that is red then. The checks that run pods skip with these
reasons, so that one cause shows as one failure and not as thirty time-outs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepops_fixtures import facts
from deepops_fixtures.checks.kube_api import ApiRefused, ApiSilent
from deepops_fixtures.checks.kube_data import KubeNode, Pod
from deepops_fixtures.checks.kubernetes import ALL, Kubernetes

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

_LOOK = (
    "for unit in kubelet containerd kube-proxy; do "
    "printf '%s=%s/%s ' $unit \"$(systemctl is-active $unit)\" "
    '"$(systemctl show --property=LoadState --value $unit)"; done; '
    "set -- " + facts.CNI_CONFIG_DIR + "/*.conf " + facts.CNI_CONFIG_DIR + "/*.conflist; "
    'for file; do [ -s "$file" ] && printf "cni=%s " "$file"; done; true'
)


@dataclass(frozen=True)
class Machine:
    """What a machine says of its part in Kubernetes: state of units ('active', 'inactive', …; ''
    where there is no such unit), files of CNI configuration."""

    name: str
    units: dict[str, str]
    cni: tuple[str, ...]

    @classmethod
    def look(cls, node: Node) -> Machine:
        """Ask a machine, in one command."""
        words = node.host.run("sh -c %s", _LOOK).stdout.split()
        pairs = [word.split("=", 1) for word in words if "=" in word]
        units = {}
        for name, value in pairs:
            state, _, load = value.partition("/")
            if name != "cni":
                units[name] = state if load == "loaded" else ""
        return cls(node.name, units, tuple(value for name, value in pairs if name == "cni"))

    @property
    def faults(self) -> list[str]:
        """What on it keeps pods from running, in the words of a check."""
        found = [
            f"{unit} does not run"
            for unit in ("kubelet", "containerd")
            if self.units.get(unit) != "active"
        ]
        if not self.cni:
            found.append(f"no CNI configuration in {facts.CNI_CONFIG_DIR}")
        if self.units.get("kube-proxy", "") not in ("", "active"):
            found.append("kube-proxy does not run")
        return found


def api_obstacle(kubernetes: Kubernetes) -> str:
    """Return why the API cannot be asked, '' when it can."""
    try:
        kubernetes.api.items("/api/v1/nodes", limit="1")
        # A server without its etcd may still answer from what it remembers.
        kubernetes.get("/api/v1/namespaces/kube-system")
    except (ApiSilent, ApiRefused) as error:
        return str(error).splitlines()[0]
    return ""


def proxy_pods(kubernetes: Kubernetes) -> dict[str, Pod]:
    """Return the pods of kube-proxy by node; {} where it is no DaemonSet."""
    found = kubernetes.pods(ALL, facts.KUBE_PROXY_LABELS)
    return {pod.node: pod for pod in found}


def of_node(node: Node, known: dict[str, KubeNode], proxies: dict[str, Pod]) -> list[str]:
    """Return why no pod can be expected to run on a node."""
    seen, machine = known.get(node.name), Machine.look(node)
    found = list(machine.faults)
    if seen is None:
        found.append("it is not in the API")
    else:
        if not found and not seen.ready:
            found.append(seen.why_not_ready)
        found += seen.pressures
        if seen.cordoned:
            found.append("it is cordoned")
        found += [f"it has the taint {taint}" for taint in seen.foreign_taints]
    proxy = proxies.get(node.name)
    if proxy is not None and not proxy.ready:
        found.append(f"kube-proxy: {proxy}")
    return [f"{node.name}: {text}" for text in found]


def why_missing(kubernetes: Kubernetes, node: Node) -> str:
    """Return why the API does not know a node, in a sentence with what to look at next."""
    known = kubernetes.nodes
    names = ", ".join(sorted(known)) or "no node at all"
    if not {member.name for member in kubernetes.members} & set(known):
        shown = kubernetes.api.ssh(f"kubectl --kubeconfig {facts.KUBE_ADMIN_CONF} get nodes")
        return (
            f"The API at {kubernetes.api.server} knows {names}, and none of the inventory's "
            f"nodes: {facts.KUBE_ADMIN_CONF} of '{kubernetes.plane.name}' is of another cluster, "
            f"or no kubelet has ever joined.\nNext: {shown}"
        )
    journal = kubernetes.api.ssh("journalctl -n 50 -u kubelet", node)
    alias = next((name for name, seen in known.items() if _same(node, name, seen)), "")
    if alias:
        return (
            f"The API knows '{node.name}' as '{alias}': the inventory and its kubelet "
            f"(--hostname-override) name it differently.\nNext: {journal}"
        )
    state = Machine.look(node).units.get("kubelet", "")
    return (
        f"'{node.name}' never joined: the API knows {names}; its kubelet is "
        f"{state or 'no unit that systemd knows'}.\nNext: {journal}"
    )


def _same(node: Node, name: str, seen: KubeNode) -> bool:
    """Whether a node of the API is a machine under another name: its address, or its name with a
    domain."""
    short = name.partition(".")[0] == node.name.partition(".")[0]
    return short or (node.address != "" and seen.address == node.address)


def all_obstacles(kubernetes: Kubernetes) -> list[str]:
    """Return why no pod can be expected to run, over the whole cluster."""
    silent = api_obstacle(kubernetes)
    if silent:
        return [silent]
    known, proxies = kubernetes.nodes, proxy_pods(kubernetes)
    found = [text for node in kubernetes.members for text in of_node(node, known, proxies)]
    if not any(node.schedulable for node in known.values()) and not found:
        found.append("no node takes pods without tolerations")
    return found + managers(kubernetes)


def managers(kubernetes: Kubernetes) -> list[str]:
    """Return which of kube-scheduler and kube-controller-manager do not run on the first control
    plane node: by their units there, else by their pods (kubeadm)."""
    script = (
        "for unit in kube-scheduler kube-controller-manager; do "
        "printf '%s=%s/%s ' $unit \"$(systemctl is-active $unit)\" "
        '"$(systemctl show --property=LoadState --value $unit)"; done'
    )
    found = []
    for word in kubernetes.plane.host.run("sh -c %s", script).stdout.split():
        name, _, value = word.partition("=")
        state, _, load = value.partition("/")
        if load == "loaded":
            if state != "active":
                found.append(f"{kubernetes.plane.name}: {name} is {state}")
        else:
            found += _of_pods(name, kubernetes.pods("kube-system", {"component": name}))
    return found


def _of_pods(name: str, pods: Iterable[Pod]) -> list[str]:
    pods = list(pods)
    if any(pod.ready for pod in pods):
        return []
    return [str(pod) for pod in pods] or [f"{name} runs neither as a unit nor as a pod"]


def dns_obstacles(kubernetes: Kubernetes) -> list[str]:
    """Return why no name of a Service can be expected to resolve: no ready DNS pod."""
    pods = kubernetes.pods("kube-system", facts.KUBE_DNS_LABELS)
    if any(pod.ready for pod in pods):
        return []
    return [str(pod) for pod in pods] or ["kube-system has no pod of the cluster's DNS"]
