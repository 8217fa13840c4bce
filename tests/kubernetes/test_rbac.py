"""Who may do what: roles give what they say and no more, strangers get nothing, a node has power
over itself alone."""

import secrets

import pytest

from deepops_fixtures.checks import ApiRefused, Kubernetes, kube_manifests, wait_until
from deepops_fixtures.cluster.running import Node

pytestmark = pytest.mark.kubernetes


def may(kubernetes: Kubernetes, user: str, verb: str, resource: str, namespace: str = "") -> bool:
    """Return whether the API server lets a user do something (SubjectAccessReview)."""
    asked = {"verb": verb, "resource": resource, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": asked,
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(kubernetes.api.post(path, review)["status"].get("allowed"))


@pytest.fixture
def account(answering_kubernetes: Kubernetes) -> str:
    """The name of a fresh ServiceAccount in our own namespace."""
    name = f"account-{secrets.token_hex(3)}"
    answering_kubernetes.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    )
    return name


def test_a_new_service_account_may_read_no_secrets_and_change_no_roles(
    answering_kubernetes: Kubernetes, account: str
):
    user = f"system:serviceaccount:{answering_kubernetes.namespace}:{account}"
    too_much = [
        f"{verb} {resource}"
        for verb, resource in (
            ("list", "secrets"), ("get", "pods"), ("create", "pods"), ("delete", "nodes"),
        )
        if may(answering_kubernetes, user, verb, resource)
    ]  # fmt: skip
    assert not too_much, f"{user}, which no role was given, may {', '.join(too_much)}"


def test_a_role_gives_what_it_says_and_no_more(answering_kubernetes: Kubernetes, account: str):
    kubernetes, group = answering_kubernetes, "rbac.authorization.k8s.io"
    name, ours = f"reader-{secrets.token_hex(3)}", answering_kubernetes.namespace
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    kubernetes.create(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}
    )
    kubernetes.create(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": ours}],
        }
    )
    user = f"system:serviceaccount:{ours}:{account}"
    # kube-apiserver's authorizer hears of a new binding by a watch, a moment after it was made.
    wait_until(
        f"{account} may list configmaps, which a role gives it",
        lambda: "yes" if may(kubernetes, user, "list", "configmaps", ours) else "no",
        lambda seen: seen == "yes",
        20,
    )
    too_much = [
        f"{verb} {resource} in {where}"
        for verb, resource, where in (
            ("list", "configmaps", "kube-system"), ("delete", "configmaps", ours),
            ("list", "secrets", ours),
        )
        if may(kubernetes, user, verb, resource, where)
    ]  # fmt: skip
    assert not too_much, f"a role that gives 'list configmaps in {ours}' gives {too_much} too"


@pytest.mark.parametrize("path", ["/api/v1/secrets", "/api/v1/nodes"])
def test_a_stranger_is_turned_away(answering_kubernetes: Kubernetes, path: str):
    try:
        answering_kubernetes.api.request("GET", path, anonymous=True)
    except ApiRefused as error:
        assert error.status in (401, 403), error
        return
    pytest.fail(f"{path} is shown to whoever asks, without certificate or token", pytrace=False)


@pytest.mark.nodes("kube_control_plane", "kube_node")
def test_the_kubelet_of_the_node_has_power_over_its_own_node_alone(
    node: Node, answering_kubernetes: Kubernetes
):
    known = answering_kubernetes.nodes
    others = sorted(set(known) - {node.name})
    if node.name not in known or not others:
        pytest.skip(f"the API does not know {node.name}, or no node but it")
    refused = as_kubelet(answering_kubernetes, node.name, about=node.name)
    assert not refused, f"the kubelet of {node.name} may not label its own node: {refused}"
    refused = as_kubelet(answering_kubernetes, node.name, about=others[0])
    assert refused, f"the kubelet of {node.name} may change {others[0]} too (NodeRestriction)"
    assert "not allowed to modify" in refused or "forbidden" in refused, refused


def as_kubelet(kubernetes: Kubernetes, name: str, *, about: str) -> str:
    """Have the API server judge a change of a node as its kubelet or another's would ask for it,
    and throw it away (dry run); return why it is refused, '' when it is not."""
    try:
        kubernetes.api.request(
            "PATCH",
            f"/api/v1/nodes/{about}",
            {"metadata": {"labels": {"deepops-check": "tried"}}},
            params={"dryRun": "All"},
            content="application/merge-patch+json",
            headers={
                "Impersonate-User": f"system:node:{name}", "Impersonate-Group": "system:nodes",
            },
        )  # fmt: skip
    except ApiRefused as error:
        return error.said
    return ""


def test_our_own_labels_are_on_the_namespace_of_the_checks(answering_kubernetes: Kubernetes):
    # By them a later run finds what a killed one has left.
    path = f"/api/v1/namespaces/{answering_kubernetes.namespace}"
    labels = answering_kubernetes.get(path)["metadata"]["labels"]
    assert labels.items() >= kube_manifests.LABELS.items(), labels
