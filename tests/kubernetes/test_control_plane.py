"""The control plane: API server, etcd, scheduler, controller manager, and their certificates."""

import re
import secrets

import pytest

from deepops_fixtures.checks import ApiRefused, Kubernetes, kube_certificates, kube_obstacles
from deepops_fixtures.checks.kube_certificates import DAYS
from deepops_fixtures.checks.kube_data import version_numbers
from deepops_fixtures.checks.kube_etcd import Etcd
from deepops_fixtures.cluster.running import Node

pytestmark = pytest.mark.kubernetes


def test_the_api_server_answers(kubernetes: Kubernetes):
    assert kubernetes.nodes, f"the API server at {kubernetes.api.server} knows no node at all"
    kubernetes.get("/api/v1/namespaces/kube-system")


@pytest.mark.parametrize("probe", ["livez", "readyz"])
def test_every_part_of_the_api_server_is_well(answering_kubernetes: Kubernetes, probe: str):
    try:
        said = answering_kubernetes.api.text(f"/{probe}", verbose="true")
    except ApiRefused as error:
        if error.status != 404:
            pytest.fail(f"{probe} of the API server: {error.said}", pytrace=False)
        # Before 1.16.
        said = answering_kubernetes.api.text("/healthz", verbose="true")
    bad = re.findall(r"^\[-\].*", said, re.MULTILINE)
    assert not bad, f"{probe} of the API server says: {'; '.join(bad)}"
    assert re.search(r"check passed|^ok$", said, re.MULTILINE), said


def test_the_scheduler_and_the_controller_manager_run(answering_kubernetes: Kubernetes):
    found = kube_obstacles.managers(answering_kubernetes)
    evidence = [
        answering_kubernetes.journal(answering_kubernetes.plane, unit)
        for unit in ("kube-scheduler", "kube-controller-manager")
        if any(unit in text for text in found)
    ]
    assert not found, "\n".join(["; ".join(found), *evidence])


def test_kubectl_on_the_control_plane_and_the_api_know_the_same_nodes(
    answering_kubernetes: Kubernetes,
):
    done = answering_kubernetes.kubectl("get nodes -o name")
    where = answering_kubernetes.plane.name
    assert done.rc == 0, f"kubectl on {where}: {done.stderr.strip() or done.stdout.strip()}"
    told = {line.removeprefix("node/") for line in done.stdout.split()}
    assert told == set(answering_kubernetes.nodes), f"kubectl on {where} knows {sorted(told)}"


def test_the_kubelets_are_not_older_than_the_api_server_supports(answering_kubernetes: Kubernetes):
    api = version_numbers(answering_kubernetes.version)
    # https://kubernetes.io/releases/version-skew-policy: three minor versions since 1.28.
    oldest = (api[0], api[1] - (3 if api >= (1, 28) else 2))
    odd = {
        node.name: node.version
        for node in answering_kubernetes.nodes.values()
        if not oldest <= version_numbers(node.version) <= api
    }
    assert not odd, f"the API server is {answering_kubernetes.version}, kubelets are {odd}"


@pytest.mark.nodes("etcd")
def test_etcd_of_the_node_is_healthy(node: Node, kubernetes: Kubernetes):
    why = Etcd(node).why_unhealthy()
    assert not why, f"etcd on {node.name} is not healthy: {why}\n" + kubernetes.journal(
        node, "etcd"
    )


@pytest.mark.nodes("etcd")
def test_etcd_of_the_node_keeps_what_is_written(node: Node, kubernetes: Kubernetes):
    etcd, key = Etcd(node), f"/deepops-check/{secrets.token_hex(8)}"
    # One after the other in one command: each program takes long to start on an emulated node.
    done = etcd.run(f"put {key} kept", f"get {key} --print-value-only", f"del {key}")
    if done.rc != 0 and etcd.run("endpoint health").rc != 0:
        pytest.skip(f"etcd on {node.name} is not healthy")
    assert done.stdout.split() == ["OK", "kept", "1"], (
        f"etcd on {node.name} was to keep and forget a key and said: "
        f"{done.stdout.strip()} {done.stderr.strip()}"
    )


@pytest.mark.nodes("kube_control_plane", "kube_node", "etcd")
def test_no_certificate_of_the_node_expires_within_a_week(node: Node):
    found = kube_certificates.read(node)
    assert found, f"{node.name} has no certificate of Kubernetes in any place that is known"
    short = [str(each) for each in found if each.days_left < DAYS]
    assert not short, f"{node.name}: {'; '.join(short)}"
    early = [str(each) for each in found if not each.has_begun]
    assert not early, f"{node.name}: not valid yet: {'; '.join(early)}"


@pytest.mark.nodes("kube_control_plane", "kube_node", "etcd")
def test_the_certificates_of_the_node_are_of_this_cluster(node: Node, kubernetes: Kubernetes):
    authorities = [each for each in kube_certificates.read(kubernetes.plane) if each.authority]
    if not authorities:
        pytest.skip(f"{kubernetes.plane.name} shows no certificate authority")
    foreign = [
        str(each) for each in kube_certificates.read(node) if not each.belongs_to(authorities)
    ]
    assert not foreign, (
        f"{node.name} has certificates that no authority of {kubernetes.plane.name} has issued: "
        + "; ".join(foreign)
    )
