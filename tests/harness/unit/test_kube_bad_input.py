"""A Kubernetes that cannot be asked, or that is another one: each is told in one sentence with
what to type next, soon, and never passes."""

import time

import pytest

from deepops_fixtures.checks import kube_api, kube_obstacles, kube_silence
from deepops_fixtures.checks.kube_api import ApiRefused, ApiSilent
from deepops_fixtures.checks.kubernetes import Kubernetes
from tests.harness.unit import kube_documents as documents
from tests.harness.unit.test_kubernetes_checks import HEALTHY, Cluster


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """Two nodes on paper, and a real API server of their authority that knows neither yet."""
    made = Cluster(tmp_path, documents.Server(0), monkeypatch)
    with documents.serving(tmp_path, made.authority) as real:
        made.server, made.address = real, f"https://127.0.0.1:{real.port}"
        made.items("/api/v1/nodes")
        made.items("/api/v1/pods")
        real.answers["/api/v1/namespaces/kube-system"] = (200, {"kind": "Namespace"})
        made.conf = documents.kubeconfig(made.address, made.authority, made.client)
        yield made


def told(cluster: Cluster) -> str:
    """Return the sentence that the first check fails with; the others skip with the same."""
    kubernetes = Kubernetes(cluster.nodes, cluster.folder)
    begin = time.monotonic()
    with pytest.raises((ApiSilent, ApiRefused)) as error:
        _ = kubernetes.nodes
    assert time.monotonic() - begin < 20
    sentence, _, rest = str(error.value).partition("\n")
    assert rest.startswith("Next: ssh -F ")
    assert kube_obstacles.all_obstacles(kubernetes) == [sentence]
    return sentence


@pytest.mark.parametrize(
    ("line", "named"),
    [("server: ''", ""), ("", ""), ("server: http://127.0.0.1:8080", "http://127.0.0.1:8080")],
    ids=["empty", "none", "without TLS"],
)
def test_a_kubeconfig_without_a_server_is_refused(bad, line, named):
    bad.conf = bad.conf.replace(f"server: {bad.address}", line)
    assert told(bad) == (f"The kubeconfig of 'virtual-mgmt' names no https server, but '{named}'.")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text.replace("current-context: x", "current-context: y"), "with name y"),
        (lambda text: text.replace("clusters:", "clusters: ["), "cannot be used: "),
    ],
    ids=["no such context", "no YAML"],
)
def test_a_damaged_kubeconfig_is_refused(bad, damage, why):
    bad.conf = damage(bad.conf)
    sentence = told(bad)
    assert sentence.startswith("The kubeconfig of 'virtual-mgmt' cannot be used: ")
    assert why in sentence


def test_a_server_that_ends_the_handshake_over_an_expired_certificate_is_understood(bad):
    expired = bad.authority.issue("admin", days=-1)
    bad.conf = documents.kubeconfig(bad.address, bad.authority, expired)
    sentence = told(bad)
    assert "does not take the client certificate of /etc/kubernetes/admin.conf" in sentence
    assert "the client certificate of the kubeconfig has expired on " in sentence


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired", True),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", True),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", True),
        ("[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error", False),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", False),
    ],
)
def test_a_server_that_does_not_take_our_certificate_says_so_by_an_alert(text, ours):
    assert kube_silence.refuses_us(text) is ours


def test_an_expired_token_is_told(bad):
    bad.server.answers["/api/v1/nodes"] = (401, documents.UNAUTHORIZED)
    assert "of another cluster, or its credentials have expired or were withdrawn" in told(bad)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("certificate verify failed: certificate has expired", "its certificate has expired"),
        (
            "certificate verify failed: certificate is not yet valid",
            "its certificate is not valid yet, by the clock of this host",
        ),
        (
            "certificate verify failed: IP address mismatch, certificate is not valid for '::1'.",
            (
                "its certificate is for other names (certificate verify failed: IP address "
                "mismatch, certificate is not valid for '::1'.)"
            ),
        ),
        (
            "certificate verify failed: unable to get local issuer certificate",
            (
                "/etc/kubernetes/admin.conf is of another cluster (certificate verify failed: "
                "unable to get local issuer certificate)"
            ),
        ),
    ],
    ids=["expired", "not yet", "other names", "other authority"],
)
def test_what_is_wrong_with_the_servers_certificate_is_told_apart(text, said):
    shown = f"SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] {text} (_ssl.c:1006)')"
    assert kube_silence.is_distrusted(shown)
    assert kube_silence.distrust(shown) == said


