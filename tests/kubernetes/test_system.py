"""What Kubernetes brings to run itself: pods of the system, the cluster's DNS."""

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Kubernetes, wait_until
from deepops_fixtures.checks.kubernetes import ALL

pytestmark = pytest.mark.kubernetes


@pytest.mark.parametrize("kind", ["DaemonSet", "Deployment", "StatefulSet"])
def test_every_workload_of_the_system_has_its_pods(answering_kubernetes: Kubernetes, kind: str):
    found = wait_until(
        f"every {kind} of kube-system has its pods",
        lambda: answering_kubernetes.workloads(kind, "kube-system"),
        lambda seen: all(each.ready >= each.wanted for each in seen),
        # One that is being rolled out now is given its time, no more.
        15,
        evidence=lambda: "\n".join(
            answering_kubernetes.evidence(pod)
            for pod in answering_kubernetes.pods("kube-system")
            if not pod.ready and not pod.done
        ),
    )
    if not found:
        pytest.skip(f"kube-system has no {kind}")


def test_no_pod_of_the_cluster_crashes_or_lacks_its_image(answering_kubernetes: Kubernetes):
    bad = [
        pod
        for pod in answering_kubernetes.pods(ALL)
        if pod.hopeless and not pod.namespace.startswith("deepops-check-")
    ]
    evidence = [answering_kubernetes.evidence(pod) for pod in bad[:3]]
    assert not bad, "\n".join(["; ".join(map(str, bad)), *evidence])


def test_the_clusters_dns_runs_and_has_a_service(answering_kubernetes: Kubernetes):
    pods = answering_kubernetes.pods("kube-system", facts.KUBE_DNS_LABELS)
    assert pods, f"kube-system has no pod with the label {facts.KUBE_DNS_LABELS}"
    evidence = [answering_kubernetes.evidence(pod) for pod in pods if not pod.ready]
    assert any(pod.ready for pod in pods), "\n".join(["no DNS pod is ready", *evidence])
    services = [
        item["metadata"]["name"]
        for item in answering_kubernetes.get("/api/v1/namespaces/kube-system/services")["items"]
        if any(port["port"] == 53 for port in item["spec"].get("ports") or ())
    ]
    assert services, "kube-system has no Service for port 53"
    empty = [name for name in services if not _addresses(answering_kubernetes, name)]
    assert not empty, f"no DNS pod stands behind Service kube-system/{', '.join(empty)}"


def _addresses(kubernetes: Kubernetes, service: str) -> list[str]:
    """Return the addresses of the pods behind a Service of kube-system."""
    data = kubernetes.get(f"/api/v1/namespaces/kube-system/endpoints/{service}")
    return [
        address["ip"]
        for subset in data.get("subsets") or ()
        for address in subset.get("addresses") or ()
    ]
