"""The fault table of Kubernetes: as ``fault_table``, on a cluster that carries both parts."""

from __future__ import annotations

from tests.harness.e2e.fault_table import GPU, MGMT, Fault, in_rounds

_ADMIN = "KUBECONFIG=/etc/kubernetes/admin.conf"
RUNS = f"test_the_kubelet_and_the_runtime_of_the_node_run[{GPU}]"
READY = f"test_the_node_is_ready[{GPU}]"


def _seen(condition: str) -> dict[str, str]:
    """Wait until the API has noticed: that a kubelet is silent takes it 40 s
    (kube-controller-manager(8), --node-monitor-grace-period)."""
    wait = f"kubectl wait --for=condition={condition} --timeout=150s node/{GPU}"
    return {MGMT: f"{_ADMIN} {wait}"}


FAULTS = (
    Fault(
        "kubelet-stopped", GPU,
        "systemctl stop kubelet",
        {RUNS: "kubelet is inactive", READY: "Kubelet stopped posting node status"},
        _seen("Ready=Unknown"),
    ),
    Fault(
        "containerd-stopped", GPU,
        "systemctl stop containerd",
        {
            RUNS: "kubelet is inactive; containerd is inactive",
            READY: "Kubelet stopped posting node status",
        },
        _seen("Ready=Unknown"),
    ),
    Fault(
        "cni-missing", GPU,
        "rm /etc/cni/net.d/*; systemctl restart containerd kubelet",
        {
            f"test_the_node_has_a_cni_configuration[{GPU}]":
                f"{GPU}: no CNI configuration in /etc/cni/net.d",
            READY: "cni plugin not initialized",
        },
        _seen("Ready=False"),
    ),
    Fault(
        "kube-proxy-stopped", GPU,
        "systemctl stop kube-proxy",
        {
            f"test_kube_proxy_of_the_node_programs_the_services[{GPU}]":
                f"kube-proxy of {GPU} is inactive",
        },
    ),
    Fault(
        "cluster-dns-gone", MGMT,
        f"{_ADMIN} kubectl --namespace kube-system scale deployment cluster-dns --replicas=0; "
        f"{_ADMIN} kubectl --namespace kube-system wait --for=delete pod -l k8s-app=kube-dns "
        "--timeout=90s",
        {"test_the_clusters_dns_runs_and_has_a_service": "kube-system has no pod with the label"},
    ),
    Fault(
        "foreign-kubelet-certificate", GPU,
        "cd /etc/kubernetes; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
        f"-nodes -subj /O=system:nodes/CN=system:node:{GPU} -days 30 -keyout /root/k -out /root/c "
        "2>/dev/null; "
        "sed -i \"s|\\(client-certificate-data: \\).*|\\1$(base64 -w0 /root/c)|; "
        "s|\\(client-key-data: \\).*|\\1$(base64 -w0 /root/k)|\" kubelet.conf; "
        "systemctl restart kubelet",
        {
            f"test_the_certificates_of_the_node_are_of_this_cluster[{GPU}]":
                f"no authority of {MGMT} has issued: /etc/kubernetes/kubelet.conf",
            READY: "Kubelet stopped posting node status",
            f"test_the_api_server_reaches_the_kubelet_of_the_node[{GPU}]": "Authorization error",
        },
        _seen("Ready=Unknown"),
    ),
    Fault(
        "etcd-stopped", MGMT,
        "systemctl stop etcd",
        {
            "test_the_api_server_answers": f"The API server on '{MGMT}' does not answer",
            f"test_etcd_of_the_node_is_healthy[{MGMT}]": "etcd.service is inactive",
        },
    ),
    Fault(
        "node-cordoned", MGMT,
        f"{_ADMIN} kubectl cordon {GPU}",
        {f"test_the_node_takes_pods[{GPU}]": f"{GPU} is cordoned and was forgotten"},
    ),
    Fault(
        "disk-full", GPU,
        "fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - 200000000)) /var/filler",
        {f"test_the_node_is_short_of_nothing[{GPU}]": f"{GPU}: DiskPressure is True"},
        _seen("DiskPressure=True"),
    ),
    Fault(
        "clock-an-hour-off", GPU,
        "systemctl stop chrony; date -s '+1 hour'",
        {
            f"test_the_clock_of_the_node_agrees_with_the_control_planes[{GPU}]":
                f"the clock of {GPU} is 3600.",
        },
    ),
    Fault(
        "service-network-clash", GPU,
        "ip route add 10.233.7.0/24 dev lo",
        {
            "test_the_service_network_is_used_for_nothing_else":
                f"10.233.7.0/24 (route of {GPU}",
        },
    ),
    Fault(
        "node-never-joined", GPU,
        "systemctl disable --now kubelet",
        {
            f"test_the_node_is_in_the_api_under_its_name[{GPU}]": f"'{GPU}' never joined",
            RUNS: "kubelet is inactive",
        },
        {MGMT: f"{_ADMIN} kubectl delete node {GPU}"},
    ),
)  # fmt: skip

ROUNDS = in_rounds(
    FAULTS,
    "kube-proxy-stopped disk-full",
    "cni-missing service-network-clash",
    "kubelet-stopped cluster-dns-gone",
    "containerd-stopped clock-an-hour-off",
    "etcd-stopped",
    "foreign-kubelet-certificate node-cordoned",
    "node-never-joined",
)
#: How many of them are played without --harness-all-faults: two minutes each.
FIRST = 1
