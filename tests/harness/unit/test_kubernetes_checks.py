"""How the checks reach a Kubernetes API, and what they say when they cannot; the server is one on
the loopback with real TLS, the nodes are stand-ins."""

import socket
import threading
from pathlib import Path

import pytest

from deepops_fixtures.checks import kube_api, kube_obstacles
from deepops_fixtures.checks.kube_api import ApiRefused, ApiSilent, KubeApi
from deepops_fixtures.checks.kube_certificates import parse_all
from deepops_fixtures.checks.kube_networks import covers, node_routes, service_networks
from deepops_fixtures.checks.kube_obstacles import Machine
from deepops_fixtures.checks.kube_web import WebServers
from deepops_fixtures.checks.kubernetes import Kubernetes
from deepops_fixtures.cluster.running import Node, NodeData, Nodes, RunningCluster
from deepops_fixtures.errors import CheckFailed
from tests.harness.unit import kube_documents as documents

HEALTHY = "kubelet=active/loaded containerd=active/loaded kube-proxy=active/loaded cni=/c/1.conf"
MANAGERS = "kube-scheduler=active/loaded kube-controller-manager=active/loaded"


class Shell:
    """The host of a stand-in node: part of a command → what it writes."""

    def __init__(self, said: dict[str, str]) -> None:
        self.said = said

    def run(self, command: str, *arguments: str) -> object:
        text = " ".join([command, *arguments])
        out = next((told for part, told in self.said.items() if part in text), "")
        return type("Result", (), {"rc": 0, "stdout": out, "stderr": ""})

    def check_output(self, command: str, *arguments: str) -> str:
        return str(self.run(command, *arguments).stdout)


