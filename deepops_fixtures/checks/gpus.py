"""The GPUs of one node: whether the driver has them, whether they are healthy, whether they
compute.

Each check is a method that returns a Verdict: what is wrong, in sentences that name the GPU, and
what could not be judged. What was seen of a node is kept; make another object to look again. How
many GPUs the schedulers count is in ``gpu_census``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

from deepops_fixtures import facts
from deepops_fixtures.checks import gpu_probe, gpu_rules, gpu_xids
from deepops_fixtures.checks.gpu_probe import CudaView, NvmlView
from deepops_fixtures.checks.gpu_rules import Verdict, judge
from deepops_fixtures.checks.gpu_survey import Device, Survey
from deepops_fixtures.checks.nvidia_smi import NvidiaSmi
from deepops_fixtures.checks.nvidia_smi_data import Gpu, GpuProcess
from deepops_fixtures.errors import CheckFailed, some

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Exits with 77 where no layout is configured.
_MIG_ASSERT = (
    "command -v nvidia-mig-parted >/dev/null || exit 77; "
    "set -- $(systemctl show -p Environment nvidia-mig-manager | cut -d= -f2- | tr -d '\"'); "
    'for each in "$@"; do case $each in MIG_PARTED_*=*) export "$each";; esac; done; '
    "export | grep -q MIG_PARTED_SELECTED_CONFIG || exit 77; "
    "exec timeout 60 nvidia-mig-parted assert 2>&1"
)
#: For each process: number, owner, age in seconds, its cgroup, its command; nothing for one that
#: is gone.
_OWNERS = (
    "for pid in %s; do [ -d /proc/$pid ] || continue; "
    "printf '%%s|%%s|' $pid \"$(ps -o user=,etimes= -p $pid | tr -s ' ' '|')\"; "
    "tr '\\n' ' ' </proc/$pid/cgroup; printf '|'; tr '\\0' ' ' </proc/$pid/cmdline; echo; done"
)
_OF_A_JOB = re.compile(r"/(slurm|slurmstepd\.scope|kubepods)|/job_\d+|kubepods")
_OUR_PROBE = re.compile(r"python\S* - compute \d")


class Gpus:
    """The GPUs of a node.

    >>> gpus = checks.Gpus(node)
    >>> [str(device) for device in gpus.survey.gpus]
    ['0000:07:00.0 [10de:1db1]']
    >>> gpus.memory().faults
    ()
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.smi = NvidiaSmi(node)

    @cached_property
    def survey(self) -> Survey:
        """What the node's kernel shows, without any program of NVIDIA's."""
        __tracebackhide__ = True
        return Survey.take(self.node)

    @property
    def absent(self) -> str:
        """Why there is nothing to check ('' when there is): no GPU, or none of this node's own."""
        seen = self.survey
        if seen.gpus:
            return ""
        if seen.kept_for_guests:
            kept = ", ".join(map(str, seen.kept_for_guests))
            return f"node '{self.node.name}' keeps its GPUs for guests (vfio-pci): {kept}"
        if any(device.is_gpu for device in seen.devices):
            return f"node '{self.node.name}' is a container that was given no NVIDIA GPU"
        return f"node '{self.node.name}' has no NVIDIA device in sysfs"

    def _verdict(self, faults: Iterable[str], judged: int = 1, *unjudged: str) -> Verdict:
        return Verdict(self.node.name, tuple(faults), unjudged, judged)

    def _judge(self, rule: gpu_rules.Rule) -> Verdict:
        __tracebackhide__ = True
        return judge(self.node.name, self.smi.gpus, rule)

    def _of_each(self, rule: gpu_rules.Rule) -> tuple[str, ...]:
        return tuple(f"{gpu.label} {text}" for gpu in self.smi.gpus for text in rule(gpu))

    # -- the driver ---------------------------------------------------------------------------

    def driver(self) -> Verdict:
        """Whether the nvidia driver has every GPU, and is one version wherever it is told."""
        seen = self.survey
        faults = [_undriven(device, seen) for device in seen.gpus if device.driver != "nvidia"]
        if not seen.module_version:
            faults.append("the kernel module 'nvidia' is not loaded (/sys/module/nvidia/version)")
        if faults:
            return self._verdict(faults)
        versions = {
            "/sys/module/nvidia": seen.module_version,
            "/proc/driver/nvidia": seen.proc_version,
        }
        try:
            versions["nvidia-smi"] = self.smi.driver_version
        except CheckFailed as error:
            faults.append(str(error))
        nvml = self.nvml
        if nvml.error:
            faults.append(f"NVML does not answer: {nvml.error}")
        else:
            versions["NVML"] = nvml.driver_version
        if len(set(versions.values())) > 1:
            told = ", ".join(f"{where}: {what or 'nothing'}" for where, what in versions.items())
            faults.append(
                f"the driver has several versions ({told}); reboot, or reload the module"
            )
        return self._verdict(faults)

    @cached_property
    def obstacle(self) -> str:
        """Why nothing more can be asked about the GPUs, '' when it can; a check of its own is red
        then."""
        faults = self.driver().faults
        return f"{self.node.name}: {'; '.join(faults)}" if faults else ""

    @cached_property
    def nvml(self) -> NvmlView:
        """What NVML counts."""
        try:
            return gpu_probe.look(self.node, self.smi.prefix)
        except CheckFailed as error:
            return NvmlView(error=str(error))

    def lost(self) -> Verdict:
        """GPUs that sysfs shows and that do not answer: off the bus, or missing in nvidia-smi."""
        shown = {gpu.address for gpu in self.smi.gpus}
        faults = []
        for device in self.survey.gpus:
            if not device.answers:
                faults.append(f"GPU {device} has fallen off the bus: its configuration reads ffff")
            elif device.address not in shown:
                faults.append(f"GPU {device} is in sysfs and not in nvidia-smi: {self._remarks()}")
        faults += [
            f"{gpu.label} does not answer ({some(gpu.broken, most=2)})"
            for gpu in self.smi.gpus
            if gpu.broken
        ]
        return self._verdict(faults)

    def _remarks(self) -> str:
        said = [line for line in self.smi.report.remarks if not line.startswith("<")]
        return " ".join(said) or "it says nothing of it"

    def xids(self) -> Verdict:
        """Errors that the driver has told the kernel's log since the boot (NVIDIA, XID Errors)."""
        lines = self.node.host.run("sh -c %s", gpu_xids.KERNEL_LOG).stdout.splitlines()
        if not lines:
            return self._verdict((), 0, "the kernel's log cannot be read")
        faults, harmless = gpu_xids.sentences(line for line in lines if line != "readable")
        return replace(self._verdict(faults), remarks=tuple(harmless))

    # -- health -------------------------------------------------------------------------------

    def memory(self) -> Verdict:
        """Uncorrectable errors of the memory; pages and rows whose repair is due or failed; the
        infoROM that keeps the record of them.

        Those that were repaired long ago are a remark: a card is made to have some.
        """
        found = self._judge(gpu_rules.memory)
        return replace(
            found,
            faults=found.faults + self._of_each(gpu_rules.inforom(self.smi.report.remarks)),
            unjudged=found.unjudged + self._of_each(gpu_rules.unseen_rows),
            remarks=self._of_each(gpu_rules.repaired),
        )

    def heat(self) -> Verdict:
        """Temperatures where the clocks are slowed down, idle and under load."""
        return judge(self.node.name, self._seen, gpu_rules.heat)

    def power(self) -> Verdict:
        """Power above its limit, idle and under load."""
        return judge(self.node.name, self._seen, gpu_rules.power)

    def clocks(self) -> Verdict:
        """Clocks that are low because of the hardware, idle and under load."""
        return self._judge(gpu_rules.clocks(self._seen))

    def link(self) -> Verdict:
        """The PCIe link's generation and width under load, against what card and slot can do."""
        slots = {device.address: device.slot_width for device in self.survey.gpus}
        return self._judge(gpu_rules.link(self._loaded, slots))

    def persistence(self) -> Verdict:
        """Persistence mode."""
        return self._judge(gpu_rules.persistence)

    def mig(self) -> Verdict:
        """MIG as it is against MIG as it is to be: pending modes, and the layout that
        nvidia-mig-manager has selected (``nvidia-mig-parted assert``)."""
        verdict = self._judge(gpu_rules.mig)
        asserted = self.node.host.run(f"{self.smi.prefix}sh -c %s", _MIG_ASSERT)
        if asserted.rc == 77:
            return verdict
        said = " ".join(asserted.stdout.split())[-300:]
        fault = (f"the MIG layout is not what nvidia-mig-manager has selected: {said}",)
        faults = verdict.faults + (fault if asserted.rc else ())
        return self._verdict(faults, verdict.judged + 1, *verdict.unjudged)

    # -- between the GPUs ---------------------------------------------------------------------

    def nvlinks(self) -> Verdict:
        """NVLinks that are down or slow."""
        switched, peers = bool(self.survey.nvswitches), len(self.smi.gpus) - 1
        return self._judge(gpu_rules.nvlinks(self.smi.nvlinks, switched, peers))

    def fabric(self) -> Verdict:
        """The NVLink fabric: whether every GPU has joined it and it is well, and whether the
        fabric manager runs where the node has NVSwitches."""
        joined = self._judge(gpu_rules.fabric)
        if not self.survey.nvswitches:
            return joined
        # The GPU operator runs it in a container; the kernel cuts a name after 15 letters.
        runs = self.node.host.run(
            "systemctl is-active --quiet nvidia-fabricmanager || pgrep -x nv-fabricmanage"
        )
        count = len(self.survey.nvswitches)
        fault = (f"nvidia-fabricmanager does not run, and there are {count} NVSwitches",)
        return self._verdict(joined.faults + (fault if runs.rc else ()), joined.judged + 1)

    def topology(self) -> Verdict:
        """How each pair of GPUs is connected: told at all, the same in both directions, and by
        NVLink where there are NVSwitches."""
        numbers = [gpu.index for gpu in self.smi.gpus]
        if len(numbers) < 2:
            return self._verdict((), 0, "one GPU is connected to no other")
        pairs, faults = self.smi.topology, []
        for one, other in combinations(numbers, 2):
            there, back = pairs.get((one, other), ""), pairs.get((other, one), "")
            if not there or there != back:
                faults.append(
                    f"GPU {one} and GPU {other} are connected by '{there}' and back by '{back}'"
                )
            elif self.survey.nvswitches and not there.startswith("NV"):
                faults.append(f"GPU {one} reaches GPU {other} by {there} and not by NVLink")
        return self._verdict(faults)

    # -- work ---------------------------------------------------------------------------------

    @cached_property
    def cuda(self) -> CudaView:
        """What the GPUs did under CUDA; made once, it takes some seconds and all GPUs."""
        try:
            return gpu_probe.compute(self.node, self.smi.prefix)
        except CheckFailed as error:
            return CudaView(error=str(error))

    @property
    def _loaded(self) -> list[Gpu]:
        return [gpu for report in self.cuda.loaded for gpu in report.gpus]

    @property
    def _seen(self) -> list[Gpu]:
        return [*self.smi.gpus, *self._loaded]

    def kernel(self) -> Verdict:
        """A kernel on every GPU, its result checked."""
        done = self.cuda
        if done.error:
            return self._verdict([f"CUDA does not start: {done.error}"])
        faults = [
            f"GPU {card.address} ({card.name}) {_failure(card)}"
            for card in done.gpus
            if _failure(card)
        ]
        worked = {card.address for card in done.gpus}
        # With MIG a program sees one slice, whatever else there is.
        if not any(gpu.mig for gpu in self.smi.gpus):
            faults += [
                f"{gpu.label} is not there for CUDA"
                for gpu in self.smi.gpus
                if gpu.address not in worked
            ]
        return self._verdict([*faults, *done.load_errors], len(done.gpus))

    def bandwidth(self) -> Verdict:
        """The memory's bandwidth against the data sheet's (facts.CARDS), GB/s."""
        reported = {gpu.address: gpu for gpu in self.smi.gpus}
        faults, unjudged, judged = [], [], 0
        for done in self.cuda.gpus:
            gpu = reported.get(done.address)
            card = facts.CARDS.get(gpu.pci_id) if gpu else None
            what = f"GPU {done.address} ({done.name})"
            if done.error or not done.bandwidth:
                unjudged.append(f"{what} did not come so far: {done.error}")
            elif gpu and gpu.mig:
                unjudged.append(f"{what} is sliced by MIG, a slice has a part of the bandwidth")
            elif card is None:
                unjudged.append(
                    f"{what} is in no table here; it copies {done.bandwidth:.0f} GB/s of "
                    f"{done.peak:.0f} by its clock and width"
                )
            else:
                judged += 1
                if done.bandwidth < facts.BANDWIDTH_SHARE * card.bandwidth:
                    faults.append(
                        f"{what} copies {done.bandwidth:.0f} GB/s within its memory; its data "
                        f"sheet says {card.bandwidth}, expected is {facts.BANDWIDTH_SHARE:.0%}"
                    )
        if not self.cuda.gpus:
            unjudged.append(f"CUDA has no GPU: {self.cuda.error}")
        return self._verdict(faults, judged, *unjudged)

    def leftovers(self) -> Verdict:
        """Processes that compute on a GPU outside of any Slurm job or pod."""
        found = self._strays()
        if found:
            # What ended between the two looks was no leftover.
            again = self._strays()
            found = {pid: text for pid, text in found.items() if pid in again}
        return self._verdict(found.values())

    def _strays(self) -> dict[int, str]:
        computing: dict[int, tuple[Gpu, GpuProcess]] = {
            process.pid: (gpu, process)
            for gpu in self.smi.read().gpus
            for process in gpu.processes
            if process.computes and "nvidia-cuda-mps-server" not in process.name
        }
        if not computing:
            return {}
        script = _OWNERS % " ".join(map(str, computing))
        lines = self.node.host.run("sh -c %s", script).stdout.splitlines()
        owners = {int(line.split("|")[0]): line.split("|") for line in lines if "|" in line}
        found = {}
        for pid, (gpu, process) in computing.items():
            words = owners.get(pid)
            if words and (_OF_A_JOB.search(line := "|".join(words)) or _OUR_PROBE.search(line)):
                continue
            if words is None and self.survey.container:
                continue
            whose = f"of user '{words[1] or words[2]}'" if words else "that is no longer there"
            found[pid] = (
                f"{gpu.label} is used by process {pid} ('{process.name}') {whose}, "
                "outside of any Slurm job or pod"
            )
        return found


def _undriven(device: Device, seen: Survey) -> str:
    if device.driver:
        return f"GPU {device} has the driver '{device.driver}' and not 'nvidia'"
    also = "" if seen.module_version else "; the kernel module 'nvidia' is not loaded"
    return f"GPU {device} has no driver{also}"


def _failure(card: gpu_probe.CudaCard) -> str:
    if card.error:
        return f"fails: {card.error}"
    return f"computes wrong results: {card.wrong}" if card.wrong else ""
