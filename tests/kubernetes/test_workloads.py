"""What users of Kubernetes do: deploy, roll out and back, run jobs over nodes, exceed, look in."""

import re
import secrets

import pytest

from deepops_fixtures.checks import (
    Kubernetes,
    Pod,
    WebServers,
    kube_manifests,
    wait_until,
)
from deepops_fixtures.checks.kube_data import version_numbers
from deepops_fixtures.checks.kube_web import PORT

pytestmark = pytest.mark.kubernetes


def named(what: str) -> str:
    """Return a name that no other test of this run has taken."""
    return f"{what}-{secrets.token_hex(3)}"


def variable(kubernetes: Kubernetes, deployment: str, value: str) -> str:
    """Return what the variable RELEASE is in the ready pods of a Deployment; '' when they
    differ from one another."""
    pods = [pod for pod in kubernetes.pods(labels={"app": deployment}) if pod.ready]
    seen = {kubernetes.logs(pod) for pod in pods}
    return value if seen == {value} else ", ".join(sorted(seen))


def test_a_deployment_rolls_out_and_rolls_back(working_kubernetes: Kubernetes):
    kubernetes, name = working_kubernetes, named("release")
    main = kube_manifests.container(
        "echo release $RELEASE; exec sleep 3600", kubernetes.image, environment={"RELEASE": "1"}
    )
    kubernetes.create(kube_manifests.deployment(name, 1, kube_manifests.pod_spec(main)))
    try:
        kubernetes.wait_workload("Deployment", name)
        assert variable(kubernetes, name, "release 1") == "release 1"
        path = kube_manifests.path_of("Deployment", kubernetes.namespace, name, "apps/v1")
        changed = {"containers": [{"name": "main", "env": [{"name": "RELEASE", "value": "2"}]}]}
        kubernetes.api.patch(path, {"spec": {"template": {"spec": changed}}}, kind="strategic")
        kubernetes.wait_workload("Deployment", name)
        assert variable(kubernetes, name, "release 2") == "release 2"
        done = kubernetes.kubectl("rollout undo deployment/%s -n %s", name, kubernetes.namespace)
        assert done.rc == 0, f"kubectl rollout undo: {done.stderr.strip()}"
        kubernetes.wait_workload("Deployment", name)
        assert variable(kubernetes, name, "release 1") == "release 1"
    finally:
        kubernetes.delete("Deployment", name, "apps/v1")


def test_a_job_runs_to_its_end(working_kubernetes: Kubernetes):
    kubernetes, name = working_kubernetes, named("job")
    main = kube_manifests.container("echo done on $NODE_NAME", kubernetes.image)
    kubernetes.create(kube_manifests.job(name, kube_manifests.pod_spec(main)))
    job = kubernetes.wait_job(name)
    assert (job.succeeded, job.failed) == (1, 0), job
    pod = kubernetes.pods(labels={"app": name})[0]
    assert kubernetes.logs(pod) == f"done on {pod.node}"


def test_a_job_over_all_nodes_gives_each_pod_an_index_and_lets_them_talk(
    working_kubernetes: Kubernetes,
):
    """Each pod says its index and node to the pod with index 0, which waits for all of them.

    completionMode Indexed is served since 1.21 (by default since 1.22). Before, the index is that
    of a StatefulSet's pod, the last word of its name, and the pods' own ends are watched.
    """
    kubernetes = working_kubernetes
    nodes = sorted(node.name for node in kubernetes.nodes.values() if node.schedulable)
    if len(nodes) < 2:
        pytest.skip("only one node takes pods without tolerations")
    said = gathered(kubernetes, len(nodes))
    found = sorted(re.findall(r"^index (\d+) on (\S+)$", said, re.MULTILINE))
    assert [int(index) for index, _ in found] == list(range(len(nodes))), (
        f"pod 0 was to hear of {len(nodes)} pods and heard:\n{said}"
    )
    assert sorted(node for _, node in found) == nodes, f"the pods are not on {nodes}:\n{said}"


