"""Web servers that the checks of the pod network share: one pod a node, one Service, one headless
Service. Pods take long to start on an emulated node, so they are made once a process."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from deepops_fixtures.checks import kube_manifests as manifests
from deepops_fixtures.checks.kube_api import ExecResult
from deepops_fixtures.checks.kube_data import Pod
from deepops_fixtures.checks.kubernetes import Kubernetes

PORT = 8080
#: Writes the page before it serves it: the answer names the pod's node.
_SERVE = (
    "mkdir -p /tmp/www && echo $NODE_NAME > /tmp/www/index.html && "
    f"echo serving on $NODE_NAME && exec httpd -f -p {PORT} -h /tmp/www"
)


class WebServers:
    """A web server on each node that takes pods, which answers with its node's name.

    >>> web.fetch("virtual-mgmt", web.pods["virtual-gpu01"].ip).stdout
    'virtual-gpu01'
    """

    def __init__(self, kubernetes: Kubernetes, nodes: list[str]) -> None:
        """Create the Services and the pods; ``wait`` waits for them."""
        self.kubernetes = kubernetes
        self.name = f"web-{secrets.token_hex(3)}"
        labels = {"app": self.name}
        kubernetes.create(
            manifests.service(
                self.headless, labels, PORT, clusterIP="None", ports=[{"port": PORT}]
            )
        )
        made = kubernetes.create(manifests.service(self.name, labels, PORT, type="NodePort"))
        self.address: str = made["spec"]["clusterIP"]
        self.node_port: int = made["spec"]["ports"][0]["nodePort"]
        self.pods: dict[str, Pod] = {
            node: self._start(node, f"{self.name}-{number}", labels)
            for number, node in enumerate(nodes)
        }

    def _start(self, node: str, name: str, labels: Mapping[str, str]) -> Pod:
        return self.kubernetes.run_pod(
            _SERVE,
            node=node,
            name=name,
            labels=labels,
            hostname=name,
            subdomain=self.headless,
        )

    @property
    def headless(self) -> str:
        """The name of the Service that gives each pod a name and no address of its own."""
        return f"{self.name}-pods"

    @property
    def domain(self) -> str:
        """What a Service's name is followed by outside its namespace ('NAMESPACE.svc')."""
        return f"{self.kubernetes.namespace}.svc"

    def wait(self) -> None:
        """Wait until every pod is ready. Raises CheckFailed with the evidence of one that is
        not."""
        __tracebackhide__ = True
        self.pods = {node: self.kubernetes.wait_ready(pod) for node, pod in self.pods.items()}

    def fetch(self, node: str, address: str, port: int = PORT, seconds: int = 5) -> ExecResult:
        """Fetch the page at an address from within the pod of a node; ``stdout`` is the page.

        By nc, since wget of a statically linked busybox may lack the libraries that look names up.
        """
        line = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w {seconds} {address} {port}"
        done = self.kubernetes.exec(self.pods[node], line, seconds + 30)
        page = done.stdout.replace("\r", "").partition("\n\n")[2].strip()
        return done._replace(stdout=page)

    def lookup(self, node: str, name: str) -> tuple[list[str], str]:
        """Look a name up from within the pod of a node, as the pod's resolv.conf says; return the
        addresses, and all that nslookup said."""
        done = self.kubernetes.exec(self.pods[node], ["nslookup", name], 40)
        said = f"{done.stdout}\n{done.stderr}".strip()
        # Above the first name is the server's own address.
        answers = re.split(r"^Name:", said, maxsplit=1, flags=re.MULTILINE)[1:]
        return re.findall(r"^Address(?: \d+)?:\s*([0-9a-f.:]+)", "".join(answers), re.M), said