# -- no way there ---------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Return a function that puts an ssh of this behaviour on PATH, for an API that is not reached
    from here."""

    def install(script: str) -> None:
        program = tmp_path / "bin" / "ssh"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        monkeypatch.setattr(kube_api, "reachable", lambda *_: False)

    return install


def silence(api: kube_api.KubeApi) -> tuple[str, float]:
    """Return what a request fails with, and after how many seconds."""
    begin = time.monotonic()
    with pytest.raises(ApiSilent) as error:
        api.get("/api/v1/nodes")
    return str(error.value), time.monotonic() - begin


def test_a_way_through_ssh_that_ends_at_once_is_told_with_sshs_words(bad, ssh):
    ssh("echo 'virtual-mgmt: Permission denied (publickey).' >&2; exit 255")
    said, _ = silence(bad.api)
    assert said.startswith(
        f"The API server at 127.0.0.1:{bad.server.port} is reached neither from here nor through "
        "'virtual-mgmt': virtual-mgmt: Permission denied (publickey).\nNext: ssh -v -F "
    )
    kubernetes = Kubernetes(bad.nodes, bad.folder)
    assert kube_obstacles.all_obstacles(kubernetes) == [said.splitlines()[0]]


def test_a_way_through_ssh_that_leads_nowhere_is_waited_for_once(bad, ssh, monkeypatch):
    ssh("exec sleep 30")
    monkeypatch.setattr(kube_api, "READ", 1.2)
    monkeypatch.setattr(kube_api, "IMPATIENT", 0.2)
    api = bad.api
    said, first = silence(api)
    assert "no answer within 1 s" in said
    assert first > 1.2
    assert silence(api)[1] < 1.2


# -- a node that is missing -----------------------------------------------------------------


def missing(cluster: Cluster, *known: dict, kubelet: str = HEALTHY) -> str:
    """Return why virtual-gpu01 is not in the API, which knows these nodes."""
    cluster.items("/api/v1/nodes", *known)
    cluster.shells["virtual-gpu01"].said["for unit in kubelet"] = kubelet
    kubernetes = Kubernetes(cluster.nodes, cluster.folder)
    assert "virtual-gpu01: it is not in the API" in kube_obstacles.all_obstacles(kubernetes)
    said = kube_obstacles.why_missing(kubernetes, cluster.nodes["virtual-gpu01"])
    sentence, _, command = said.partition("\nNext: ")
    assert command.startswith(f"ssh -F {cluster.folder / 'ssh_config'} ")
    return sentence


@pytest.mark.parametrize(
    ("kubelet", "state"),
    [
        (HEALTHY, "active"),
        (HEALTHY.replace("kubelet=active", "kubelet=failed"), "failed"),
        ("kubelet=inactive/not-found", "no unit that systemd knows"),
    ],
)
def test_a_node_that_never_joined_is_told_with_the_state_of_its_kubelet(bad, kubelet, state):
    assert missing(bad, documents.node("virtual-mgmt"), kubelet=kubelet) == (
        f"'virtual-gpu01' never joined: the API knows virtual-mgmt; its kubelet is {state}."
    )


def test_a_node_that_joined_under_another_name_is_told_by_it(bad):
    known = documents.node("virtual-mgmt"), documents.node("virtual-gpu01.cluster.example")
    assert missing(bad, *known).startswith(
        "The API knows 'virtual-gpu01' as 'virtual-gpu01.cluster.example': the inventory and its "
    )


@pytest.mark.parametrize(
    ("known", "names"), [([], "no node at all"), (["other01", "other02"], "other01, other02")]
)
def test_an_api_that_knows_none_of_the_nodes_is_of_another_cluster(bad, known, names):
    assert missing(bad, *map(documents.node, known)) == (
        f"The API at {bad.address} knows {names}, and none of the inventory's nodes: "
        "/etc/kubernetes/admin.conf of 'virtual-mgmt' is of another cluster, or no kubelet has "
        "ever joined."
    )
