"""What users do with the parts that DeepOps puts on Kubernetes: a Service at a load balancer, an
Ingress, an image in the registry, a file on a shared volume. Each is done once, and judged.

Everything that is made lives in the namespace of the checks and goes with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from deepops_fixtures.checks import kube_manifests as manifests
from deepops_fixtures.checks import kube_probe
from deepops_fixtures.checks.gpu_rules import Verdict
from deepops_fixtures.checks.kube_deepops import DeepopsKubernetes, balanced, in_pool
from deepops_fixtures.checks.kube_web import PORT, WebServers
from deepops_fixtures.checks.kubernetes import PATIENCE
from deepops_fixtures.checks.remote.web_probe import STATUS
from deepops_fixtures.checks.waiting import wait_until
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Seconds until a server that was just told of a new name or address answers for it.
SETTLES = 60
#: What the runtime says of a registry that it is not set up for.
_NOT_SET_UP = ("server gave HTTP response", "no such host", "connection refused", "x509")
_RUNTIME = "ls /etc/containerd/certs.d 2>/dev/null; cat /etc/containerd/config.toml 2>/dev/null"


def _fetched(asker: Node, url: str, nodes: Iterable[str], host: str = "") -> str:
    """Fetch a page of the checks' web servers until it comes; return '' or what came instead."""
    names = set(nodes)

    def look() -> str:
        found = kube_probe.ask(asker, "get", url, host)
        wrong = kube_probe.fault(found, (200,))
        if not wrong and found["text"].strip() not in names:
            wrong = f"another page: {found['text'][:200].strip()}"
        return wrong

    try:
        return wait_until(f"{url} answers", look, lambda wrong: not wrong, SETTLES, pause=2)
    except CheckFailed as error:
        return str(error).partition("last seen: ")[2].splitlines()[0]


def load_balancer(deepops: DeepopsKubernetes, web: WebServers, asker: Node) -> Verdict:
    """Whether a Service of type LoadBalancer gets an address of MetalLB's pool, and answers
    there."""
    __tracebackhide__ = True
    kubernetes, name = deepops.kubernetes, f"balanced-{secrets.token_hex(3)}"
    body = manifests.service(name, {"app": web.name}, PORT, type="LoadBalancer")
    kubernetes.create(body)
    path = manifests.path_of("Service", kubernetes.namespace, name)
    try:
        addresses = wait_until(
            f"Service '{name}' of type LoadBalancer gets an address",
            lambda: balanced(kubernetes.get(path)),
            bool,
            SETTLES,
            evidence=lambda: _events(deepops, name),
        )
        faults = [
            f"Service '{name}' has the address {address}, which is not in MetalLB's pool "
            f"({', '.join(deepops.pools)})"
            for address in addresses
            if not in_pool(address, deepops.pools)
        ]
        for address in addresses:
            wrong = _fetched(asker, f"http://{address}/", web.pods)
            if wrong:
                faults.append(f"{address}, asked from '{asker.name}', gives no answer: {wrong}")
    finally:
        kubernetes.delete("Service", name)
    return Verdict("MetalLB", tuple(faults), (), len(addresses))


def _events(deepops: DeepopsKubernetes, name: str) -> str:
    told = [str(each) for each in deepops.kubernetes.events(name)]
    found = deepops.find("metallb")
    pods = deepops.kubernetes.pods(found.namespace) if found else []
    return "\n".join([*told, *map(str, pods)])


def ingress(deepops: DeepopsKubernetes, web: WebServers, asker: Node, scheme: str) -> Verdict:
    """Whether an Ingress leads to its Service over 'http' or 'https', at every address that
    ingress-nginx has."""
    __tracebackhide__ = True
    places = [
        (address, http if scheme == "http" else https)
        for address, http, https in deepops.ingress_addresses()
    ]
    places = [(address, port) for address, port in places if port]
    if not places:
        return Verdict("ingress-nginx", (f"it has no address for {scheme}",), (), 1)
    kubernetes, name = deepops.kubernetes, f"ingress-{secrets.token_hex(3)}"
    host = f"{name}.deepops.test"
    kubernetes.create(_ingress(name, host, deepops.ingress_class, web.name, scheme == "https"))
    faults = []
    try:
        for address, port in places:
            wrong = _fetched(asker, f"{scheme}://{address}:{port}/", web.pods, host)
            if wrong:
                faults.append(
                    f"{scheme}://{address}:{port} with Host '{host}', asked from '{asker.name}', "
                    f"does not lead to the Service: {wrong}"
                )
    finally:
        kubernetes.api.delete(_path_of_ingress(kubernetes.namespace, name))
    return Verdict("ingress-nginx", tuple(faults), (), len(places))


def _path_of_ingress(namespace: str, name: str = "") -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses" + (
        f"/{name}" if name else ""
    )


