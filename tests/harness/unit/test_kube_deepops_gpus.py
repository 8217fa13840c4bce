"""GPUs in Kubernetes: who counts, labels or shares them wrongly is named; simulated ones say
so."""

import types
from collections import Counter

import pytest

from deepops_fixtures import facts, simulation
from deepops_fixtures.checks import GpuPods, kube_gpu_pods, kube_gpus
from deepops_fixtures.checks.kube_api import ApiRefused
from deepops_fixtures.checks.kube_data import KubeNode, Pod
from deepops_fixtures.checks.nvidia_smi_data import SmiReport
from deepops_fixtures.errors import CheckFailed
from tests.harness.unit.kube_answers import Scheduler, known, node, pod
from tests.harness.unit.smi_documents import Card, document

SLICES = "GPU 0: A100 (UUID: GPU-1)\n" + "".join(
    f"  MIG 1g.5gb      Device  {number}: (UUID: MIG-{number})\n" for number in range(7)
)
MIXED, SINGLE = ({"nvidia.com/mig.strategy": name} for name in ("mixed", "single"))


# -- what a node offers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "cards", "listing", "sliced"),
    [
        (known(gpu="2"), 2, "", 0),
        (known(), 0, "", 0),
        (known(gpu="7", labels=SINGLE), 1, SLICES, 1),
        (known(gpu="1", mig_1g_5gb="7", labels=MIXED), 2, SLICES, 1),
        (known(gpu="0", mig_1g_5gb="7", labels=MIXED), 1, SLICES, 1),
    ],
)
def test_a_node_that_offers_what_it_has_is_content(seen, cards, listing, sliced):
    verdict = kube_gpus.gpu_count(seen, cards, listing, sliced)
    assert (verdict.faults, verdict.judged) == ((), 1)


@pytest.mark.parametrize(
    ("seen", "cards", "listing", "sliced", "cause"),
    [
        (known(), 2, "", 0, "Kubernetes has no nvidia.com/gpu on it, the node has 2 GPU(s)"),
        (known(gpu="0"), 2, "", 0, "Kubernetes can give 0 nvidia.com/gpu, the node has 2"),
        (known(gpu="1"), 0, "", 0, "Kubernetes can give 1 nvidia.com/gpu, the node has 0"),
        (known(gpu="1", labels=SINGLE), 1, SLICES, 1, "can give 1 nvidia.com/gpu, the node has 7"),
        (known(gpu="2", labels=MIXED), 2, SLICES, 1, "can give 2 nvidia.com/gpu, the node has 1"),
    ],
)  # fmt: skip
def test_a_node_that_offers_something_else_is_red(seen, cards, listing, sliced, cause):
    (fault,) = kube_gpus.gpu_count(seen, cards, listing, sliced).faults
    assert cause in fault


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        ({kube_gpus.SIMULATED: "2"}, "its GPUs in Kubernetes are SIMULATED"),
        ({"nvidia.com/gpu.replicas": "4"}, "each of its GPUs is given to 4 pods"),
    ],
)
def test_gpus_that_stand_for_something_else_are_not_judged(labels, cause):
    verdict = kube_gpus.gpu_count(known(gpu="2", labels=labels), 0, "", 0)
    assert (verdict.judged, verdict.faults, verdict.unjudged) == (0, (), (cause,))


@pytest.mark.parametrize(
    ("seen", "listing", "cause"),
    [
        (known(mig_1g_5gb="7", labels=MIXED), SLICES, None),
        (
            known(mig_1g_5gb="6", labels=MIXED),
            SLICES,
            "can give 6 nvidia.com/mig-1g.5gb, nvidia-smi",
        ),
        (known(labels=MIXED), SLICES, "can give 0 nvidia.com/mig-1g.5gb, nvidia-smi lists 7"),
        (
            known(mig_1g_5gb="7"),
            "GPU 0: A100\n",
            "can give 7 nvidia.com/mig-1g.5gb, nvidia-smi li",
        ),
    ],
)
def test_mig_devices_are_compared_kind_by_kind(seen, listing, cause):
    verdict = kube_gpus.mig_count(seen, listing)
    assert len(verdict.faults) == (cause is not None)
    assert (cause or "") in " ".join(verdict.faults)
    assert verdict.judged or verdict.faults


def test_without_mig_devices_of_their_own_name_nothing_is_judged():
    assert kube_gpus.mig_count(known(gpu="1"), "").unjudged == ("it has no MIG device",)
    assert "strategy of MIG is 'single'" in str(kube_gpus.mig_count(known(labels=SINGLE), SLICES))


# -- labels ---------------------------------------------------------------------------------

TRUE = {
    "nvidia.com/gpu.product": "Tesla-V100-SXM2-16GB",
    "nvidia.com/gpu.count": "2",
    "nvidia.com/mig.capable": "false",
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/cuda.driver-version.full": "535.54.03",
}
REPORT = SmiReport.parse(document(Card(), Card(bus="08", uuid="GPU-2")))


