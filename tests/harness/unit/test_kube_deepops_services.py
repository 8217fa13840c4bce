"""What users do with the parts that DeepOps puts on Kubernetes: what does not come off is red,
what cannot be judged is said."""

import http.server
import platform
import subprocess
import threading
import types
from urllib.parse import parse_qs, urlsplit

import pytest

from deepops_fixtures.checks import DeepopsKubernetes, kube_probe, kube_services
from deepops_fixtures.checks.remote import web_probe
from deepops_fixtures.errors import CheckFailed
from tests.harness.unit.kube_answers import deployment, node, parts, pod, service

INGRESS = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}


def registry(node_port: int = 31500, nodes=()) -> DeepopsKubernetes:
    ports = {"ports": [{"port": 5000, **({"nodePort": node_port} if node_port else {})}]}
    front = service("docker-registry", "deepops-docker", clusterIP="10.96.0.7", **ports)
    return parts([front], nodes=nodes)


def machine(runtime: str = "") -> types.SimpleNamespace:
    host = types.SimpleNamespace(run=lambda _line: types.SimpleNamespace(stdout=runtime))
    return types.SimpleNamespace(name="gpu01", address="10.0.0.8", host=host)


def test_a_registry_is_used_at_its_node_port_or_its_service():
    assert kube_services.registry_url(registry(), machine()) == "http://10.0.0.8:31500"
    assert (
        kube_services.registry_url(registry(nodes=[node()]), machine()) == "http://10.0.0.4:31500"
    )
    assert kube_services.registry_url(registry(0), machine()) == "http://10.96.0.7:5000"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ({"error": "Connection refused"}, "used from 'gpu01': Connection refused"),
        ({"digest": "sha256:1", "same": False}, "gives back another image than it was given"),
    ],
)
def test_a_registry_that_does_not_keep_what_it_is_given_is_red(monkeypatch, answer, cause):
    monkeypatch.setattr(kube_probe, "ask", lambda *_words: answer)
    (fault,) = kube_services.registry(registry(), machine(), "check").faults
    assert cause in fault


def test_the_runtime_is_asked_by_the_name_that_it_is_set_up_for():
    assert kube_services.runtime_name(31500, "docker.io\n") == "localhost:31500"
    told = '[plugins."io.containerd".registry.mirrors."registry.local:31500"]\n'
    assert kube_services.runtime_name(31500, told) == "registry.local:31500"


@pytest.mark.parametrize(
    ("said", "skipped"),
    [
        ("http: server gave HTTP response to HTTPS client", True),
        ("lookup registry.local: no such host", True),
        ("manifest unknown", False),
    ],
)
def test_a_runtime_that_is_not_set_up_for_the_registry_is_not_judged(said, skipped):
    deepops, gone = registry(), []
    waiting = types.SimpleNamespace(name="p")
    deepops.kubernetes.run_pod = lambda *_words, **_more: waiting
    deepops.kubernetes.pod = lambda _pod: f"pod p is Pending ({said})"
    deepops.kubernetes.delete = lambda *words: gone.append(words)

    def wait_done(_pod):
        raise CheckFailed(f"it waits in vain: {said}")

    deepops.kubernetes.wait_done = wait_done
    if skipped:
        verdict = kube_services.registry_pod(deepops, machine(), "check")
        assert verdict.judged == 0
        assert "is not set up for the registry as localhost:31500" in str(verdict)
    else:
        with pytest.raises(CheckFailed, match="manifest unknown"):
            kube_services.registry_pod(deepops, machine(), "check")
    assert gone == [("Pod", "p")]


def test_a_pod_that_is_not_of_our_image_is_red():
    deepops = registry()
    ended = types.SimpleNamespace(name="p", exit_codes={"main": 0})
    deepops.kubernetes.run_pod = lambda *_words, **_more: ended
    deepops.kubernetes.wait_done = lambda pod: pod
    deepops.kubernetes.delete = lambda *_words: None
    (fault,) = kube_services.registry_pod(deepops, machine(), "check").faults
    assert "a pod of localhost:31500/check:1 ended with status 0" in fault
    ended.exit_codes["main"] = 42
    assert kube_services.registry_pod(deepops, machine(), "check").faults == ()


