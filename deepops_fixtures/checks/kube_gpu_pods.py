"""Pods that ask Kubernetes for GPUs, and what they get: whether the scheduler gives each GPU once,
makes the rest wait, and what a pod sees of them.

Each check takes its pods away before it returns, and waits until they are gone, so that the GPUs
are there for the next. Which GPUs there are is handed in, real or SIMULATED ones.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts
from deepops_fixtures.checks import kube_gpus
from deepops_fixtures.checks import kube_manifests as manifests
from deepops_fixtures.checks.gpu_rules import Verdict
from deepops_fixtures.checks.kube_api import ApiRefused
from deepops_fixtures.checks.kube_data import Pod
from deepops_fixtures.checks.kubernetes import PATIENCE, Kubernetes
from deepops_fixtures.checks.waiting import wait_until
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.checks.kube_data import KubeNode

#: Seconds after which a pod that waits is looked at again, to see that it goes on waiting.
STAYS = 3
#: Seconds that an image with a C library may take to come from a registry.
PULL = 600
_SLEEP = "exec sleep 900"
_CUDA = re.compile(r"/cuda[:@]|/cuda-sample|/ubuntu[:@]|/debian[:@]|gpu-operator-validator")
#: What a pod sees: device files, which any image shows, and what nvidia-smi lists.
_LOOK = (
    "ls /dev 2>/dev/null | grep -c '^nvidia[0-9][0-9]*$' | sed 's/^/devices=/'; "
    "nvidia-smi -L 2>&1 | sed 's/^/smi: /'; true"
)


def cuda_image(node: KubeNode) -> str:
    """Return an image in which nvidia-smi can run: one that the node has, else NVIDIA's.

    The checks' own image has no C library, and nvidia-smi needs one.
    """
    held = sorted(name for name in node.images if _CUDA.search(name) and "@" not in name)
    return held[0] if held else facts.CUDA_IMAGE


def seen(log: str) -> tuple[int, int, str]:
    """Return what a pod's log says: device files, GPUs or MIG devices that nvidia-smi lists, and
    nvidia-smi's own words.

    >>> seen("devices=1\\nsmi: GPU 0: Tesla V100 (UUID: GPU-1)")
    (1, 1, 'GPU 0: Tesla V100 (UUID: GPU-1)')
    """
    found = re.search(r"^devices=(\d+)", log, re.MULTILINE)
    said = "\n".join(line[5:] for line in log.splitlines() if line.startswith("smi: "))
    slices = re.findall(r"^\s+MIG .*Device", said, re.MULTILINE)
    cards = re.findall(r"^GPU \d+:", said, re.MULTILINE)
    return int(found[1]) if found else 0, len(slices or cards), said


class GpuPods:
    """Pods with GPUs. ``free``: node → GPUs that a pod can have there now."""

    def __init__(
        self, kubernetes: Kubernetes, free: Mapping[str, int], *, simulated: bool = False
    ) -> None:
        self.kubernetes = kubernetes
        self.free = {node: count for node, count in free.items() if count}
        self.simulated = simulated

    @property
    def roomiest(self) -> str:
        """The node with the most free GPUs."""
        return max(self.free, key=lambda node: (self.free[node], node))

    def ask(self, count: int, node: str = "", *, command: str = _SLEEP, **more: Any) -> Pod:
        """Create a pod that asks for so many GPUs; ``node`` pins it."""
        __tracebackhide__ = True
        limits = {"limits": {facts.GPU_RESOURCE: str(count)}} if count else {}
        return self.kubernetes.run_pod(
            command,
            node=node,
            name=f"gpu-{secrets.token_hex(4)}",
            resources=limits,
            tolerations=manifests.TOLERATIONS,
            **more,
        )

    @contextmanager
    def pods(self) -> Iterator[list[Pod]]:
        """Give a list for the pods of a check; what is in it is deleted, and gone, at the end."""
        made: list[Pod] = []
        try:
            yield made
        finally:
            self.drop(made)

    def drop(self, pods: list[Pod]) -> None:
        """Delete pods and wait until they are gone."""
        # No kubelet has GPUs that are simulated: it refuses these pods, and then is slow to let go.
        grace = 0 if self.simulated else None
        for pod in pods:
            self.kubernetes.delete("Pod", pod.name, grace=grace)
        for pod in pods:
            wait_until(f"pod '{pod.name}' is gone", partial(self._gone, pod), bool, 60)

    def _gone(self, pod: Pod) -> bool:
        try:
            self.kubernetes.pod(pod)
        except ApiRefused as error:
            return error.status == 404
        return False

    def decided(self, pod: Pod) -> Pod:
        """Wait until the scheduler has looked at a pod: it has a node, or a reason for none."""
        __tracebackhide__ = True
        return wait_until(
            f"the scheduler looks at pod '{pod.name}'",
            lambda: self.kubernetes.pod(pod),
            lambda now: bool(now.node or now.unschedulable),
            PATIENCE,
            evidence=lambda: self.kubernetes.evidence(pod),
        )

    # -- what the scheduler does --------------------------------------------------------------

    def runs(self) -> Verdict:
        """Whether a pod that asks for one GPU runs, and on a node that has one."""
        __tracebackhide__ = True
        with self.pods() as made:
            made.append(self.ask(1))
            pod = self.kubernetes.wait_ready(made[0])
        faults = (
            [] if pod.node in self.free
            else [f"it runs on '{pod.node}', and free GPUs are on {', '.join(self.free)}"]
        )  # fmt: skip
        return self._verdict("a pod that asks for a GPU", faults)

    def too_many(self) -> Verdict:
        """Whether a pod that asks for more GPUs than any node has waits, for want of GPUs."""
        __tracebackhide__ = True
        most = max(
            int(node.allocatable.get(facts.GPU_RESOURCE, "0"))
            for node in self.kubernetes.nodes.values()
        )
        with self.pods() as made:
            made.append(self.ask(most + 1))
            faults = self._waits(made[0])
        what = f"a pod that asks for {most + 1} GPUs where no node has more than {most}"
        return self._verdict(what, faults)

    def _waits(self, pod: Pod) -> list[str]:
        """Return what is wrong with a pod that has to wait for GPUs."""
        __tracebackhide__ = True
        now = self.decided(pod)
        if not now.node:
            time.sleep(STAYS)
            now = self.kubernetes.pod(pod)
        if now.node:
            return [f"it was given to node '{now.node}'"]
        if f"Insufficient {facts.GPU_RESOURCE}" not in now.unschedulable:
            return [f"it waits, and not for GPUs: {now.unschedulable}"]
        return []

    def exclusive(self) -> Verdict:
        """Whether two pods that together ask for more GPUs than a node has free run one after the
        other: the second waits, and runs when the first is gone."""
        __tracebackhide__ = True
        node = self.roomiest
        what = f"a pod that asks for a GPU of '{node}' while another pod has all of them"
        with self.pods() as made:
            made.append(self.ask(self.free[node], node))
            self.kubernetes.wait_ready(made[0])
            made.append(self.ask(1, node))
            faults = self._waits(made[1])
            if not faults:
                self.drop([made.pop(0)])
                self.kubernetes.wait_ready(made[0])
        return self._verdict(what, faults)

    def everywhere(self) -> Verdict:
        """Whether one job has a GPU on every node with free ones, at the same time."""
        __tracebackhide__ = True
        wanted, name = sorted(self.free), f"gpu-job-{secrets.token_hex(3)}"
        main = manifests.container(
            _SLEEP, self.kubernetes.image, resources={"limits": {facts.GPU_RESOURCE: "1"}}
        )
        spec = manifests.pod_spec(
            main, affinity=manifests.apart(name), tolerations=manifests.TOLERATIONS
        )
        with self.pods() as made:
            self.kubernetes.create(manifests.job(name, spec, pods=len(wanted)))
            try:
                pods = wait_until(
                    f"job '{name}' has a pod on each of {', '.join(wanted)} at the same time",
                    lambda: self.kubernetes.pods(labels={"app": name}),
                    lambda now: sum(pod.ready for pod in now) == len(wanted),
                    PATIENCE,
                    evidence=lambda: self._of_job(name),
                )
            finally:
                made += self.kubernetes.pods(labels={"app": name})
                self.kubernetes.delete("Job", name, "batch/v1")
        where = sorted(pod.node for pod in pods)
        faults = (
            [] if where == wanted
            else [f"it runs on {', '.join(where)}, and free GPUs are on {', '.join(wanted)}"]
        )  # fmt: skip
        return self._verdict(f"a job with a GPU on each of {len(wanted)} nodes", faults)

    def _of_job(self, name: str) -> str:
        pods = self.kubernetes.pods(labels={"app": name})
        return "\n".join(self.kubernetes.evidence(pod) for pod in pods if not pod.ready)

    # -- what a pod sees ----------------------------------------------------------------------

    def _log(self, pod: Pod, seconds: float) -> tuple[str, str]:
        """Return a pod's log, or why its image cannot be had."""
        __tracebackhide__ = True
        try:
            return self.kubernetes.logs(self.kubernetes.wait_done(pod, seconds)), ""
        except CheckFailed:
            now = self.kubernetes.pod(pod)
            if not {"ErrImagePull", "ImagePullBackOff"} & set(now.waiting.values()):
                raise
            return "", f"an image in which nvidia-smi can run cannot be had: {now}"

    def _more(self) -> dict[str, Any]:
        """Return what a pod with GPUs needs besides: NVIDIA's runtime where it has a name of its
        own."""
        classes = self.kubernetes.api.items("/apis/node.k8s.io/v1/runtimeclasses")
        names = [item["metadata"]["name"] for item in classes]
        return {"runtimeClassName": "nvidia"} if "nvidia" in names else {}

    def sees(self, node: str, count: int) -> Verdict:
        """Whether nvidia-smi in a pod lists exactly the GPUs that the pod asks for."""
        __tracebackhide__ = True
        image = cuda_image(self.kubernetes.nodes[node])
        with self.pods() as made:
            made.append(self.ask(count, node, command=_LOOK, image=image, **self._more()))
            log, unjudged = self._log(made[0], PULL)
        if unjudged:
            return Verdict(node, unjudged=(unjudged,))
        _devices, listed, said = seen(log)
        faults = (
            [] if listed == count
            else [f"a pod that asks for {count} GPU(s) is shown {listed} by nvidia-smi: {said}"]
        )  # fmt: skip
        return Verdict(node, tuple(faults), (), 1)

    def hidden(self, node: str) -> Verdict:
        """Whether a pod that asks for no GPU sees none."""
        __tracebackhide__ = True
        with self.pods() as made:
            made.append(self.ask(0, node, command=_LOOK))
            log, _ = self._log(made[0], PATIENCE)
        if "devices=" not in log:
            raise CheckFailed(f"A pod on '{node}' does not say what it sees of GPUs: '{log}'")
        devices, listed, said = seen(log)
        faults = (
            [f"a pod that asks for no GPU sees {max(devices, listed)}: {said}"]
            if devices or listed
            else []
        )
        return Verdict(node, tuple(faults), (), 1)

    def _verdict(self, what: str, faults: list[str]) -> Verdict:
        whose = f"{what} (SIMULATED GPUs)" if self.simulated else what
        return Verdict(whose, tuple(faults), (), 1)


def real_supply(kubernetes: Kubernetes) -> dict[str, int]:
    """Return node → GPUs that a new pod can have there, SIMULATED ones aside."""
    __tracebackhide__ = True
    nodes = [node for node in kubernetes.nodes.values() if kube_gpus.SIMULATED not in node.labels]
    return kube_gpus.free(nodes, kubernetes.api.items("/api/v1/pods"))
