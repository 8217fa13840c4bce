"""Everybody counts the same GPUs, and a job gets those that it asks for: who differs is named."""

import json
import types

import pytest

from deepops_fixtures.checks import GpuCensus, GpuJobs, Gpus, JobView
from deepops_fixtures.checks.gpu_census import gres_gpus
from deepops_fixtures.errors import CheckFailed
from tests.harness.unit.gpu_hosts import Host, Reply, healthy, nvml, survey
from tests.harness.unit.smi_documents import Card

TWO = (Card(), Card(bus="08", uuid="GPU-2"))
SLICED = Card(mig=("Enabled", "Enabled"), slices=7, device="20B010DE")


def cluster(gres: str | None = None, kubernetes: list[dict] | None = None):
    """A cluster whose controllers say this of node gpu01; None: there is no such controller."""
    lines = f"NodeName=gpu01 State=IDLE CPUTot=8 RealMemory=1 Gres={gres}\n"
    master = Host({"scontrol -o show node": Reply(lines)}, name="mgmt")
    plane = Host({"kubectl": Reply(json.dumps({"items": kubernetes}))}, name="mgmt")
    groups = {
        "slurm-master": [master] if gres is not None else [],
        "kube_control_plane": [plane] if kubernetes is not None else [],
    }
    return types.SimpleNamespace(
        group=lambda name: groups[name], slurm_controller=master, login=master, slurm_nodes=[]
    )


def kube(name: str = "gpu01", labels: dict | None = None, **resources: str) -> dict:
    told = {f"nvidia.com/{key.replace('_', '-')}": count for key, count in resources.items()}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "status": {"allocatable": {"cpu": "8", **told}},
    }


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("", 0),
        ("gpu:8", 8),
        ("gpu:tesla:8(S:0-1)", 8),
        ("gpu:a100:6(S:0-1),gpu:1g.5gb:7(S:0)", 13),
        ("gpu:nvidia_a100_1g.5gb:7,mps:400,shard:16", 7),
        ("gpu:h100-47:2,gpu:h100-96:4", 6),
        ("gpu:a100:no_consume:4(S:0,2)", 4),
        ("craynetwork:4,vgpu:2", 0),
    ],
)
def test_a_gres_names_so_many_gpus(gres, count):
    assert gres_gpus(gres) == count


def test_all_that_count_the_same_are_content():
    census = GpuCensus(cluster("gpu:2", [kube(gpu="2")]))
    verdict = census.counts(Gpus(healthy(*TWO)))
    assert (verdict.faults, verdict.unjudged, verdict.judged) == ((), (), 5)


def test_who_is_not_there_is_not_counted_and_that_is_said():
    verdict = GpuCensus(cluster()).counts(Gpus(healthy()))
    assert (verdict.faults, verdict.judged) == ((), 3)
    assert verdict.unjudged == (
        "Slurm has no gres 'gpu' here",
        "Kubernetes has no NVIDIA device plugin here",
    )


@pytest.mark.parametrize(
    ("gres", "items", "cause"),
    [
        ("gpu:1", None, "Slurm's gres counts 1 GPU(s), the node has 2"),
        (None, [kube(gpu="0")], "Kubernetes' allocatable counts 0 GPU(s), the node has 2"),
        (None, [kube(labels={"nvidia.com/gpu.present": "true"}), kube("gpu02", gpu="2")],
         "Kubernetes' allocatable counts 0 GPU(s), the node has 2"),
    ],
)  # fmt: skip
def test_a_scheduler_that_counts_otherwise_is_named(gres, items, cause):
    census = GpuCensus(cluster(gres, items))
    assert census.counts(Gpus(healthy(*TWO))).faults == (cause,)


def test_libraries_that_count_otherwise_are_named():
    host = healthy(*TWO)
    host.probe["look"] = nvml(Card())
    assert GpuCensus(cluster()).counts(Gpus(host)).faults == (
        "the GPUs are counted differently (sysfs: 2, nvidia-smi: 2, NVML: 1)",
    )


def test_schedulers_count_the_slices_of_mig():
    good = GpuCensus(cluster("gpu:1g.5gb:7", [kube(gpu="0", mig_1g_5gb="7")]))
    assert good.counts(Gpus(healthy(SLICED))).faults == ()
    bad = GpuCensus(cluster("gpu:1")).counts(Gpus(healthy(SLICED)))
    assert bad.faults == ("Slurm's gres counts 1 GPU(s), the node has 7 (MIG devices counted)",)


def test_a_gpu_that_is_shared_by_pods_is_not_counted():
    shared = kube(labels={"nvidia.com/gpu.replicas": "4"}, gpu="8")
    verdict = GpuCensus(cluster(None, [shared])).counts(Gpus(healthy(*TWO)))
    assert verdict.faults == ()
    assert "Kubernetes gives each GPU to 4 pods" in verdict.unjudged


def test_slurm_that_gives_gpus_of_a_node_without_any_is_red():
    empty = Gpus(healthy(survey=Reply(survey((), driver="none"))))
    bad = GpuCensus(cluster("gpu:1")).counts(empty)
    assert bad.faults == ("Slurm's gres counts 1 GPU(s), the node has 0",)
    none = GpuCensus(cluster()).counts(empty)
    assert (none.judged, none.faults) == (0, ())
    assert "node 'gpu01' has no NVIDIA device in sysfs" in str(none)


