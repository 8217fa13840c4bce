"""Volumes: where the cluster has a default StorageClass, a claim gets one and keeps what is
written."""

import secrets

import pytest

from deepops_fixtures.checks import Kubernetes

pytestmark = pytest.mark.kubernetes

_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


@pytest.fixture
def default_class(answering_kubernetes: Kubernetes) -> str:
    """The name of the default StorageClass; a cluster without one skips."""
    items = answering_kubernetes.get("/apis/storage.k8s.io/v1/storageclasses")["items"]
    names = [
        item["metadata"]["name"]
        for item in items
        if any((item["metadata"].get("annotations") or {}).get(key) == "true" for key in _DEFAULT)
    ]
    if not names:
        pytest.skip("the cluster has no default StorageClass")
    assert len(names) == 1, f"the cluster has several default StorageClasses: {sorted(names)}"
    return names[0]


def test_a_claim_gets_a_volume_that_keeps_what_is_written(
    default_class: str, working_kubernetes: Kubernetes
):
    kubernetes, name, word = (
        working_kubernetes, f"claim-{secrets.token_hex(3)}", secrets.token_hex(8),
    )  # fmt: skip
    kubernetes.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}},
            },
        }
    )
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
    try:
        for command, expected in (
            (f"echo {word} >/data/word; sync", ""),
            ("cat /data/word", word),
        ):
            pod = kubernetes.run_pod(command, mounts={"/data": "data"}, volumes=volumes)
            seen = kubernetes.wait_done(pod, 180)
            assert seen.phase == "Succeeded", (
                f"a pod with a volume of StorageClass '{default_class}': {seen}\n"
                + "\n".join(map(str, kubernetes.events(name)))
                + kubernetes.evidence(seen)
            )
            assert kubernetes.logs(seen) == expected, f"{seen} did not read what was written"
            kubernetes.delete("Pod", pod.name)
    finally:
        kubernetes.delete("PersistentVolumeClaim", name)