class Volume:
    """Pods on a shared volume; what each says is in a list."""

    def __init__(self, *logs: str, phase: str = "Succeeded") -> None:
        self.said, self.phase, self.written = list(logs), phase, ""
        self.made: list[dict] = []

    def create(self, manifest: dict) -> None:
        self.made.append(manifest)

    def run_pod(self, command: str, **_more: object) -> types.SimpleNamespace:
        if command.startswith("echo"):
            self.written = command.split()[1]
        return types.SimpleNamespace(phase=self.phase)

    def wait_done(self, ran: object, _seconds: int) -> object:
        return ran

    def logs(self, _pod: object) -> str:
        return self.said.pop(0).replace("WRITTEN", self.written)

    def delete(self, *_words: str) -> None:
        pass


@pytest.mark.parametrize(
    ("volume", "cause"),
    [
        (Volume("", "WRITTEN"), ""),
        (Volume("", "other"), "a pod on 'b' reads 'other', 'a' wrote"),
        (
            Volume("Read-only file system", phase="Failed"),
            "a pod on 'a' cannot write to the volume:",
        ),
    ],
)
def test_a_volume_that_is_not_shared_is_red(volume, cause):
    deepops = types.SimpleNamespace(kubernetes=volume, storage_class="nfs-client")
    faults = kube_services.shared_file(deepops, ["a", "b"]).faults
    assert volume.made[0]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volume.made[0]["spec"]["storageClassName"] == "nfs-client"
    if cause:
        assert cause in faults[0]
    else:
        assert faults == ()


# -- servers that are asked -----------------------------------------------------------------

WEB = types.SimpleNamespace(name="web-1", pods={"gpu01": None, "mgmt": None})
PAGE = {"status": 200, "text": "gpu01\n"}


def with_verbs(deepops: DeepopsKubernetes, **table: object) -> list:
    """Let a Kubernetes take what is created; return the list of it."""
    made: list = []
    deepops.kubernetes.namespace = "ours"
    deepops.kubernetes.create = made.append
    deepops.kubernetes.delete = lambda *words: made.append(words)
    deepops.api.delete = made.append
    deepops.kubernetes.get = lambda path: next(iter(table.values()))
    deepops.kubernetes.events = lambda _name: ["nothing assigns addresses"]
    return made


@pytest.fixture
def answers(monkeypatch):
    """A function that lets every server answer this; it returns the list of what was asked."""

    def answering(answer: dict) -> list:
        asked: list = []
        monkeypatch.setattr(kube_services, "SETTLES", 0)
        monkeypatch.setattr(kube_probe, "ask", lambda _node, *words: asked.append(words) or answer)
        return asked

    return answering


@pytest.mark.parametrize(
    ("address", "answer", "cause"),
    [
        ("10.0.0.105", PAGE, ""),
        (
            "10.9.9.9",
            PAGE,
            "has the address 10.9.9.9, which is not in MetalLB's pool (10.0.0.100-",
        ),
        (
            "10.0.0.105",
            {"error": "timed out"},
            "10.0.0.105, asked from 'gpu01', gives no answer: ",
        ),
        ("10.0.0.105", {"status": 200, "text": "It works!"}, "another page: It works!"),
    ],
)
def test_a_load_balancer_is_judged_by_address_and_answer(answers, address, answer, cause):
    asked = answers(answer)
    given = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
    deepops = parts()
    made = with_verbs(deepops, given=given)
    verdict = kube_services.load_balancer(deepops, WEB, machine())
    assert (made[0]["spec"]["type"], made[0]["spec"]["selector"]) == (
        "LoadBalancer",
        {"app": "web-1"},
    )
    assert made[-1] == ("Service", made[0]["metadata"]["name"])
    assert ("get", f"http://{address}/", "") in asked
    assert len(verdict.faults) == bool(cause)
    assert cause in " ".join(verdict.faults)