@pytest.mark.parametrize(
    ("config", "state", "card", "cause"),
    [
        ("all-1g.5gb", "failed", SLICED, "the MIG layout 'all-1g.5gb' is not made: its state is"),
        (
            "all-disabled",
            "success",
            SLICED,
            "the MIG layout is 'all-disabled' and MIG is on for GPU",
        ),
        (
            "all-1g.5gb",
            "success",
            Card(),
            "the MIG layout is 'all-1g.5gb' and MIG is on for no GPU",
        ),
    ],
)
def test_a_mig_layout_that_kubernetes_did_not_get_is_red(config, state, card, cause):
    labels = {"nvidia.com/mig.config": config, "nvidia.com/mig.config.state": state}
    census = GpuCensus(cluster(None, [kube(labels=labels)]))
    assert census.mig_label(Gpus(healthy(card))).faults[0].startswith(cause)


def test_a_mig_layout_is_judged_only_where_there_is_one():
    done = {"nvidia.com/mig.config": "all-1g.5gb", "nvidia.com/mig.config.state": "success"}
    good = GpuCensus(cluster(None, [kube(labels=done)])).mig_label(Gpus(healthy(SLICED)))
    assert (good.faults, good.judged) == ((), 1)
    assert GpuCensus(cluster(None, [kube()])).mig_label(Gpus(healthy())).judged == 0


# -- jobs -----------------------------------------------------------------------------------

CARDS = "".join(f"GPU {n}: Tesla V100 (UUID: GPU-{n})\n" for n in range(8))


class FakeSlurm:
    """A Slurm whose jobs all print this."""

    def __init__(self, reply: Reply, constrained: bool = True) -> None:
        self.reply, self.options = reply, []
        said = f"ConstrainDevices        = {'yes' if constrained else 'no'}\n"
        self.controller = Host({"scontrol show config": Reply(said)})

    def srun(self, _command: str, *, options: str) -> Reply:
        self.options.append(options)
        return self.reply

    def evidence(self) -> str:
        return "the evidence"


def test_a_job_that_sees_what_it_asked_for_is_content():
    slurm = FakeSlurm(Reply("visible=0\nGPU 0: Tesla V100 (UUID: GPU-1)\n"))
    assert GpuJobs(slurm).sees("gpu01", 1).faults == ()
    assert slurm.options == ["-w gpu01 --gres=gpu:1"]
    none = FakeSlurm(Reply("visible=NoDevFiles\nNo devices were found\n"))
    assert GpuJobs(none).sees("gpu01", 0).faults == ()
    assert none.options == ["-w gpu01"]


@pytest.mark.parametrize(
    ("count", "text", "cause"),
    [
        (1, f"visible=0\n{CARDS}", "a job that asks for 1 GPU(s) is shown 8 by nvidia-smi"),
        (0, f"visible=\n{CARDS}", "a job that asks for 0 GPU(s) is shown 8 by nvidia-smi"),
        (
            2,
            "visible=0\nGPU 0: V100\nGPU 1: V100\n",
            "asks for 2 GPU(s) has 1 in CUDA_VISIBLE_DEV",
        ),
        (
            1,
            "visible=0\nsh: 1: nvidia-smi: not found\n",
            "is shown 0 by nvidia-smi: visible=0\nsh: 1",
        ),
    ],
)
def test_a_job_that_sees_other_gpus_is_red(count, text, cause):
    verdict = GpuJobs(FakeSlurm(Reply(text))).sees("gpu01", count)
    assert len(verdict.faults) == 1
    assert cause in verdict.faults[0]


def test_without_constrained_devices_only_the_variable_is_judged():
    verdict = GpuJobs(FakeSlurm(Reply(f"visible=0\n{CARDS}"), constrained=False)).sees("gpu01", 1)
    assert verdict.faults == ()
    assert verdict.unjudged == ("Slurm does not keep jobs from devices (ConstrainDevices)",)


def test_gpus_that_are_all_taken_are_not_judged():
    said = "srun: error: Unable to allocate resources: Requested nodes are busy"
    verdict = GpuJobs(FakeSlurm(Reply(rc=1, stderr=said))).sees("gpu01", 1)
    assert (verdict.judged, verdict.unjudged) == (0, ("its GPUs are taken by other jobs",))


def test_a_job_that_does_not_run_says_why():
    said = "srun: error: Invalid generic resource (gres) specification"
    with pytest.raises(CheckFailed, match=r"with 1 GPU\(s\) on 'gpu01' does not run: srun: error"):
        GpuJobs(FakeSlurm(Reply(rc=1, stderr=said))).sees("gpu01", 1)


def test_with_mig_a_job_is_given_slices():
    text = "visible=MIG-1,MIG-2\nGPU 0: A100 (UUID: GPU-1)\n" + "".join(
        f"  MIG 1g.5gb     Device  {n}: (UUID: MIG-{n})\n" for n in range(2)
    )
    view = JobView.parse(text)
    assert (view.visible, view.listed) == (2, 2)
