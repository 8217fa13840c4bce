"""Access to a cluster's Kubernetes API: the administrator's kubeconfig, a way to the server, and
requests that give plain JSON.

The official client reads the kubeconfig and carries certificates and websockets; its typed models
are not used, since those of a new client refuse what an old server says. Every request has a
deadline. What goes wrong is one sentence that names the cause. Not for what the answers mean.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from deepops_fixtures import facts
from deepops_fixtures.checks import kube_silence
from deepops_fixtures.checks.kube_tunnel import Tunnel, reachable
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node, Nodes

#: Seconds for each answer.
READ = 30.0
#: Seconds for an answer after one that did not come.
IMPATIENT = 5.0
#: Seconds after which an idle connection is not trusted: its node may have been put back since.
IDLE = 10.0
_PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class ApiSilent(CheckFailed):
    """The API server cannot be asked at all; the message says why."""


class ApiRefused(CheckFailed):
    """The API server answers a request with an error; ``status`` is HTTP's, ``reason`` its own."""

    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"The API server refuses '{what}' with status {status}: {message}")
        self.status = status
        self.reason = reason
        self.said = message


class ExecResult(NamedTuple):
    """What a command in a container gave back; ``rc`` is -1 when it did not end in time."""

    rc: int
    stdout: str
    stderr: str