#: Pod 0 notes who asks its web server for a page, until it has heard of all.
_LISTEN = f"""mkdir -p /tmp/www/cgi-bin; cd /tmp/www/cgi-bin; echo "0+$NODE_NAME" >/tmp/heard
cat >hello <<'END'
#!/bin/sh
echo "$QUERY_STRING" >>/tmp/heard
printf 'Content-type: text/plain\\r\\n\\r\\nheard\\n'
END
chmod +x hello; httpd -p {PORT} -h /tmp/www
until [ $(sort -u /tmp/heard | wc -l) -ge $SIZE ]; do sleep 1; done
sort -u /tmp/heard | sed 's/\\(.*\\)+\\(.*\\)/index \\1 on \\2/'; echo heard of all; sleep 3"""
#: The others ask for that page until they get it.
_TALK = f"""until
to=$(nslookup $ZERO 2>/dev/null | sed -n '/^Name/,$s/^Address[^:]*: *//p' | head -n 1)
[ -n "$to" ] && printf 'GET /cgi-bin/hello?%s HTTP/1.0\\r\\n\\r\\n' "$i+$NODE_NAME" |
nc -w 5 $to {PORT} | grep heard; do sleep 1; done"""


def gathered(kubernetes: Kubernetes, size: int) -> str:
    """Run the pods, each on a node of its own; return what pod 0 has written when it has heard of
    all."""
    name = named("gather")
    kubernetes.create(
        kube_manifests.service(
            name, {"app": name}, PORT, clusterIP="None", ports=[{"port": PORT}],
            publishNotReadyAddresses=True,
        )
    )  # fmt: skip
    indexed = version_numbers(kubernetes.version) >= (1, 22)
    index = "$JOB_COMPLETION_INDEX" if indexed else "${POD_NAME##*-}"
    talk = f"i={index}; if [ $i = 0 ]; then {_LISTEN}; else {_TALK}; fi"
    if not indexed:
        talk += "; exec sleep 3600"
    main = kube_manifests.container(
        talk,
        kubernetes.image,
        environment={
            "SIZE": str(size),
            "ZERO": f"{name}-0.{name}.{kubernetes.namespace}.svc.{domain(kubernetes)}",
        },
    )  # fmt: skip
    spec = kube_manifests.pod_spec(main, affinity=kube_manifests.apart(name), subdomain=name)
    if indexed:
        kubernetes.create(kube_manifests.job(name, spec, pods=size, indexed=True))
        kubernetes.wait_job(name, 180)
    else:
        kubernetes.create(kube_manifests.stateful_set(name, size, spec))
        wait_until(
            f"pod {name}-0 has heard of {size} pods",
            lambda: pod_zero(kubernetes, name),
            lambda text: "heard of all" in text,
            180,
            evidence=lambda: kubernetes.evidence_of({"app": name}),
        )
    text = pod_zero(kubernetes, name)
    kubernetes.delete(
        "Job" if indexed else "StatefulSet", name, "batch/v1" if indexed else "apps/v1"
    )
    return text


def pod_zero(kubernetes: Kubernetes, name: str) -> str:
    """Return what the pod with index 0 has written so far."""
    zero = [
        pod
        for pod in kubernetes.pods(labels={"app": name})
        if pod.name.startswith(f"{name}-0") and pod.phase != "Pending"
    ]
    return kubernetes.logs(zero[0]) if zero else ""


def domain(kubernetes: Kubernetes) -> str:
    """Return the cluster's DNS domain, by the first kubelet that tells its configuration."""
    for name in kubernetes.nodes:
        data = kubernetes.get(f"/api/v1/nodes/{name}/proxy/configz")
        found = data.get("kubeletconfig", {}).get("clusterDomain")
        if found:
            return str(found)
    return "cluster.local"


def test_a_pod_sees_its_config_map_and_its_secret(working_kubernetes: Kubernetes):
    kubernetes, name, word = working_kubernetes, named("mounted"), secrets.token_hex(8)
    for kind in ("ConfigMap", "Secret"):
        field = "data" if kind == "ConfigMap" else "stringData"
        kubernetes.create(
            {"apiVersion": "v1", "kind": kind, "metadata": {"name": name},
             field: {"word": f"{kind} {word}"}}
        )  # fmt: skip
    pod = kubernetes.run_pod(
        "cat /config/word; echo; cat /secret/word; echo; grep -c ' /secret tmpfs ' /proc/mounts",
        mounts={"/config": "config", "/secret": "secret"},
        volumes=[
            {"name": "config", "configMap": {"name": name}},
            {"name": "secret", "secret": {"secretName": name}},
        ],
    )
    kubernetes.wait_done(pod)
    # A Secret is never written to a node's disk: its volume is memory.
    assert kubernetes.logs(pod).split("\n") == [f"ConfigMap {word}", f"Secret {word}", "1"], (
        kubernetes.evidence(pod)
    )