class Cluster:
    """Two nodes of Kubernetes on paper, and an API server that is real."""

    def __init__(self, folder: Path, server: documents.Server, monkeypatch) -> None:
        self.folder, self.server = folder, server
        self.authority = documents.Authority()
        self.client = self.authority.issue("admin")
        self.address = f"https://127.0.0.1:{server.port}"
        self.conf = documents.kubeconfig(self.address, self.authority, self.client)
        self.state = "inactive\netcd is active\nkube-apiserver: bind: address already in use\n"
        self.scripts: list[str] = []
        self.shells = {
            name: Shell({"for unit in kube-scheduler": MANAGERS, "for unit in kubelet": HEALTHY})
            for name in ("virtual-mgmt", "virtual-gpu01")
        }
        monkeypatch.setattr(Node, "run_script", lambda _, script, __: self._script(script))
        monkeypatch.setattr(Node, "host", property(lambda node: self.shells[node.name]))
        data = [
            NodeData(name="virtual-mgmt", groups=["kube_control_plane", "kube_node"]),
            NodeData(name="virtual-gpu01", groups=["kube_node"]),
        ]
        self.nodes = Nodes(
            RunningCluster(
                name="one", provider="inventory", nodes=data, inventory=Path("/nowhere"),
                ssh_config=folder / "ssh_config",
            )
        )  # fmt: skip

    def _script(self, script: str) -> str:
        self.scripts.append(script)
        if "-----kubeconfig-----" in script:
            return f"-----kubeconfig-----\n{self.conf}\n-----end-----\n"
        return self.state

    @property
    def api(self) -> KubeApi:
        return KubeApi(self.nodes, self.folder)

    def items(self, path: str, *items: object) -> None:
        """Have the API answer a list."""
        self.server.answers[path] = (200, {"items": list(items)})


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster whose API server is of its own authority."""
    server = documents.Server(0)
    made = Cluster(tmp_path, server, monkeypatch)
    with documents.serving(tmp_path, made.authority) as real:
        server.port = real.port
        made.server, made.address = real, f"https://127.0.0.1:{real.port}"
        made.conf = documents.kubeconfig(made.address, made.authority, made.client)
        yield made


@pytest.fixture
def kube(cluster) -> Kubernetes:
    """Kubernetes with two nodes that are fit for pods."""
    cluster.items("/api/v1/nodes", documents.node("virtual-mgmt"), documents.node("virtual-gpu01"))
    cluster.items("/api/v1/pods")
    cluster.server.answers["/api/v1/namespaces/kube-system"] = (200, {"kind": "Namespace"})
    return Kubernetes(cluster.nodes, cluster.folder)


def test_the_kubeconfig_is_read_once_a_run_and_private(cluster):
    path = cluster.api.kubeconfig
    assert path.stat().st_mode & 0o777 == 0o600
    assert cluster.api.kubeconfig == path == cluster.folder / "kubeconfig"
    assert len(cluster.scripts) == 1
    assert not list(cluster.folder.glob("*.part"))


def test_a_node_without_a_kubeconfig_is_named(cluster):
    cluster.conf = "cat: /etc/kubernetes/admin.conf: No such file or directory"
    with pytest.raises(ApiSilent, match=r"'virtual-mgmt' has no kubeconfig /etc/kubernetes/ad"):
        cluster.api.get("/api/v1/nodes")
    assert not (cluster.folder / "kubeconfig").exists()


def test_a_kubeconfig_that_cannot_be_read_is_named(cluster):
    cluster.conf = "clusters: [{name: c}"
    with pytest.raises(ApiSilent, match=r"The kubeconfig of 'virtual-mgmt' cannot be used"):
        cluster.api.get("/api/v1/nodes")


def test_the_api_is_asked_with_the_administrators_certificate(cluster):
    cluster.items("/api/v1/nodes", documents.NODE)
    assert cluster.api.items("/api/v1/nodes")[0]["metadata"]["name"] == "virtual-mgmt"
    assert cluster.server.asked == [("GET", "/api/v1/nodes", True)]


def test_a_stranger_shows_no_certificate_and_is_refused_with_the_servers_words(cluster):
    cluster.server.answers["/api/v1/secrets"] = (403, documents.FORBIDDEN)
    with pytest.raises(ApiRefused, match="status 403: secrets is forbidden") as caught:
        cluster.api.request("GET", "/api/v1/secrets", anonymous=True)
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    assert cluster.server.asked == [("GET", "/api/v1/secrets", False)]


def test_a_refused_connection_names_the_server_the_cause_and_the_state_of_its_unit(
    cluster, monkeypatch
):
    # What is not there is not looked for through the control plane.
    monkeypatch.setattr(kube_api, "reachable", lambda *_: True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster.conf = documents.kubeconfig(
        f"https://127.0.0.1:{port}", cluster.authority, cluster.client
    )
    with pytest.raises(ApiSilent) as caught:
        cluster.api.get("/api/v1/nodes")
    said = str(caught.value).splitlines()
    assert said[0] == (
        f"The API server on 'virtual-mgmt' does not answer at https://127.0.0.1:{port}: "
        "connection refused; kube-apiserver is inactive there."
    )
    assert said[1].startswith("Next: ssh -F ")
    assert said[-1] == "kube-apiserver: bind: address already in use"


def test_a_server_that_does_not_answer_is_given_up_and_less_time_the_next_time(
    cluster, monkeypatch
):
    monkeypatch.setattr(kube_api, "READ", 0.5)
    monkeypatch.setattr(kube_api, "IMPATIENT", 0.1)
    cluster.server.silent = threading.Event()
    api = cluster.api
    for patience in (0.1, 0.1):
        with pytest.raises(ApiSilent, match="takes the connection and does not answer in time"):
            api.get("/api/v1/nodes")
        assert api._patience == patience
    cluster.server.silent = None
    cluster.items("/api/v1/nodes")
    assert api.items("/api/v1/nodes") == []
    assert api._patience == 0.5


def test_a_kubeconfig_of_another_cluster_is_told_by_the_servers_certificate(cluster):
    other = documents.Authority()
    cluster.conf = documents.kubeconfig(cluster.address, other, other.issue("admin"))
    with pytest.raises(ApiSilent, match=r"admin.conf is of another cluster \(certificate verif"):
        cluster.api.get("/api/v1/nodes")


def test_an_expired_certificate_of_the_server_is_told(cluster, tmp_path):
    folder = tmp_path / "expired"
    folder.mkdir()
    with documents.serving(folder, cluster.authority, days=-1) as server:
        cluster.conf = documents.kubeconfig(
            f"https://127.0.0.1:{server.port}", cluster.authority, cluster.client
        )
        with pytest.raises(ApiSilent, match=r"cannot be trusted at .*: its certificate has expir"):
            cluster.api.get("/api/v1/nodes")


def test_an_expired_client_certificate_is_told_with_its_date(cluster):
    # The stand-in would end the handshake over it; kube-apiserver answers with 401.
    valid = cluster.client
    cluster.server.answers["/api/v1/nodes"] = (401, documents.UNAUTHORIZED)
    api = cluster.api
    expired = cluster.folder / "expired.crt"
    expired.write_text(cluster.authority.issue("admin", days=-1)[0])
    with pytest.raises(ApiRefused, match="status 401: Unauthorized; the kubeconfig is of anoth"):
        api.get("/api/v1/nodes")
    assert valid == cluster.client
    api._client.configuration.cert_file = str(expired)
    with pytest.raises(ApiRefused, match="client certificate of the kubeconfig has expired on "):
        api.get("/api/v1/nodes")


def test_nothing_stands_in_the_way_of_pods_on_healthy_nodes(kube):
    assert kube_obstacles.all_obstacles(kube) == []


def test_a_stopped_kubelet_is_an_obstacle_before_the_api_has_noticed(cluster, kube):
    cluster.shells["virtual-gpu01"].said["for unit in kubelet"] = HEALTHY.replace(
        "kubelet=active", "kubelet=inactive"
    )
    assert kube_obstacles.all_obstacles(kube) == ["virtual-gpu01: kubelet does not run"]


@pytest.mark.parametrize(
    ("said", "faults"),
    [
        (HEALTHY, []),
        (HEALTHY.replace(" cni=/c/1.conf", ""), ["no CNI configuration in /etc/cni/net.d"]),
        (HEALTHY.replace("kube-proxy=active", "kube-proxy=failed"), ["kube-proxy does not run"]),
        # Where a DaemonSet brings it there is no unit.
        (HEALTHY.replace("kube-proxy=active/loaded", "kube-proxy=inactive/not-found"), []),
        (HEALTHY.replace("containerd=active", "containerd=failed"), ["containerd does not run"]),
    ],
)
def test_a_machine_says_what_keeps_pods_from_it(cluster, said, faults):
    cluster.shells["virtual-mgmt"].said["for unit in kubelet"] = said
    assert Machine.look(cluster.nodes["virtual-mgmt"]).faults == faults


def test_a_cordon_a_taint_and_a_missing_node_are_obstacles(cluster, kube):
    taint = {"key": "maintenance", "effect": "NoExecute", "timeAdded": "2026-11-25T07:21:46Z"}
    cluster.items(
        "/api/v1/nodes", documents.node("virtual-mgmt", unschedulable=True, taints=[taint])
    )
    assert kube_obstacles.all_obstacles(kube) == [
        "virtual-mgmt: it is cordoned",
        "virtual-mgmt: it has the taint maintenance:NoExecute since 2026-11-25T07:21:46Z",
        "virtual-gpu01: it is not in the API",
    ]


def test_a_dead_scheduler_is_an_obstacle(cluster, kube):
    cluster.shells["virtual-mgmt"].said["for unit in kube-scheduler"] = MANAGERS.replace(
        "kube-scheduler=active", "kube-scheduler=failed"
    )
    assert kube_obstacles.all_obstacles(kube) == ["virtual-mgmt: kube-scheduler is failed"]


def test_a_server_whose_etcd_is_gone_is_an_obstacle(cluster, kube):
    cluster.server.answers["/api/v1/namespaces/kube-system"] = (
        500, {"message": "etcdserver: request timed out"},
    )  # fmt: skip
    (found,) = kube_obstacles.all_obstacles(kube)
    assert found.endswith("with status 500: etcdserver: request timed out")


def test_a_pod_whose_image_cannot_be_had_is_not_waited_for(cluster, kube):
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    data = documents.pod(phase="Pending", state=state)
    cluster.server.answers["/api/v1/namespaces/n/pods/p"] = (200, data)
    cluster.items("/api/v1/namespaces/n/events", documents.EVENT)
    pod = kubernetes_pod(data)
    with pytest.raises(CheckFailed, match=r"ImagePullBackOff.*and will not become ready") as told:
        kube.wait_ready(pod, 5)
    assert "--- journal of kubelet on virtual-gpu01 ---" in str(told.value)


def kubernetes_pod(data: dict) -> object:
    from deepops_fixtures.checks import Pod

    return Pod.parse(data)


def test_the_namespace_is_deleted_at_the_end_and_what_dead_runs_left_at_the_begin(cluster, kube):
    stale = {"metadata": {"name": "deepops-check-0", "creationTimestamp": "2020-01-01T00:00:00Z"}}
    recent = {"metadata": {"name": "deepops-check-1", "creationTimestamp": "2999-01-01T00:00:00Z"}}
    cluster.items("/api/v1/namespaces", stale, recent)
    answers = cluster.server.answers
    answers["/api/v1/namespaces/deepops-check-0"] = (200, {})
    made = kubernetes_namespace(cluster, kube)
    deleted = [path for method, path, _ in cluster.server.asked if method == "DELETE"]
    assert [path.split("?")[0] for path in deleted] == ["/api/v1/namespaces/deepops-check-0"]
    kube.close()
    last = cluster.server.asked[-1]
    assert last[:2] == ("DELETE", f"/api/v1/namespaces/{made}?propagationPolicy=Background")


def kubernetes_namespace(cluster: Cluster, kube: Kubernetes) -> str:
    """Return the namespace that is made, the API giving it its service account."""
    answers = cluster.server.answers

    class Answers(dict):
        def get(self, path: str, otherwise: object) -> object:
            if path.endswith("/serviceaccounts"):
                return 200, {"items": [{"metadata": {"name": "default"}}]}
            return answers.get(path, otherwise)

    cluster.server.answers = Answers()
    return kube.namespace


def test_certificates_are_judged_by_who_issued_them_and_until_when():
    ours, other = documents.Authority(), documents.Authority()
    good, foreign = ours.issue("kubelet", 30), other.issue("kubelet", 30)
    short = ours.issue("kubelet", 1)
    text = (
        f"file /pki/ca.crt\n{ours.pem}file /pki/good.crt\n{good[0]}"
        f"file /pki/foreign.crt\n{foreign[0]}file /pki/short.crt\n{short[0]}"
        f"file /pki/foreign-ca.crt\n{other.pem}"
    )
    found = {each.path: each for each in parse_all(text)}
    authorities = [found["/pki/ca.crt"]]
    assert [path for path, each in found.items() if not each.belongs_to(authorities)] == [
        "/pki/foreign.crt",
        "/pki/foreign-ca.crt",
    ]
    assert [path for path, each in found.items() if each.days_left < 7] == ["/pki/short.crt"]
    assert "/pki/short.crt (CN=kubelet, issued by CN=kubernetes, valid until" in str(
        found["/pki/short.crt"]
    )


def test_a_certificate_within_a_kubeconfig_is_found():
    from base64 import b64encode

    pem = documents.Authority().issue("admin")[0]
    text = f"file /etc/kubernetes/admin.conf\ndata {b64encode(pem.encode()).decode()}\n"
    assert [each.subject for each in parse_all(text)] == ["CN=admin"]


def test_a_file_that_is_no_certificate_is_named():
    broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError, match=r"/pki/broken.crt is no certificate"):
        parse_all(f"file /pki/broken.crt\n{broken}")


def test_the_networks_of_services_and_routes_are_compared(cluster, kube):
    shell = cluster.shells["virtual-mgmt"]
    shell.said["cmdline"] = "10.97.0.0/16\n"
    shell.said["ip -4 route show"] = (
        "default via 10.86.1.1 dev eth0 \n10.86.1.0/24 dev eth1 proto kernel scope link \n"
        "10.97.8.0/24 via 10.86.1.13 dev eth1 \nblackhole 10.233.64.0/26 proto bird \n"
        "10.97.0.1 dev kube-ipvs0 \n"
    )
    (services,) = service_networks(kube)
    routes = node_routes(cluster.nodes["virtual-mgmt"])
    clash = [line for line, network in routes.items() if covers(services, network)]
    assert clash == ["10.97.8.0/24 via 10.86.1.13 dev eth1"]
    assert len(routes) == 3


def test_without_the_servers_command_line_the_network_is_that_of_its_own_service(cluster, kube):
    path = "/api/v1/namespaces/default/services/kubernetes"
    cluster.server.answers[path] = (200, {"spec": {"clusterIP": "10.233.0.1"}})
    assert [str(network) for network in service_networks(kube)] == ["10.233.0.0/24"]


def test_an_answer_of_nslookup_is_read_below_the_servers_own_address():
    said = (
        "Server:\t\t10.97.0.10\nAddress:\t10.97.0.10:53\n\nName:\tweb.n.svc.cluster.local\n"
        "Address: 10.97.3.7\n\n** server can't find web.svc.cluster.local: NXDOMAIN\n"
    )
    web = WebServers.__new__(WebServers)
    web.pods = {"virtual-mgmt": None}
    web.kubernetes = type("Fake", (), {"exec": lambda *_: kube_api.ExecResult(1, said, "")})()
    assert web.lookup("virtual-mgmt", "web")[0] == ["10.97.3.7"]
