"""How many GPUs each part of a cluster counts on a node: sysfs, nvidia-smi, NVML, Slurm,
Kubernetes; and what a Slurm job is given of them.

A part that does not exist in this cluster is not counted, and that is said. Sources: gres.conf(5)
and cgroup.conf(5) of Slurm; NVIDIA's device plugin and GPU operator for the names of resources and
labels of Kubernetes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deepops_fixtures.checks import kube_gpus
from deepops_fixtures.checks.gpu_rules import Verdict
from deepops_fixtures.checks.slurm import Slurm
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.checks.gpus import Gpus
    from deepops_fixtures.cluster.running import Nodes

_KUBECTL = (
    "PATH=$PATH:/usr/local/bin; command -v kubectl >/dev/null || exit 127; "
    '[ -n "$KUBECONFIG" ] || [ -r ~/.kube/config ] || '
    "export KUBECONFIG=/etc/kubernetes/admin.conf; "
    "exec timeout 30 kubectl get nodes -o json"
)
_IN_A_JOB = "printf 'visible=%s\\n' \"$CUDA_VISIBLE_DEVICES\"; nvidia-smi -L 2>&1; true"
_GRES = re.compile(r"(?:^|,)gpu(?::[^:,(]+){0,2}?:(\d+)(?=\(|,|$)")


def gres_gpus(gres: str) -> int:
    """Return how many GPUs a node's gres names.

    >>> gres_gpus("gpu:a100:6(S:0-1),gpu:1g.5gb:7(S:0),mps:100")
    13
    """
    return sum(int(count) for count in _GRES.findall(gres))


@dataclass(frozen=True)
class CountedNode:
    """A node of Kubernetes, as far as NVIDIA has a part in it."""

    name: str
    #: Allocatable GPUs and MIG devices; None when no device plugin has told any.
    gpus: int | None
    labels: dict[str, str]

    @classmethod
    def parse(cls, item: dict[str, Any]) -> CountedNode:
        """Return the node of one item of ``kubectl get nodes -o json``."""
        resources = item.get("status", {}).get("allocatable", {})
        told = [
            int(count)
            for name, count in resources.items()
            if name == "nvidia.com/gpu" or name.startswith("nvidia.com/mig-")
        ]
        labels = item["metadata"].get("labels", {})
        return cls(item["metadata"]["name"], sum(told) if told else None, labels)

    @property
    def shared(self) -> int:
        """How many pods get the same GPU (time slicing, MPS); 1: each has its own."""
        return int(self.labels.get("nvidia.com/gpu.replicas", "1") or 1)


class GpuCensus:
    """What the parts of a cluster count."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    @cached_property
    def slurm(self) -> dict[str, int]:
        """Node → GPUs of its gres; {} where Slurm has no GPU at all."""
        if not self.nodes.group("slurm-master"):
            return {}
        try:
            found = {name: gres_gpus(node.gres) for name, node in Slurm(self.nodes).nodes.items()}
        except CheckFailed:
            return {}
        return found if any(found.values()) else {}

    @cached_property
    def kubernetes(self) -> dict[str, CountedNode]:
        """The nodes by name; {} where the control plane does not answer kubectl."""
        planes = self.nodes.group("kube_control_plane")
        done = planes[0].host.run("sh -c %s", _KUBECTL) if planes else None
        if done is None or done.rc != 0:
            return {}
        items = json.loads(done.stdout).get("items", [])
        return {node.name: node for node in map(CountedNode.parse, items)}

    def counts(self, gpus: Gpus) -> Verdict:
        """Whether all parts count the same GPUs on a node."""
        name = gpus.node.name
        cards: dict[str, int] = {"sysfs": len(gpus.survey.gpus)}
        if not gpus.absent:
            cards["nvidia-smi"] = len(gpus.smi.gpus)
            cards["NVML"] = len(gpus.nvml.gpus)
            slices = [len(gpu.mig_devices) if gpu.mig else 1 for gpu in gpus.smi.gpus]
        else:
            slices = []
        faults = []
        if len(set(cards.values())) > 1:
            told = ", ".join(f"{where}: {count}" for where, count in cards.items())
            faults.append(f"the GPUs are counted differently ({told})")
        given, unjudged = self._given(name)
        for part, count in given.items():
            if count != sum(slices):
                also = " (MIG devices counted)" if sum(slices) != len(slices) else ""
                faults.append(f"{part} counts {count} GPU(s), the node has {sum(slices)}{also}")
        if gpus.absent and not given:
            return Verdict(name, unjudged=(gpus.absent,))
        return Verdict(name, tuple(faults), tuple(unjudged), len(cards) + len(given))

    def _given(self, name: str) -> tuple[dict[str, int], list[str]]:
        """Return what the schedulers count on a node, and which of them are not asked."""
        found: dict[str, int] = {}
        unasked = []
        if name in self.slurm:
            found["Slurm's gres"] = self.slurm[name]
        else:
            unasked.append("Slurm has no gres 'gpu' here")
        node = self.kubernetes.get(name)
        # A node without any is one that lost its device plugin, where others have theirs.
        stack = any(each.gpus is not None for each in self.kubernetes.values())
        if node is None or not stack:
            unasked.append("Kubernetes has no NVIDIA device plugin here")
        elif kube_gpus.SIMULATED in node.labels:
            unasked.append("the GPUs of Kubernetes are SIMULATED")
        elif node.shared > 1:
            unasked.append(f"Kubernetes gives each GPU to {node.shared} pods")
        elif node.gpus is not None or "nvidia.com/gpu.present" in node.labels:
            found["Kubernetes' allocatable"] = node.gpus or 0
        return found, unasked

    def mig_label(self, gpus: Gpus) -> Verdict:
        """Whether the MIG layout that Kubernetes has been told to make on a node is made (labels
        nvidia.com/mig.config and nvidia.com/mig.config.state of the GPU operator)."""
        name = gpus.node.name
        labels = self.kubernetes[name].labels if name in self.kubernetes else {}
        wanted, state = (
            labels.get("nvidia.com/mig.config"),
            labels.get("nvidia.com/mig.config.state"),
        )
        if not wanted:
            return Verdict(name, unjudged=("Kubernetes has no MIG layout for it",))
        faults = []
        if state != "success":
            faults.append(f"the MIG layout '{wanted}' is not made: its state is '{state}'")
        elif (wanted == "all-disabled") == any(gpu.mig for gpu in gpus.smi.gpus):
            now = [gpu.label for gpu in gpus.smi.gpus if gpu.mig]
            faults.append(
                f"the MIG layout is '{wanted}' and MIG is on for {', '.join(now) or 'no GPU'}"
            )
        return Verdict(name, tuple(faults), (), 1)


