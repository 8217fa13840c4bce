"""What breaks and comes back: a node is drained, a kubelet restarts, a node reboots."""

import secrets
import time

import pytest

from deepops_fixtures.checks import Kubernetes, Pod, kube_manifests, wait_until
from deepops_fixtures.cluster.running import Node

pytestmark = [pytest.mark.kubernetes, pytest.mark.destructive]


@pytest.fixture
def worker(working_kubernetes: Kubernetes) -> Node:
    """A node that takes pods and is not the control plane; the last of the inventory."""
    known = working_kubernetes.nodes
    found = [
        node
        for node in working_kubernetes.members
        if node is not working_kubernetes.plane and known[node.name].schedulable
    ]
    if not found:
        pytest.skip("no node but the control plane takes pods")
    return found[-1]


def pods_of(kubernetes: Kubernetes, name: str) -> list[Pod]:
    """Return the pods of a Deployment that are not on their way out."""
    return [pod for pod in kubernetes.pods(labels={"app": name}) if not pod.deleting]


def test_a_drained_node_loses_its_pods_to_the_others_and_gets_new_ones(
    working_kubernetes: Kubernetes, worker: Node
):
    kubernetes, name = working_kubernetes, f"moved-{secrets.token_hex(3)}"
    if sum(node.schedulable for node in kubernetes.nodes.values()) < 2:
        pytest.skip("there is no other node for the pods to go to")
    main = kube_manifests.container("exec sleep 3600", kubernetes.image)
    # Wishes to be on the node that is drained, and may be elsewhere.
    wish = {
        "weight": 100,
        "preference": {
            "matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [worker.name]}
            ]
        },
    }
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    kubernetes.create(
        kube_manifests.deployment(name, 1, kube_manifests.pod_spec(main, affinity=affinity))
    )
    kubernetes.wait_workload("Deployment", name)
    first = pods_of(kubernetes, name)[0]
    assert first.node == worker.name, f"{first} was to run on {worker.name}"
    try:
        # By its pods alone: what else runs on the node may be alone of its kind.
        done = kubernetes.kubectl(
            "drain %s --ignore-daemonsets --force --timeout=50s --pod-selector=app=%s",
            worker.name, name,
        )  # fmt: skip
        assert done.rc == 0, f"kubectl drain {worker.name}: {done.stderr.strip()}"
        assert kubernetes.nodes[worker.name].cordoned, f"{worker.name} is not cordoned"
        kubernetes.wait_workload("Deployment", name)
        moved = pods_of(kubernetes, name)[0]
        assert moved.node != worker.name, f"{moved} is on the drained node"
    finally:
        done = kubernetes.kubectl("uncordon %s", worker.name)
    assert done.rc == 0, f"kubectl uncordon {worker.name}: {done.stderr.strip()}"
    pod = kubernetes.run_pod("echo back", node=worker.name)
    assert kubernetes.wait_done(pod).phase == "Succeeded", kubernetes.evidence(pod)
    kubernetes.delete("Deployment", name, "apps/v1")


def test_a_restart_of_the_kubelet_keeps_the_pods(working_kubernetes: Kubernetes, worker: Node):
    kubernetes = working_kubernetes
    pod = kubernetes.wait_ready(kubernetes.run_pod("exec sleep 3600", node=worker.name))
    worker.host.run_expect([0], "systemctl restart kubelet")
    later = kubernetes.run_pod("echo after the restart", node=worker.name)
    assert kubernetes.wait_done(later, 180).phase == "Succeeded", kubernetes.evidence(later)
    seen = kubernetes.wait_ready(pod, 60)
    assert (seen.uid, seen.restarts, seen.ip) == (pod.uid, 0, pod.ip), (
        f"the restart of the kubelet on {worker.name} has changed the pod\n"
        + kubernetes.evidence(seen)
    )


@pytest.mark.slow
def test_a_node_comes_back_after_a_reboot_and_runs_pods(
    working_kubernetes: Kubernetes, worker: Node
):
    kubernetes, name = working_kubernetes, worker.name
    before = kubernetes.nodes[name].boot_id
    kept = kubernetes.wait_ready(
        kubernetes.run_pod("exec sleep 3600", node=name, restart="Always")
    )
    worker.host.run(
        "systemd-run --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot"
    )
    worker.reconnect()

    def boot() -> str:
        time.sleep(2)
        return worker.try_command("cat /proc/sys/kernel/random/boot_id")

    wait_until(f"{name} answers after its reboot", boot, lambda new: new not in ("", before), 300)
    # The node's entry keeps saying Ready until its silence is noticed: the boot tells them apart.
    wait_until(
        f"{name} is Ready after its reboot",
        lambda: kubernetes.nodes[name],
        lambda seen: seen.ready and seen.boot_id != before,
        240,
        evidence=lambda: kubernetes.journal(worker, "kubelet"),
    )
    pod = kubernetes.run_pod("echo $NODE_NAME", node=name)
    assert kubernetes.wait_done(pod, 180).phase == "Succeeded", kubernetes.evidence(pod)
    again = wait_until(
        f"pod '{kept.name}' runs again on {name}",
        lambda: kubernetes.pod(kept),
        lambda seen: seen.ready and seen.restarts > 0,
        180,
        evidence=lambda: kubernetes.evidence(kept),
    )
    assert again.uid == kept.uid, f"{again} is another pod than before"