def test_labels_that_are_true_are_content():
    verdict = kube_gpus.labels(known(labels=TRUE), REPORT)
    assert (verdict.faults, verdict.judged) == ((), 4)
    shared = {**TRUE, "nvidia.com/gpu.product": "Tesla-V100-SXM2-16GB-SHARED"}
    assert kube_gpus.labels(known(labels=shared), REPORT).faults == ()


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        (
            "gpu.product",
            "Tesla-T4",
            "gpu.product is 'Tesla-T4', nvidia-smi says 'Tesla-V100-SXM2-1",
        ),
        ("gpu.count", "1", "the label nvidia.com/gpu.count is '1', nvidia-smi says '2'"),
        ("mig.capable", "true", "nvidia.com/mig.capable is 'true', nvidia-smi says 'false'"),
        ("mig.strategy", "both", "nvidia.com/mig.strategy is 'both', which is none of"),
        ("cuda.driver-version.full", "470.1", "is '470.1', nvidia-smi says '535.54.03'"),
    ],
)
def test_a_label_that_is_not_true_is_named(name, value, cause):
    wrong = {**TRUE, f"nvidia.com/{name}": value}
    (fault,) = kube_gpus.labels(known(labels=wrong), REPORT).faults
    assert cause in fault


def test_a_node_without_labels_of_gpus_is_not_judged():
    assert kube_gpus.labels(known(labels={"nvidia.com/gpu": "x"}), REPORT).judged == 0


# -- who has them ---------------------------------------------------------------------------


def test_free_gpus_are_those_that_no_pod_has():
    nodes = [
        known("a", gpu="4"),
        known("b", gpu="1", ready=False),
        known("c"),
        known("d", gpu="2"),
    ]
    first = {"name": "first", "resources": {"limits": {facts.GPU_RESOURCE: "3"}}}
    pods = [
        pod("one", "a", 1),
        pod("greedy-at-first", "a", 1, initContainers=[first]),
        pod("done", "a", 4, phase="Succeeded"),
        pod("waits", "", 4, phase="Pending"),
        pod("too-many", "d", 3),
    ]
    assert kube_gpus.taken(pods, facts.GPU_RESOURCE) == Counter(a=4, d=3)
    assert kube_gpus.free(nodes, pods) == {"a": 0, "d": 0}
    assert kube_gpus.free(nodes, pods[:1]) == {"a": 3, "d": 2}


def test_simulated_gpus_are_no_supply_of_real_ones():
    nodes = {"a": known("a", gpu="2", labels={kube_gpus.SIMULATED: "2"}), "b": known("b", gpu="1")}
    api = types.SimpleNamespace(items=lambda _path: [])
    assert kube_gpu_pods.real_supply(types.SimpleNamespace(nodes=nodes, api=api)) == {"b": 1}


# -- pods -----------------------------------------------------------------------------------


FULL = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
TAINTED = "0/2 nodes are available: 2 node(s) had taints that the pod didn't tolerate."


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(kube_gpu_pods, "STAYS", 0)


def judged(scheduler: Scheduler, what: str, free: dict[str, int] | None = None) -> tuple[str, ...]:
    """Return the faults of a check; no pod of it is left."""
    verdict = getattr(GpuPods(scheduler, free or {"a": 2}), what)()
    assert (verdict.judged, scheduler.living) == (1, {})
    return verdict.faults


def test_a_pod_with_a_gpu_has_to_run_where_one_is():
    assert judged(Scheduler("a"), "runs") == ()
    assert judged(Scheduler("b"), "runs") == ("it runs on 'b', and free GPUs are on a",)


def test_a_pod_that_asks_for_too_many_has_to_wait_for_gpus():
    scheduler = Scheduler(FULL)
    assert judged(scheduler, "too_many") == ()
    assert scheduler.limits == ["3"]
    assert judged(Scheduler("a"), "too_many") == ("it was given to node 'a'",)
    assert judged(Scheduler(TAINTED), "too_many") == (f"it waits, and not for GPUs: {TAINTED}",)


def test_two_pods_may_not_have_the_same_gpu():
    scheduler = Scheduler("a", FULL)
    assert judged(scheduler, "exclusive") == ()
    assert scheduler.limits == ["2", "1"]
    assert judged(Scheduler("a", "a"), "exclusive") == ("it was given to node 'a'",)


def test_a_job_has_to_have_a_gpu_on_every_node():
    both = {"a": 1, "b": 1}
    assert judged(Scheduler("a", "b"), "everywhere", both) == ()
    assert judged(Scheduler("b", "b"), "everywhere", both) == (
        "it runs on b, b, and free GPUs are on a, b",
    )