@dataclass(frozen=True)
class JobView:
    """What a job sees of the GPUs: by CUDA_VISIBLE_DEVICES, and by nvidia-smi."""

    visible: int
    listed: int
    text: str

    @classmethod
    def parse(cls, text: str) -> JobView:
        """Return what a job's output says; with MIG the slices are what counts."""
        line = next((each for each in text.splitlines() if each.startswith("visible=")), "")
        words = [word for word in line[8:].split(",") if word and word != "NoDevFiles"]
        cards = re.findall(r"^GPU \d+:", text, re.MULTILINE)
        slices = re.findall(r"^\s+MIG .*Device", text, re.MULTILINE)
        return cls(len(words), len(slices or cards), text.strip())


class GpuJobs:
    """Jobs that ask Slurm for GPUs, and what they get."""

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm

    @cached_property
    def constrained(self) -> bool:
        """Whether a job cannot reach devices that it has not been given (ConstrainDevices)."""
        done = self.slurm.controller.host.run("timeout 30 scontrol show config")
        return bool(re.search(r"^ConstrainDevices\s*=\s*yes", done.stdout, re.M | re.I))

    def view(self, node: str, count: int) -> JobView | None:
        """Return what a job with so many GPUs sees on a node, None when the GPUs are all taken by
        other jobs. Raises CheckFailed when the job fails."""
        __tracebackhide__ = True
        options = f"-w {node}" + (f" --gres=gpu:{count}" if count else "")
        done = self.slurm.srun(_IN_A_JOB, options=options)
        if done.rc == 0:
            return JobView.parse(done.stdout)
        if re.search(r"nodes are busy|temporarily unavailable|Immediate execution", done.stderr):
            return None
        raise CheckFailed(
            f"A job with {count} GPU(s) on '{node}' does not run: {done.stderr.strip()}\n"
            + self.slurm.evidence()
        )

    def sees(self, node: str, count: int) -> Verdict:
        """Whether a job sees exactly the GPUs that it asked for, and not one more."""
        __tracebackhide__ = True
        view = self.view(node, count)
        if view is None:
            return Verdict(node, unjudged=("its GPUs are taken by other jobs",))
        asked, faults, unjudged = f"a job that asks for {count} GPU(s)", [], []
        if view.visible != count:
            faults.append(f"{asked} has {view.visible} in CUDA_VISIBLE_DEVICES")
        if not self.constrained:
            unjudged.append("Slurm does not keep jobs from devices (ConstrainDevices)")
        elif view.listed != count:
            faults.append(f"{asked} is shown {view.listed} by nvidia-smi: {view.text}")
        return Verdict(node, tuple(faults), tuple(unjudged), 1)
