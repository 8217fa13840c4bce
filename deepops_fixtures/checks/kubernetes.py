"""The cluster's Kubernetes: nodes, pods, jobs and events as objects, and the verbs a tester uses.

What the checks make lives in a namespace of this process, which goes when the run ends. A verb
that fails says what Kubernetes said, and carries the pod, its events, its log and its kubelet's
journal as evidence.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts
from deepops_fixtures.checks import kube_manifests as manifests
from deepops_fixtures.checks.kube_api import ApiRefused, ApiSilent, ExecResult, KubeApi
from deepops_fixtures.checks.kube_data import KubeJob, KubeNode, Pod
from deepops_fixtures.checks.kube_workloads import KubeEvent, Workload
from deepops_fixtures.checks.waiting import wait_until
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node, Nodes

#: Seconds that a pod of the checks may take to run on a busy or emulated cluster.
PATIENCE = 120
#: Seconds after which what a run has left is nobody's any more.
STALE = 3600
#: Reasons for which waiting longer is in vain, after Kubernetes itself has tried again.
_IN_VAIN = frozenset(
    {"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CrashLoopBackOff"}
)
#: Every namespace, where one is asked for.
ALL = "*"


class Kubernetes:
    """Kubernetes as a tester talks about it.

    >>> kubernetes.nodes["virtual-gpu01"].ready
    True
    >>> pod = kubernetes.run_pod("echo hello from $NODE_NAME", node="virtual-gpu01")
    >>> kubernetes.logs(kubernetes.wait_done(pod))
    'hello from virtual-gpu01'
    """

    def __init__(self, nodes: Nodes, run_dir: Path) -> None:
        self.cluster = nodes
        self.api = KubeApi(nodes, run_dir)
        self.plane: Node = self.api.plane
        self._namespace = ""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig in the run's folder, readable by its owner alone."""
        return self.api.kubeconfig

    # -- what is there ----------------------------------------------------------------------

    @property
    def members(self) -> list[Node]:
        """The machines that are to be nodes of Kubernetes, by the inventory."""
        groups = {"kube_control_plane", "kube_node"}
        return [node for node in self.cluster if groups & set(node.groups)]

    @property
    def nodes(self) -> dict[str, KubeNode]:
        """The nodes that the API knows, by name."""
        __tracebackhide__ = True
        return {node.name: node for node in map(KubeNode.parse, self.api.items("/api/v1/nodes"))}

    def pods(
        self, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Pod]:
        """Return the pods with these labels: of our own namespace, of another, of ``ALL``."""
        __tracebackhide__ = True
        return [Pod.parse(item) for item in self._list("Pod", namespace, labels)]

    def jobs(self, namespace: str | None = None) -> dict[str, KubeJob]:
        """Return the jobs of a namespace (our own), by name."""
        found = map(KubeJob.parse, self._list("Job", namespace, api="batch/v1"))
        return {job.name: job for job in found}

    def workloads(self, kind: str, namespace: str | None = None) -> list[Workload]:
        """Return the Deployments, DaemonSets or StatefulSets of a namespace (our own)."""
        __tracebackhide__ = True
        return [Workload.parse(item, kind) for item in self._list(kind, namespace, api="apps/v1")]

    def workload(self, kind: str, name: str) -> Workload:
        """Return one of our own namespace's Deployments, DaemonSets or StatefulSets."""
        __tracebackhide__ = True
        return Workload.parse(self.get(self._path(kind, name, "apps/v1")), kind)

    def events(self, about: str = "", namespace: str | None = None) -> list[KubeEvent]:
        """Return the events about the object of this name, or all of a namespace (our own), oldest
        first."""
        found = [KubeEvent.parse(item) for item in self._list("Event", namespace)]
        chosen = [event for event in found if not about or event.about.endswith(f"/{about}")]
        return sorted(chosen, key=lambda event: event.when)

    def _list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        api: str = "v1",
    ) -> list[dict[str, Any]]:
        __tracebackhide__ = True
        where = self.namespace if namespace is None else namespace.replace(ALL, "")
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        params = {"labelSelector": selector} if selector else {}
        return self.api.items(manifests.path_of(kind, where, api=api), **params)

    def _path(self, kind: str, name: str = "", api: str = "v1") -> str:
        return manifests.path_of(kind, self.namespace, name, api)

    @cached_property
    def version(self) -> str:
        """The API server's version, like 'v1.20.2'."""
        return str(self.api.get("/version")["gitVersion"])

    @cached_property
    def image(self) -> str:
        """The image of the checks' pods: the one that our stack brings, else a registry's."""
        ours = facts.CHECK_IMAGE
        held = any(ours in node.images for node in self.nodes.values())
        return ours if held else facts.CHECK_IMAGE_OF_REGISTRY

    # -- the namespace of this process ------------------------------------------------------

    @property
    def namespace(self) -> str:
        """The namespace of what this process makes; made when it is first asked for."""
        __tracebackhide__ = True
        if not self._namespace:
            self._sweep()
            self._namespace = f"deepops-check-{secrets.token_hex(4)}"
            self._make_namespace()
        return self._namespace

    def _make_namespace(self) -> None:
        __tracebackhide__ = True
        meta = {"name": self._namespace, "labels": manifests.LABELS}
        self.api.post(
            "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
        )
        accounts = manifests.path_of("ServiceAccount", self._namespace)
        wait_until(
            f"kube-controller-manager gives namespace '{self._namespace}' its service account",
            lambda: [item["metadata"]["name"] for item in self.api.items(accounts)],
            lambda names: "default" in names,
            60,
            evidence=lambda: self.journal(self.plane, "kube-controller-manager"),
        )

    def _sweep(self) -> None:
        """Delete the namespaces that runs which were killed have left."""
        selector = ",".join(f"{key}={value}" for key, value in manifests.LABELS.items())
        for item in self.api.items("/api/v1/namespaces", labelSelector=selector):
            made = datetime.fromisoformat(
                item["metadata"]["creationTimestamp"].replace("Z", "+00:00")
            )
            if (datetime.now(timezone.utc) - made).total_seconds() > STALE:
                self.api.delete(f"/api/v1/namespaces/{item['metadata']['name']}")

    def close(self) -> None:
        """Have what this process made deleted, without waiting for it, and end the connection."""
        if self._namespace:
            with suppress(ApiSilent, ApiRefused):
                self.api.delete(f"/api/v1/namespaces/{self._namespace}")
            self._namespace = ""
        self.api.close()

    # -- what a user does -------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """Return what a path of the API gives, plain."""
        __tracebackhide__ = True
        return self.api.get(path)

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create an object, in our own namespace unless it names another, and return it."""
        __tracebackhide__ = True
        kind, api = manifest["kind"], manifest["apiVersion"]
        named = manifest["metadata"].get("namespace")
        try:
            return self._post(kind, named, api, manifest)
        except ApiRefused as error:
            # The cluster was put back to a moment before our namespace was made.
            if named or error.status != 404 or "namespaces" not in error.said:
                raise
        self._make_namespace()
        return self._post(kind, named, api, manifest)

    def _post(
        self, kind: str, namespace: str | None, api: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        __tracebackhide__ = True
        where = namespace or self.namespace
        return dict(self.api.post(manifests.path_of(kind, where, api=api), body))

    def delete(self, kind: str, name: str, api: str = "v1", grace: int | None = None) -> None:
        """Delete an object of our own namespace, and what it has made; without waiting.

        ``grace``: seconds that its processes get to end, 0 does not wait for the kubelet either
        [default: what the object says].
        """
        self.api.delete(self._path(kind, name, api), grace)

    def run_pod(
        self,
        command: str | Sequence[str],
        *,
        node: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
        image: str = "",
        resources: Mapping[str, Mapping[str, str]] | None = None,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Pod:
        """Create a pod of one container and return it as it is then. ``spec`` are further fields
        of its specification (volumes, hostname, runtimeClassName)."""
        __tracebackhide__ = True
        main = manifests.container(
            command, image or self.image, resources=resources, environment=environment,
            mounts=mounts,
        )  # fmt: skip
        named = name or f"check-{secrets.token_hex(4)}"
        body = manifests.pod(named, manifests.pod_spec(main, node=node, **spec), labels)
        return Pod.parse(self.create(body))

    def pod(self, pod: Pod) -> Pod:
        """Return a pod as it is now."""
        __tracebackhide__ = True
        return Pod.parse(self.api.get(manifests.path_of("Pod", pod.namespace, pod.name)))

    def wait_ready(self, pod: Pod, seconds: float = PATIENCE) -> Pod:
        """Wait until a pod is ready and return it; one that has ended, or waits in vain, fails at
        once."""
        __tracebackhide__ = True
        seen = wait_until(
            f"pod '{pod.name}' becomes ready",
            lambda: self.pod(pod),
            lambda now: now.ready or now.done or bool(_IN_VAIN & set(now.waiting.values())),
            seconds,
            evidence=lambda: self.evidence(pod),
        )
        if not seen.ready:
            raise CheckFailed(f"{seen}, and will not become ready\n{self.evidence(seen)}")
        return seen

    def wait_done(self, pod: Pod, seconds: float = PATIENCE) -> Pod:
        """Wait until a pod has ended and return it, whatever its end was."""
        __tracebackhide__ = True
        seen = wait_until(
            f"pod '{pod.name}' ends",
            lambda: self.pod(pod),
            lambda now: now.done or bool(_IN_VAIN & set(now.waiting.values())),
            seconds,
            evidence=lambda: self.evidence(pod),
        )
        if not seen.done:
            raise CheckFailed(f"{seen}, and will not end\n{self.evidence(seen)}")
        return seen

    def wait_job(self, name: str, seconds: float = PATIENCE) -> KubeJob:
        """Wait until a job of our own namespace is complete and return it; a failed one raises
        CheckFailed."""
        __tracebackhide__ = True
        path = self._path("Job", name, "batch/v1")
        seen = wait_until(
            f"job '{name}' ends",
            lambda: KubeJob.parse(self.api.get(path)),
            lambda job: job.complete or job.has_failed,
            seconds,
            evidence=lambda: self.evidence_of({"app": name}),
        )
        if not seen.complete:
            raise CheckFailed(f"{seen}\n{self.evidence_of({'app': name})}")
        return seen

    def wait_workload(self, kind: str, name: str, seconds: float = PATIENCE) -> Workload:
        """Wait until a Deployment, DaemonSet or StatefulSet of ours has all pods of its newest
        template ready, and no others; return it."""
        __tracebackhide__ = True
        return wait_until(
            f"{kind} '{name}' is rolled out",
            lambda: self.workload(kind, name),
            lambda seen: seen.complete,
            seconds,
            evidence=lambda: self.evidence_of({"app": name}),
        )

    def exec(self, pod: Pod, argv: str | Sequence[str], seconds: float = 30) -> ExecResult:
        """Run a command in a pod and return its status and outputs; one string is the shell's."""
        __tracebackhide__ = True
        words = ["sh", "-c", argv] if isinstance(argv, str) else list(argv)
        path = manifests.path_of("Pod", pod.namespace, pod.name)
        return self.api.exec(path, words, seconds)

    def logs(self, pod: Pod) -> str:
        """Return what a pod's container has written."""
        __tracebackhide__ = True
        path = manifests.path_of("Pod", pod.namespace, pod.name)
        return self.api.text(f"{path}/log").strip()

    def kubectl(self, arguments: str, *values: str) -> Any:
        """Run kubectl as root on the control plane and return testinfra's result: the second way
        to ask. ``arguments`` may have %s for ``values``, which are quoted."""
        command = (
            f"PATH=$PATH:/usr/local/bin KUBECONFIG={facts.KUBE_ADMIN_CONF} "
            f"timeout 60 kubectl {arguments}"
        )
        return self.plane.host.run(command, *values)

    # -- evidence ---------------------------------------------------------------------------

    def journal(self, node: Node, unit: str, lines: int = 8) -> str:
        """Return the end of a unit's journal on a machine, with a heading."""
        done = node.host.run(f"journalctl --no-pager -n {lines} -o cat -u {unit} 2>&1")
        return f"--- journal of {unit} on {node.name} ---\n{done.stdout.rstrip()}"

    def evidence(self, pod: Pod) -> str:
        """Return what one would look at next: a pod's conditions and containers, its events, its
        log, and its kubelet's journal."""
        try:
            seen = self.pod(pod)
            parts = [str(seen)]
            parts += [f"  {each}" for each in seen.conditions.values() if each.status != "True"]
            parts += [f"  {each}" for each in self.events(pod.name, pod.namespace)[-8:]]
        except (ApiSilent, ApiRefused) as error:
            return str(error)
        with suppress(ApiSilent, ApiRefused):
            log = self.logs(seen)
            if log:
                parts.append(f"--- log of {pod.name} ---\n" + "\n".join(log.splitlines()[-10:]))
        machine = next((node for node in self.cluster if node.name == seen.node), None)
        if machine is not None:
            parts.append(self.journal(machine, "kubelet"))
        return "\n".join(parts)

    def evidence_of(self, labels: Mapping[str, str]) -> str:
        """Return the evidence of the pods that are not as they should be, of three at most."""
        found = self.pods(labels=labels)
        bad = [pod for pod in found if not pod.ready and pod.phase != "Succeeded"]
        return "\n".join([*map(str, found), *(self.evidence(pod) for pod in bad[:3])])