def killed_by_the_kernel(kubernetes: Kubernetes, pod: Pod) -> bool:
    """Return whether the node's kernel says that it killed a process of the pod for its memory.

    containerd may hear of the end before it hears why; the kubelet then says Error and not
    OOMKilled (https://github.com/containerd/containerd/issues/8180).
    """
    log = kubernetes.cluster[pod.node].host.check_output("dmesg")
    # The cgroup's name has the pod's UID, with systemd's driver written with underscores.
    names = (pod.uid, pod.uid.replace("-", "_"))
    return any(
        "oom-kill:" in line and any(name in line for name in names) for line in log.splitlines()
    )


def test_a_pod_over_its_memory_is_killed_and_its_node_survives(working_kubernetes: Kubernetes):
    kubernetes = working_kubernetes
    limit = {"memory": "24Mi", "cpu": "500m"}
    pod = kubernetes.run_pod(
        # One block of 200 MB that dd holds in memory.
        "exec dd if=/dev/zero of=/dev/null bs=200M count=1",
        resources={"limits": limit, "requests": {"memory": "24Mi", "cpu": "10m"}},
    )
    seen = kubernetes.wait_done(pod)
    assert seen.ended == {"main": "OOMKilled"} or killed_by_the_kernel(kubernetes, seen), (
        f"a pod that took 200 MB with 24 MiB granted: {seen}\n{kubernetes.evidence(seen)}"
    )
    node = kubernetes.nodes[seen.node]
    assert node.ready, f"{node.name} after it: {node.why_not_ready}"


def test_a_pod_is_held_to_its_cpu_limit(working_kubernetes: Kubernetes):
    kubernetes = working_kubernetes
    # cgroup v2, then v1: quota and period of the pod's own group, in microseconds.
    pod = kubernetes.run_pod(
        "cat /sys/fs/cgroup/cpu.max 2>/dev/null || "
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us",
        resources={"limits": {"cpu": "200m"}, "requests": {"cpu": "10m"}},
    )
    seen = kubernetes.wait_done(pod)
    words = kubernetes.logs(seen).split()
    assert len(words) == 2, f"{seen} does not see its own limit: {words}"
    assert words[0].isdigit(), f"{seen} has no CPU limit: {words}"
    assert int(words[0]) / int(words[1]) == 0.2, f"200m was asked for {seen.name}, it has {words}"


def test_a_command_runs_in_a_pod_and_tells_its_status(web: WebServers):
    for node, pod in web.pods.items():
        done = web.kubernetes.exec(pod, "echo out; echo err >&2; exit 7")
        assert (done.stdout.strip(), done.stderr.strip(), done.rc) == ("out", "err", 7), (
            f"exec in a pod on {node} gave {done}"
        )


def test_a_port_of_a_pod_is_forwarded(web: WebServers):
    node, pod = list(web.pods.items())[-1]
    fetched = forwarded(web.kubernetes, pod)
    assert fetched.endswith(node), (
        f"kubectl port-forward to {pod} gave: {fetched}\n{web.kubernetes.evidence(pod)}"
    )


def forwarded(kubernetes: Kubernetes, pod: Pod) -> str:
    """Return what a GET through kubectl port-forward on the control plane gives."""
    script = (
        "import re, subprocess, sys, urllib.request\n"
        "go = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)\n"
        "line = go.stdout.readline().decode()\n"
        "try:\n"
        "    port = re.search(r'127.0.0.1:(\\d+)', line)\n"
        "    url = 'http://127.0.0.1:' + port.group(1) + '/' if port else sys.exit(line)\n"
        "    print(urllib.request.urlopen(url, timeout=20).read().decode())\n"
        "finally:\n"
        "    go.kill()\n"
    )
    done = kubernetes.plane.host.run(
        "PATH=$PATH:/usr/local/bin KUBECONFIG=/etc/kubernetes/admin.conf timeout 60 "
        "python3 -c %s kubectl port-forward -n %s --address 127.0.0.1 pod/%s :%s 2>&1",
        script, pod.namespace, pod.name, str(PORT),
    )  # fmt: skip
    return str(done.stdout).strip()
