"""What the Kubernetes API says, as objects."""

import pytest

from deepops_fixtures.checks.kube_data import KubeJob, KubeNode, Pod, version_numbers
from deepops_fixtures.checks.kube_workloads import KubeEvent, Workload
from tests.harness.unit import kube_documents as documents

CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}
RACK = {"key": "example.com/rack", "effect": "NoSchedule", "value": "7"}


def test_a_node_is_read_with_its_addresses_networks_and_images():
    node = KubeNode.parse(documents.NODE)
    assert (node.name, node.version, node.address) == ("virtual-mgmt", "v1.20.2", "10.86.1.12")
    assert (node.pod_cidrs, node.boot_id) == (("10.96.0.0/24",), "b")
    assert "deepops.local/busybox:1" in node.images
    assert node.allocatable["memory"] == "2Gi"


def test_a_node_whose_kubelet_is_silent_is_not_ready_and_says_why():
    node = KubeNode.parse(documents.NODE)
    assert not node.ready
    assert node.why_not_ready == (
        "Ready is Unknown (NodeStatusUnknown: Kubelet stopped posting node status.)"
    )
    # What it is short of nobody knows: that it is silent is said once.
    assert node.pressures == []


def test_a_node_that_has_told_nothing_is_not_ready():
    node = KubeNode.parse({"metadata": {"name": "new"}})
    assert not node.ready
    assert node.why_not_ready == "its kubelet has told no condition"


def test_a_node_is_short_of_what_it_says():
    data = documents.node()
    data["status"]["conditions"].append(
        {"type": "DiskPressure", "status": "True", "reason": "KubeletHasDiskPressure",
         "message": "kubelet has disk pressure"}
    )  # fmt: skip
    assert KubeNode.parse(data).pressures == [
        "DiskPressure is True (KubeletHasDiskPressure: kubelet has disk pressure)"
    ]


@pytest.mark.parametrize(
    ("spec", "cordoned", "foreign", "schedulable"),
    [
        ({"taints": []}, False, [], True),
        ({"unschedulable": True}, True, [], False),
        ({"taints": [CONTROL_PLANE]}, False, [], False),
        ({"taints": [GPU]}, False, [], False),
        ({"taints": [RACK]}, False, ["example.com/rack=7:NoSchedule"], False),
        ({"taints": [{**RACK, "effect": "PreferNoSchedule"}]}, False, [], True),
    ],
)
def test_a_node_takes_pods_unless_a_cordon_or_a_taint_keeps_them_away(
    spec, cordoned, foreign, schedulable
):
    node = KubeNode.parse(documents.node(**spec))
    assert node.cordoned is cordoned
    assert [str(taint) for taint in node.foreign_taints] == foreign
    assert node.schedulable is schedulable


def test_a_pod_that_runs_is_ready():
    pod = Pod.parse(documents.pod())
    assert (pod.ready, pod.done, pod.node, pod.ip) == (True, False, "virtual-gpu01", "10.96.1.7")
    assert str(pod) == "pod n/p is Running on virtual-gpu01"


def test_a_pod_that_is_being_deleted_is_not_ready():
    data = documents.pod()
    data["metadata"]["deletionTimestamp"] = "2026-11-25T07:21:06Z"
    assert not Pod.parse(data).ready


def test_a_pod_over_its_memory_says_so_now_and_after_its_restart():
    end = documents.ended("OOMKilled", 137)
    pod = Pod.parse(documents.pod(phase="Failed", state=end))
    assert (pod.ended, pod.exit_codes, pod.done) == ({"main": "OOMKilled"}, {"main": 137}, True)
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    again = Pod.parse(documents.pod(state=waiting, lastState=end, restartCount=3))
    assert (again.ended, again.restarts, again.hopeless) == ({"main": "OOMKilled"}, 3, True)
    assert "CrashLoopBackOff, OOMKilled, back-off 10s" in str(again)


def test_a_pod_that_no_node_takes_says_why():
    data = documents.pod(phase="Pending")
    del data["spec"]["nodeName"], data["status"]["containerStatuses"]
    data["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
         "message": "0/2 nodes are available: 2 Insufficient memory."}
    ]  # fmt: skip
    pod = Pod.parse(data)
    assert pod.unschedulable == "0/2 nodes are available: 2 Insufficient memory."
    assert str(pod) == "pod n/p is Pending, on no node yet"


def test_a_job_is_read_at_its_beginning_its_end_and_its_failure():
    job = KubeJob.parse(documents.JOB)
    assert (job.wanted, job.succeeded, job.complete, job.has_failed) == (2, 0, False, False)
    done = {"succeeded": 2, "conditions": [{"type": "Complete", "status": "True"}]}
    assert KubeJob.parse({**documents.JOB, "status": done}).complete
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    failed = KubeJob.parse({**documents.JOB, "status": {"failed": 1, "conditions": [condition]}})
    assert failed.has_failed
    assert str(failed).endswith(
        "0 of 2 pod(s) succeeded, 1 failed (Failed is True (BackoffLimitExceeded))"
    )


def test_an_event_of_the_scheduler_has_its_time_elsewhere():
    event = KubeEvent.parse(documents.EVENT)
    assert (event.about, event.when) == ("Pod/check-31bd1cec", "2026-11-25T07:21:06.386581Z")
    assert "Normal Scheduled Pod/check-31bd1cec: Successfully assigned" in str(event)


@pytest.mark.parametrize(
    ("status", "complete"),
    [
        ({"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "observedGeneration": 3}, True),
        # The old pods still run.
        (
            {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 2, "observedGeneration": 3},
            False,
        ),
        (
            {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 1, "observedGeneration": 3},
            False,
        ),
        (
            {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "observedGeneration": 3},
            False,
        ),
        # The controller has not seen the change.
        (
            {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "observedGeneration": 2},
            False,
        ),
        ({}, False),
    ],
)
def test_a_deployment_is_complete_when_its_newest_pods_alone_are_ready(status, complete):
    data = {
        "metadata": {"name": "d", "namespace": "n", "generation": 3},
        "spec": {"replicas": 2}, "status": status,
    }  # fmt: skip
    assert Workload.parse(data, "Deployment").complete is complete


def test_a_daemon_set_counts_by_nodes():
    status = {"desiredNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 3}
    seen = Workload.parse(
        {"metadata": {"name": "kube-proxy", "namespace": "kube-system"}, "status": status},
        "DaemonSet",
    )
    assert str(seen) == "DaemonSet kube-system/kube-proxy has 2 of 3 pods ready"
    assert not seen.complete


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("v1.20.2", (1, 20)), ("v1.35.4+k3s1", (1, 35)), ("1.9", (1, 9)), ("", (0, 0))],
)
def test_versions_are_compared_as_numbers(text, numbers):
    assert version_numbers(text) == numbers