def test_a_job_that_does_not_get_its_nodes_is_red_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(kube_gpu_pods, "PATIENCE", 0)
    scheduler = Scheduler("a", FULL)
    with pytest.raises(
        CheckFailed, match="has a pod on each of a, b at the same time: not within"
    ):
        GpuPods(scheduler, {"a": 1, "b": 1}).everywhere()
    assert scheduler.living == {}


CARD = "smi: GPU 0: Tesla V100 (UUID: GPU-1)\n"


@pytest.mark.parametrize(
    ("log", "count", "cause"),
    [
        (f"devices=1\n{CARD}", 1, ""),
        (
            f"devices=2\n{CARD}{CARD}",
            1,
            "a pod that asks for 1 GPU(s) is shown 2 by nvidia-smi: GPU",
        ),
        (
            "devices=0\nsmi: sh: nvidia-smi: not found",
            1,
            "is shown 0 by nvidia-smi: sh: nvidia-smi",
        ),
        ("", 1, "is shown 0 by nvidia-smi"),
    ],
)
def test_a_pod_has_to_see_what_it_asks_for(log, count, cause):
    faults = GpuPods(Scheduler("a", log=log), {"a": 2}).sees("a", count).faults
    assert len(faults) == bool(cause)
    assert cause in " ".join(faults)


def test_a_pod_that_asks_for_none_has_to_see_none():
    gpus = GpuPods(Scheduler("a", "a", "a", log="devices=0\nsmi: sh: not found"), {"a": 2})
    assert gpus.hidden("a").faults == ()
    assert gpus.kubernetes.limits == []
    gpus.kubernetes.log = "devices=8\nsmi: sh: not found"
    assert gpus.hidden("a").faults == ("a pod that asks for no GPU sees 8: sh: not found",)
    gpus.kubernetes.log = ""
    with pytest.raises(CheckFailed, match="does not say what it sees"):
        gpus.hidden("a")


def test_an_image_that_cannot_be_had_is_not_judged():
    scheduler = Scheduler("a")

    def wait_done(asked: Pod, _seconds: float) -> Pod:
        waiting = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
        scheduler.living[asked.name]["status"]["containerStatuses"] = [waiting]
        raise CheckFailed("it waits in vain")

    scheduler.wait_done = wait_done
    verdict = GpuPods(scheduler, {"a": 1}).sees("a", 1)
    assert verdict.judged == 0
    assert "an image in which nvidia-smi can run cannot be had: pod x/gpu-" in str(verdict)
    assert scheduler.images == [facts.CUDA_IMAGE]


def test_an_image_that_the_node_has_is_taken_first():
    item = node("a")
    names = ["nvcr.io/nvidia/cuda@sha256:1", "nvcr.io/nvidia/cuda:12.2.0-base-ubuntu22.04", "x:1"]
    item["status"]["images"] = [{"names": names}]
    assert kube_gpu_pods.cuda_image(KubeNode.parse(item)) == names[1]


# -- simulated ones -------------------------------------------------------------------------


def test_gpu_nodes_are_simulated_first_and_two_at_most():
    nodes = {name: known(name) for name in ("mgmt", "gpu01", "other")}
    assert simulation.candidates(nodes) == (["gpu01", "mgmt"], "")


@pytest.mark.parametrize(
    ("nodes", "cause"),
    [
        ([known("gpu01", gpu="1"), known("mgmt")], "Kubernetes has GPUs of its own on gpu01"),
        ([known("gpu01", ready=False)], "no node takes pods"),
    ],
)
def test_where_nothing_may_be_simulated_that_is_said(nodes, cause):
    names, reason = simulation.candidates({each.name: each for each in nodes})
    assert names == []
    assert cause in reason


def test_what_a_killed_run_left_is_simulated_anew():
    left = known("gpu01", gpu="2", labels={kube_gpus.SIMULATED: "2"})
    assert simulation.candidates({"gpu01": left}) == (["gpu01"], "")


def test_simulated_gpus_are_taken_away_whatever_happens():
    sent: list[tuple[str, object]] = []

    def patch(path: str, body: dict) -> None:
        sent.append((path, body["status"]["capacity"][facts.GPU_RESOURCE]))
        assert body["status"]["allocatable"] == body["status"]["capacity"]
        assert body["metadata"]["labels"] == {kube_gpus.SIMULATED: sent[-1][1]}
        if len(sent) == 2:
            raise ApiRefused("PATCH", 409, "Conflict", "somebody else")

    kubernetes = types.SimpleNamespace(api=types.SimpleNamespace(patch=patch))
    with pytest.raises(ApiRefused), simulation.simulated(kubernetes, ["a", "b"]):
        pytest.fail("the second node was refused")
    path = "/api/v1/nodes/{}/status".format
    assert sent == [(path("a"), "2"), (path("b"), "2"), (path("b"), None), (path("a"), None)]
