"""What a Kubernetes API says, and a server on the loopback that says it over TLS.

The objects are real answers of kube-apiserver 1.20.2 without their managedFields; the parts of a
pod's status that a kubelet writes are after the API's reference.
"""

from __future__ import annotations

import datetime
import http.server
import json
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NODE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
        "creationTimestamp": "2026-11-25T07:21:06Z",
        "labels": {"kubernetes.io/hostname": "virtual-mgmt"},
        "name": "virtual-mgmt",
        "resourceVersion": "453",
        "uid": "a02b74ad-be61-492e-860f-199eb3f1aabf",
    },
    "spec": {
        "podCIDR": "10.96.0.0/24",
        "podCIDRs": ["10.96.0.0/24"],
        "taints": [
            {
                "effect": "NoSchedule",
                "key": "node.kubernetes.io/unreachable",
                "timeAdded": "2026-11-25T07:21:46Z",
            }
        ],
    },
    "status": {
        "addresses": [
            {"address": "10.86.1.12", "type": "InternalIP"},
            {"address": "virtual-mgmt", "type": "Hostname"},
        ],
        "allocatable": {"cpu": "2", "memory": "2Gi", "pods": "110"},
        "capacity": {"cpu": "2", "memory": "2Gi", "pods": "110"},
        "conditions": [
            {
                "lastHeartbeatTime": "2026-11-25T07:21:06Z",
                "lastTransitionTime": "2026-11-25T07:21:46Z",
                "message": "Kubelet stopped posting node status.",
                "reason": "NodeStatusUnknown",
                "status": "Unknown",
                "type": "Ready",
            },
            {
                "lastHeartbeatTime": "2026-11-25T07:21:06Z",
                "lastTransitionTime": "2026-11-25T07:21:46Z",
                "message": "Kubelet never posted node status.",
                "reason": "NodeStatusNeverUpdated",
                "status": "Unknown",
                "type": "MemoryPressure",
            },
        ],
        "images": [{"names": ["deepops.local/busybox:1"], "sizeBytes": 2029056}],
        "nodeInfo": {"bootID": "b", "kubeletVersion": "v1.20.2", "machineID": ""},
    },
}
JOB: dict[str, Any] = {
    "metadata": {"name": "j", "namespace": "deepops-check-3a7d81b5"},
    "spec": {"backoffLimit": 0, "completions": 2, "parallelism": 2},
    "status": {"active": 2, "startTime": "2026-11-25T07:21:13Z"},
}
EVENT: dict[str, Any] = {
    "metadata": {"name": "check-31bd1cec.18b", "namespace": "deepops-check-3a7d81b5"},
    "involvedObject": {"kind": "Pod", "name": "check-31bd1cec", "apiVersion": "v1"},
    "reason": "Scheduled",
    "message": "Successfully assigned deepops-check-3a7d81b5/check-31bd1cec to virtual-gpu01",
    "source": {},
    "firstTimestamp": None,
    "lastTimestamp": None,
    "type": "Normal",
    "eventTime": "2026-11-25T07:21:06.386581Z",
    "action": "Binding",
    "reportingComponent": "default-scheduler",
}
FORBIDDEN: dict[str, Any] = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": 'secrets is forbidden: User "system:anonymous" cannot list resource "secrets"',
    "reason": "Forbidden",
    "details": {"kind": "secrets"},
    "code": 403,
}
UNAUTHORIZED: dict[str, Any] = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "Unauthorized",
    "reason": "Unauthorized",
    "code": 401,
}


def node(name: str = "virtual-mgmt", *, ready: bool = True, **spec: Any) -> dict[str, Any]:
    """Return a node as the API gives it, ready or not."""
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {**NODE["status"]}
    if ready:
        status["conditions"] = [
            condition,
            {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
        ]
    meta = {**NODE["metadata"], "name": name}
    return {"metadata": meta, "spec": spec or ({} if ready else NODE["spec"]), "status": status}


def pod(name: str = "p", phase: str = "Running", **container: Any) -> dict[str, Any]:
    """Return a pod as the API gives it; ``container`` is of its container's status."""
    ready = phase == "Running" and "state" not in container
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    seen = {"name": "main", "restartCount": 0, "state": {"running": {}}, **container}
    return {
        "metadata": {"name": name, "namespace": "n", "uid": "u"},
        "spec": {"nodeName": "virtual-gpu01", "containers": []},
        "status": {
            "phase": phase, "podIP": "10.96.1.7", "conditions": [condition],
            "containerStatuses": [seen],
        },
    }  # fmt: skip


def ended(reason: str, code: int) -> dict[str, Any]:
    """Return the state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": reason}}


class Authority:
    """A certificate authority that issues what a test needs."""

    def __init__(self, name: str = "kubernetes") -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._sign(self.name, self._key, days=10, authority=True)[0]

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float, authority: bool
    ) -> tuple[str, str]:
        now = datetime.datetime.now(datetime.timezone.utc)
        names = [x509.DNSName("kubernetes"), x509.IPAddress(ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=20))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        return pem, private

    def issue(self, name: str, days: float = 5) -> tuple[str, str]:
        """Return a certificate that is valid for so many days more, and its key, as PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        key = ec.generate_private_key(ec.SECP256R1())
        return self._sign(subject, key, days=days, authority=False)


def kubeconfig(server: str, authority: Authority, client: tuple[str, str]) -> str:
    """Return an administrator's kubeconfig, as kubeadm writes it."""

    def packed(text: str) -> str:
        return b64encode(text.encode()).decode()

    data = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": server, "certificate-authority-data": packed(authority.pem),
                },
            }
        ],
        "users": [
            {
                "name": "u",
                "user": {
                    "client-certificate-data": packed(client[0]),
                    "client-key-data": packed(client[1]),
                },
            }
        ],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }  # fmt: skip
    return yaml.safe_dump(data)


@dataclass
class Server:
    """What the API server of a test answers: path → (status, body); and what it was asked."""

    port: int
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    #: (method, path, whether a client certificate was shown).
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    #: Set to let every request wait until the end of the test.
    silent: threading.Event | None = None


@contextmanager
def serving(folder: Path, authority: Authority, days: float = 5) -> Iterator[Server]:
    """Run an API server on the loopback, with a certificate that is valid so many days more."""
    certificate, key = authority.issue("kube-apiserver", days)
    path = folder / "server.pem"
    path.write_text(certificate + key)
    trusted = folder / "trusted.crt"
    trusted.write_text(authority.pem)
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            server.asked.append(
                (self.command, self.path, bool(self.connection.getpeercert(binary_form=True)))
            )
            if server.silent is not None:
                over.wait(20)
                return
            status, body = server.answers.get(self.path.split("?")[0], (404, {"message": "none"}))
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that go away in the middle of a handshake."""

    httpd = Quiet(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_OPTIONAL
    httpd.socket = context.wrap_socket(
        httpd.socket, server_side=True, do_handshake_on_connect=False
    )
    server = Server(httpd.server_address[1])
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        over.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()
