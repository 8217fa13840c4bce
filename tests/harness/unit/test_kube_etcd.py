"""Why an etcd member is not healthy, from what a node says."""

import pytest

from deepops_fixtures.checks.kube_etcd import Etcd

LOG = '{"level":"warn","msg":"retrying of unary invoker failed"}\n'
DEAD = f"{LOG}https://127.0.0.1:2379 is unhealthy: context deadline exceeded\nError: unhealthy\n"


class Said:
    def __init__(self, rc: int, stdout: str = "", stderr: str = "") -> None:
        self.rc, self.stdout, self.stderr = rc, stdout, stderr


class Machine:
    """A node whose commands answer from a table: a word of the command → result."""

    def __init__(self, **answers: Said) -> None:
        self.answers = answers
        self.host = self

    def run(self, command: str, *words: str) -> Said:
        text = " ".join([command, *words])
        return next(said for word, said in self.answers.items() if word in text)


@pytest.mark.parametrize(
    ("health", "unit", "why"),
    [
        (Said(0), "loaded\nactive\n", ""),
        (
            Said(1, stderr=DEAD), "loaded\ninactive\n",
            (
                "etcd.service is inactive; https://127.0.0.1:2379 is unhealthy: context deadline "
                "exceeded; Error: unhealthy"
            ),
        ),
        (Said(1, stderr="Error: unhealthy"), "loaded\nactive\n", "Error: unhealthy"),
        # kubeadm runs it in a pod.
        (Said(1, stderr="Error: unhealthy"), "not-found\ninactive\n", "Error: unhealthy"),
        (Said(127, stderr="etcdctl is not installed"), "not-found\ninactive\n",
         "etcdctl is not installed"),
    ],
)  # fmt: skip
def test_an_unhealthy_member_says_why(health, unit, why):
    node = Machine(etcdctl=health, systemctl=Said(0, unit))
    assert Etcd(node).why_unhealthy() == why