def test_a_load_balancer_that_gives_no_address_is_red(answers):
    answers(PAGE)
    deepops = parts()
    made = with_verbs(deepops, given={"status": {}})
    with pytest.raises(CheckFailed, match=r"gets an address: not within[^$]*nothing assigns"):
        kube_services.load_balancer(deepops, WEB, machine())
    assert made[-1][0] == "Service"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "cause"),
    [(PAGE, ""), ({"status": 404, "text": "default backend"}, "status 404: default backend")],
)
def test_an_ingress_is_judged_by_the_page_that_comes(answers, scheme, answer, cause):
    asked = answers(answer)
    front = service("ingress-nginx-controller", "deepops-ingress", INGRESS)
    workload = deployment("ingress", "deepops-ingress", INGRESS)
    deepops = parts([front], [workload], pods=[pod("a", "mgmt", hostNetwork=True)])
    made = with_verbs(deepops)
    verdict = kube_services.ingress(deepops, WEB, machine(), scheme)
    host = made[0]["spec"]["rules"][0]["host"]
    assert ("tls" in made[0]["spec"]) == (scheme == "https")
    assert asked[0] == ("get", f"{scheme}://10.0.0.9:{80 if scheme == 'http' else 443}/", host)
    assert made[-1].endswith(f"/ingresses/{made[0]['metadata']['name']}")
    assert len(verdict.faults) == bool(cause)
    assert cause in " ".join(verdict.faults)


def test_an_ingress_controller_without_an_address_is_red():
    front = service("ingress-nginx-controller", "deepops-ingress", INGRESS, ports=[])
    verdict = kube_services.ingress(parts([front]), WEB, machine(), "https")
    assert verdict.faults == ("it has no address for https",)


# -- what runs on the nodes -----------------------------------------------------------------


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as the probe uses; ``forgets`` and ``refuses`` what it is given."""

    kept: dict = {}  # noqa: RUF012
    forgets = refuses = False

    def log_message(self, *_words: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        if self.refuses:
            self._answer(401, b"who are you")
        else:
            self._answer(202, Location=f"{self.path}one?state=x")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = parse_qs(urlsplit(self.path).query)
        self.kept[query.get("digest", ["manifest"])[0]] = b"" if self.forgets else body
        self._answer(201)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        found = self.kept.get("manifest" if "manifests" in self.path else name)
        known = name == "" or found is not None
        self._answer(200 if known else 404, found or b"")


@pytest.fixture
def url():
    Registry.kept, Registry.forgets, Registry.refuses = {}, False, False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def probe(capsys, *words: str) -> str:
    web_probe.main(list(words))
    return capsys.readouterr().out


def test_an_image_comes_back_as_it_was_pushed(url, capsys):
    assert '"same": true' in probe(capsys, "registry", url, "check", "1")
    assert len(Registry.kept) == 3


def test_an_image_that_comes_back_otherwise_is_seen(url, capsys):
    Registry.forgets = True
    assert '"same": false' in probe(capsys, "registry", url, "check", "1")


def test_what_answers_and_what_does_not_is_told(url, capsys):
    assert '"status": 404' in probe(capsys, "get", f"{url}/nothing", "some.host")
    assert '"error": "' in probe(capsys, "get", "http://127.0.0.1:9/")
    Registry.refuses = True
    said = probe(capsys, "registry", url, "check", "1")
    assert "the upload of a blob was answered with status 401: who are you" in said


def test_the_program_of_the_image_ends_with_its_status(tmp_path):
    if platform.machine() not in web_probe.PROGRAMS:
        pytest.skip(f"there is no program for {platform.machine()}")
    path = tmp_path / "run"
    path.write_bytes(web_probe.program(platform.machine())[0])
    path.chmod(0o755)
    assert subprocess.run([path], check=False).returncode == web_probe.STATUS


def test_a_probe_that_does_not_run_is_named():
    silent = types.SimpleNamespace(name="gpu01", run_script=lambda *_words: "sh: no python3\n")
    with pytest.raises(CheckFailed, match="web probe on 'gpu01' gave no answer:\nsh: no python3"):
        kube_probe.ask(silent, "get", "http://x/")
    works = types.SimpleNamespace(
        name="gpu01", run_script=lambda *_words: f'motd\n{web_probe.MARK}{{"status": 200}}\n'
    )
    assert kube_probe.ask(works, "get", "http://x/") == {"status": 200}