class KubeApi:
    """The API server of a cluster, asked as its administrator.

    >>> api.get("/api/v1/nodes")["items"][0]["metadata"]["name"]
    'virtual-mgmt'
    """

    def __init__(self, nodes: Nodes, run_dir: Path) -> None:
        self.plane: Node = nodes.group("kube_control_plane")[0]
        self._made_by_us = nodes.cluster.provider == "vagrant"
        self._ssh_config = nodes.cluster.ssh_config
        self._instance = nodes.cluster.name
        self._run_dir = run_dir
        self._tunnel: Tunnel | None = None
        self._used = 0.0
        self._patience = READ

    # -- the way there ----------------------------------------------------------------------

    @cached_property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, copied from the control plane into the run's folder once
        a run, readable by its owner alone. Raises ApiSilent when there is none."""
        from filelock import FileLock

        path = self._run_dir / "kubeconfig"
        with FileLock(self._run_dir / "kubeconfig.lock"):
            if not path.exists():
                text = self._read_admin_conf()
                partial = path.with_suffix(".part")
                partial.unlink(missing_ok=True)
                handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w") as file:
                    file.write(text)
                partial.rename(path)
        return path

    def _read_admin_conf(self) -> str:
        # run_script keeps no record: what it returns is the key to the cluster.
        begin, end = "-----kubeconfig-----", "-----end-----"
        script = f"echo {begin}; cat {facts.KUBE_ADMIN_CONF}; echo; echo {end}"
        try:
            said = self.plane.run_script(script, 60)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise ApiSilent(
                f"'{self.plane.name}' does not answer over ssh, so that {facts.KUBE_ADMIN_CONF} "
                f"cannot be read there: {type(error).__name__}.\nNext: {self.ssh('true')}"
            ) from None
        text = said.partition(begin)[2].partition(end)[0].strip()
        if "clusters:" not in text:
            raise ApiSilent(
                f"'{self.plane.name}' has no kubeconfig {facts.KUBE_ADMIN_CONF}: no Kubernetes is "
                f"deployed there, or not as DeepOps does it.\n"
                f"Next: {self.ssh(f'ls -l {Path(facts.KUBE_ADMIN_CONF).parent}')}"
            )
        return text + "\n"

    def ssh(self, command: str, node: Node | None = None) -> str:
        """Return what to type for a command on a node (the control plane), as root."""
        if self._ssh_config is None:
            return command
        return f"ssh -F {self._ssh_config} {(node or self.plane).name} sudo {command}"

    @cached_property
    def _client(self) -> Any:
        """The official client, set up. Raises ApiSilent when the kubeconfig cannot be used."""
        import kubernetes

        settings = kubernetes.client.Configuration()
        try:
            kubernetes.config.load_kube_config(
                str(self.kubeconfig), client_configuration=settings, persist_config=False
            )
        except Exception as error:
            why = " ".join(str(error).split()).rstrip(".")
            raise ApiSilent(
                f"The kubeconfig of '{self.plane.name}' cannot be used: {why}.\n"
                f"Next: {self.ssh(f'kubectl --kubeconfig {facts.KUBE_ADMIN_CONF} get nodes')}"
            ) from None
        settings.retries = False
        # A proxy of the user's environment knows no way to the cluster's own network.
        settings.proxy = None
        self._route(settings)
        return kubernetes.client.ApiClient(settings)

    def _route(self, settings: Any) -> None:
        """Point the client to where the server is reached from here; its certificate is checked
        against the name that the kubeconfig has."""
        there = urlsplit(settings.host)
        host, port = there.hostname or "", there.port or facts.KUBE_API_PORT
        if there.scheme != "https" or not host:
            raise ApiSilent(
                f"The kubeconfig of '{self.plane.name}' names no https server, but "
                f"'{settings.host}'.\nNext: {self.ssh(f'grep server: {facts.KUBE_ADMIN_CONF}')}"
            )
        if self._made_by_us and self.plane.address:
            if host != self.plane.address:
                settings.host = f"https://{self.plane.address}:{facts.KUBE_API_PORT}"
                settings.tls_server_name = settings.tls_server_name or host
        elif not reachable(host, port) and self._ssh_config is not None:
            # Who has waited in vain once waits less the next time, as for an answer.
            patience, self._patience = self._patience, IMPATIENT
            try:
                self._tunnel = Tunnel(
                    self._ssh_config, self.plane.name, self._instance, host, port, patience
                )
            except CheckFailed as error:
                raise ApiSilent(str(error)) from None
            self._patience = READ
            settings.host = f"https://127.0.0.1:{self._tunnel.port}"
            settings.tls_server_name = settings.tls_server_name or host

    @property
    def server(self) -> str:
        """The address that is asked, like 'https://10.86.1.12:6443'."""
        return str(self._client.configuration.host)

    def close(self) -> None:
        """End what leads to the server."""
        if "_client" in vars(self):
            self._client.rest_client.pool_manager.clear()
        if self._tunnel is not None:
            self._tunnel.close()

    # -- requests ---------------------------------------------------------------------------

    def get(self, path: str, **params: str) -> Any:
        """Return what a path gives: a dict of JSON, or text where it is none (/livez, logs).

        Raises ApiSilent and ApiRefused, as the other verbs do.
        """
        __tracebackhide__ = True
        return self.request("GET", path, params=params)

    def items(self, path: str, **params: str) -> list[dict[str, Any]]:
        """Return the items of a list."""
        __tracebackhide__ = True
        return list(self.get(path, **params).get("items") or ())

    def text(self, path: str, **params: str) -> str:
        """Return what a path gives, as it is: a pod's log may look like JSON."""
        __tracebackhide__ = True
        return str(self.request("GET", path, params=params, plain=True))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Create an object and return it."""
        __tracebackhide__ = True
        return self.request("POST", path, body)

    def patch(self, path: str, body: dict[str, Any], kind: str = "merge") -> Any:
        """Change a part of an object and return it; ``kind`` is 'merge' or 'strategic'."""
        __tracebackhide__ = True
        return self.request("PATCH", path, body, content=_PATCHES[kind])

    def delete(self, path: str, grace: int | None = None) -> None:
        """Delete an object; one that is not there is fine."""
        __tracebackhide__ = True
        params = {"propagationPolicy": "Background"}
        if grace is not None:
            params["gracePeriodSeconds"] = str(grace)
        try:
            self.request("DELETE", path, params=params)
        except ApiRefused as error:
            if error.status != 404:
                raise

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        params: dict[str, str] | None = None,
        content: str = "application/json",
        headers: dict[str, str] | None = None,
        anonymous: bool = False,
        plain: bool = False,
    ) -> Any:
        """Send one request. ``anonymous``: without certificate or token; ``plain``: the answer is
        text."""
        __tracebackhide__ = True
        import urllib3

        target = f"{self.server}{path}" + (f"?{urlencode(params)}" if params else "")
        sent = {"Accept": "application/json, */*", "Content-Type": content, **(headers or {})}
        if not anonymous:
            sent |= self._credentials()
        try:
            answer = self._pool(anonymous).request(
                method,
                target,
                body=None if body is None else json.dumps(body),
                headers=sent,
                timeout=urllib3.Timeout(connect=kube_silence.CONNECT, read=self._patience),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            # An etcd that is gone lets every request wait: the next ones need not be waited for.
            self._patience = IMPATIENT
            raise ApiSilent(self._silence(error)) from None
        self._patience = READ
        if plain and answer.status < 400:
            return answer.data.decode(errors="replace")
        return self._answer(f"{method} {path}", answer, anonymous)

    def _credentials(self) -> dict[str, str]:
        tokens = self._client.configuration.auth_settings().values()
        return {each["key"]: each["value"] for each in tokens if each.get("value")}

    def _pool(self, anonymous: bool) -> Any:
        import urllib3

        settings = self._client.configuration
        if anonymous:
            name = settings.tls_server_name
            more = {"server_hostname": name} if name else {}
            return urllib3.PoolManager(ca_certs=settings.ssl_ca_cert, **more)
        pool, now = self._client.rest_client.pool_manager, time.monotonic()
        if now - self._used > IDLE:
            pool.clear()
        self._used = now
        return pool

    def _answer(self, what: str, answer: Any, anonymous: bool) -> Any:
        __tracebackhide__ = True
        text = answer.data.decode(errors="replace")
        try:
            data = json.loads(text)
        except ValueError:
            data = text
        if answer.status < 400:
            return data
        told = data if isinstance(data, dict) else {}
        message = str(told.get("message") or text.strip() or "no reason given")
        if answer.status == 401 and not anonymous:
            message += self._why_unknown()
        raise ApiRefused(what, answer.status, str(told.get("reason", "")), message)

    # -- a command in a container -----------------------------------------------------------

    def exec(self, path: str, argv: list[str], seconds: float = READ) -> ExecResult:
        """Run a command in a container through the API (a websocket, pods/exec); ``path`` is the
        pod's. Raises ApiSilent, and ApiRefused when the kubelet does not take it."""
        __tracebackhide__ = True
        import websocket
        from kubernetes.stream.ws_client import WSClient

        query = urlencode(
            [*(("command", word) for word in argv), ("stdout", "true"), ("stderr", "true")]
        )
        target = self.server.replace("https://", "wss://", 1) + f"{path}/exec?{query}"
        before = websocket.getdefaulttimeout()
        websocket.setdefaulttimeout(READ)
        try:
            # An empty list of headers would have the client leave the token out.
            client = WSClient(
                self._client.configuration, target, self._credentials(), capture_all=False
            )
            client.run_forever(timeout=seconds)
            ended = not client.is_open()
            out, err = client.read_stdout(timeout=0) or "", client.read_stderr(timeout=0) or ""
            status = client.returncode if ended else -1
            client.close()
        except websocket.WebSocketBadStatusException as error:
            said = getattr(error, "resp_body", b"") or b""
            text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
            raise ApiRefused(f"exec {path}", error.status_code, "", text or str(error)) from None
        except (websocket.WebSocketException, OSError) as error:
            raise ApiSilent(f"A command in {path} got no answer: {error}") from None
        except (TypeError, KeyError, IndexError, ValueError) as error:
            # How it ended is not told as a status: the runtime could not start the command.
            raise ApiRefused(f"exec {path}", 0, "", f"no exit status ({error})") from None
        finally:
            websocket.setdefaulttimeout(before)
        return ExecResult(status, out, err)

    # -- what went wrong --------------------------------------------------------------------

    def _silence(self, error: Exception) -> str:
        """Return why there was no answer, in a sentence, with the server's journal."""
        text = str(error)
        if kube_silence.is_distrusted(text):
            shown = f"openssl x509 -noout -dates -issuer -in {facts.KUBE_PKI}/apiserver.crt"
            return (
                f"The API server on '{self.plane.name}' cannot be trusted at {self.server}: "
                f"{kube_silence.distrust(text)}.\nNext: {self.ssh(shown)}"
            )
        # Who ends the handshake over a certificate may be gone before the alert is read.
        ours = self._client.configuration.cert_file
        gone = kube_silence.was_closed(text) and kube_silence.ended(ours)
        if gone or kube_silence.refuses_us(text):
            return (
                f"The API server on '{self.plane.name}' does not take the client certificate of "
                f"{facts.KUBE_ADMIN_CONF} at {self.server}{self._why_unknown()}"
            )
        cause = kube_silence.cause(text)
        state, journal = self.apiserver_state()
        return (
            f"The API server on '{self.plane.name}' does not answer at {self.server}: {cause}; "
            f"kube-apiserver is {state} there.\n"
            f"Next: {self.ssh('journalctl -n 50 -u kube-apiserver')}\n{journal}"
        )

    def apiserver_state(self) -> tuple[str, str]:
        """Return how kube-apiserver is on the control plane, and the end of its log; also etcd,
        without which it ends."""
        script = (
            "PATH=$PATH:/usr/local/bin; "
            "state=$(systemctl is-active kube-apiserver 2>/dev/null); "
            'if [ "$state" != active ] && command -v crictl >/dev/null; then '
            "pod=$(timeout 20 crictl ps -q --name kube-apiserver 2>/dev/null); "
            '[ -n "$pod" ] && state="running as a static pod"; fi; echo "${state:-absent}"; '
            'echo "etcd is $(systemctl is-active etcd)"; '
            "journalctl --no-pager -n 8 -o cat -u kube-apiserver -u etcd 2>&1"
        )
        try:
            said = self.plane.run_script(script, 60)
        except (subprocess.TimeoutExpired, OSError):
            return "out of reach", f"'{self.plane.name}' does not answer over ssh either."
        state, _, journal = said.partition("\n")
        return state.strip() or "out of reach", (
            f"--- journal of kube-apiserver on {self.plane.name} ---\n{journal.rstrip()}"
        )

    def _why_unknown(self) -> str:
        """Return why the server does not know our client certificate."""
        hint = f"\nNext: {self.ssh(f'kubectl --kubeconfig {facts.KUBE_ADMIN_CONF} get nodes')}"
        ended = kube_silence.ended(self._client.configuration.cert_file)
        if ended:
            return f"; the client certificate of the kubeconfig has expired on {ended}{hint}"
        return (
            "; the kubeconfig is of another cluster, or its credentials have expired or were "
            f"withdrawn{hint}"
        )
