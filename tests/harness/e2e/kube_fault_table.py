"""The fault table of Kubernetes: as ``fault_table``, on a cluster that carries both parts."""

from __future__ import annotations

from tests.harness.e2e.fault_table import GPU, MGMT, Fault, in_rounds

_ADMIN = "KUBECONFIG=/etc/kubernetes/admin.conf"
#: Waits until the API has noticed that a kubelet is silent: 40 s (kube-controller-manager(8),
#: --node-monitor-grace-period).
_NOT_READY = f"{_ADMIN} kubectl wait --for=condition=Ready=Unknown --timeout=120s node/{GPU}"

FAULTS = (
    Fault("kubelet-stopped", GPU, "systemctl stop kubelet", {}, then={MGMT: _NOT_READY}),
    Fault("containerd-stopped", GPU, "systemctl stop containerd", {}),
    Fault(
        "cni-missing", GPU,
        "rm /etc/cni/net.d/*; systemctl restart containerd kubelet",
        {},
        then={MGMT: _NOT_READY.replace("Unknown", "False")},
    ),
    Fault("kube-proxy-stopped", GPU, "systemctl stop kube-proxy", {}),
    Fault(
        "cluster-dns-gone", MGMT,
        f"{_ADMIN} kubectl --namespace kube-system scale deployment cluster-dns --replicas=0; "
        f"{_ADMIN} kubectl --namespace kube-system wait --for=delete pod -l k8s-app=kube-dns "
        "--timeout=90s",
        {},
    ),
    Fault(
        "foreign-kubelet-certificate", GPU,
        "cd /etc/kubernetes; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
        f"-nodes -subj /O=system:nodes/CN=system:node:{GPU} -days 30 -keyout /root/k -out /root/c "
        "2>/dev/null; "
        "sed -i \"s|\\(client-certificate-data: \\).*|\\1$(base64 -w0 /root/c)|; "
        "s|\\(client-key-data: \\).*|\\1$(base64 -w0 /root/k)|\" kubelet.conf; "
        "systemctl restart kubelet",
        {},
    ),
    Fault("etcd-stopped", MGMT, "systemctl stop etcd", {}),
    Fault("node-cordoned", MGMT, f"{_ADMIN} kubectl cordon {GPU}", {}),
    Fault(
        "disk-full", GPU,
        "fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - 200000000)) /var/filler",
        {},
    ),
    Fault("clock-an-hour-off", GPU, "systemctl stop chrony; date -s '+1 hour'", {}),
    Fault(
        "service-network-clash", GPU, "ip route add 10.233.7.0/24 dev lo", {}
    ),
    Fault(
        "node-never-joined", GPU, "systemctl disable --now kubelet",
        {},
        then={MGMT: f"{_ADMIN} kubectl delete node {GPU}"},
    ),
)  # fmt: skip

ROUNDS = in_rounds(FAULTS, *(fault.name for fault in FAULTS))