def _ingress(name: str, host: str, served_by: str, service: str, secure: bool) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "labels": manifests.LABELS,
            # With TLS plain http is redirected otherwise.
            "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
        },
        "spec": {
            "ingressClassName": served_by,
            "rules": [{"host": host, "http": {"paths": [path]}}],
            **({"tls": [{"hosts": [host]}]} if secure else {}),
        },
    }


# -- the registry ---------------------------------------------------------------------------


def registry_url(deepops: DeepopsKubernetes, node: Node) -> str:
    """Return where a node reaches the registry: its NodePort there, else the Service."""
    found = deepops.find("registry")
    if found is None or found.service is None:
        return ""
    scheme = "https" if found.secure else "http"
    if found.node_port:
        known = deepops.kubernetes.nodes.get(node.name)
        address = (known.address if known else "") or node.address or "127.0.0.1"
        return f"{scheme}://{address}:{found.node_port}"
    return f"{scheme}://{found.service['spec']['clusterIP']}:{found.port['port']}"


def registry(deepops: DeepopsKubernetes, node: Node, repository: str) -> Verdict:
    """Whether the registry takes an image from a node, and gives the same one back (the image
    stays there as ``repository:1``; registries of DeepOps' kind delete by digest alone)."""
    __tracebackhide__ = True
    url = registry_url(deepops, node)
    found = kube_probe.ask(node, "registry", url, repository, "1")
    faults = []
    if found.get("error"):
        faults.append(f"the registry at {url}, used from '{node.name}': {found['error']}")
    elif not found["same"]:
        faults.append(f"the registry at {url} gives back another image than it was given")
    return Verdict("the container registry", tuple(faults), (), 1)


def runtime_name(port: int, told: str) -> str:
    """Return the name under which containerd is set up for the registry: by its configuration,
    else as its own host, for which it needs none. ``told``: names in certs.d and config.toml.

    >>> runtime_name(31500, "docker.io\\nregistry.local:31500\\n")
    'registry.local:31500'
    """
    words = told.replace('"', " ").replace("/", " ").replace("'", " ").split()
    return next((each for each in words if each.endswith(f":{port}")), f"localhost:{port}")


def registry_pod(deepops: DeepopsKubernetes, node: Node, repository: str) -> Verdict:
    """Whether a pod runs from the image ``repository:1`` of the registry."""
    __tracebackhide__ = True
    kubernetes, found = deepops.kubernetes, deepops.find("registry")
    if found is None or not found.node_port:
        why = (
            deepops.absent("registry") or "the registry has no NodePort, which runtimes pull from"
        )
        return Verdict("the container registry", unjudged=(why,))
    name = runtime_name(found.node_port, node.host.run(_RUNTIME).stdout)
    image = f"{name}/{repository}:1"
    pod = kubernetes.run_pod(["/run"], node=node.name, image=image)
    try:
        done = kubernetes.wait_done(pod)
    except CheckFailed as error:
        if any(text in str(error) for text in _NOT_SET_UP):
            said = str(kubernetes.pod(pod))
            why = f"the runtime of '{node.name}' is not set up for the registry as {name}: {said}"
            return Verdict("the container registry", unjudged=(why,))
        raise
    finally:
        kubernetes.delete("Pod", pod.name)
    status = done.exit_codes.get("main")
    faults = [] if status == STATUS else [f"a pod of {image} ended with status {status}: {done}"]
    return Verdict("the container registry", tuple(faults), (), 1)


# -- shared volumes -------------------------------------------------------------------------


def shared_file(deepops: DeepopsKubernetes, nodes: Sequence[str]) -> Verdict:
    """Whether the NFS provisioner makes a volume that pods on all these nodes share: what the
    first writes the others read."""
    __tracebackhide__ = True
    kubernetes, name = deepops.kubernetes, f"shared-{secrets.token_hex(3)}"
    word = secrets.token_hex(8)
    kubernetes.create(_claim(name, deepops.storage_class))
    volumes = [{"name": "shared", "persistentVolumeClaim": {"claimName": name}}]
    write = f"echo {word} > /shared/file && sync"
    # NFS clients may remember for some seconds that there was no file.
    read = "for n in 1 2 3 4 5 6 7 8 9; do cat /shared/file && exit; sleep 2; done; exit 1"
    faults = []
    try:
        for number, node in enumerate(nodes):
            pod = kubernetes.run_pod(
                read if number else write, node=node, mounts={"/shared": "shared"}, volumes=volumes
            )
            done = kubernetes.wait_done(pod, PATIENCE)
            said = kubernetes.logs(done)
            if done.phase != "Succeeded":
                what = "read the shared file" if number else "write to the volume"
                faults.append(f"a pod on '{node}' cannot {what}: {said or done}")
            elif number and word not in said:
                faults.append(f"a pod on '{node}' reads '{said}', '{nodes[0]}' wrote '{word}'")
            if faults:
                break
    finally:
        kubernetes.delete("PersistentVolumeClaim", name)
    return Verdict("the NFS provisioner", tuple(faults), (), len(nodes))


def _claim(name: str, storage_class: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": manifests.LABELS},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
