"""What DeepOps deploys, in one table: groups, names, ports and paths that checks and playbooks
agree on.

These are DeepOps' defaults (config.example and the roles' defaults); a variable of a deployment
may change them, and checks discover the value from the cluster where the cluster can tell.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: Groups of a DeepOps inventory (config.example/inventory).
GROUPS: Final = (
    "slurm-master",
    "slurm-node",
    "slurm-nfs",
    "slurm-cache",
    "slurm-metric",
    "slurm-login",
    "slurm-cluster",
    "kube_control_plane",
    "etcd",
    "kube_node",
    "k8s_cluster",
)

#: What DeepOps puts on a cluster, in the order of deployment: part → its playbook. A test names a
#: part by the marker or the fixture of that name.
PARTS: Final[dict[str, str]] = {
    "slurm": "slurm-cluster.yml",
    "kubernetes": "k8s-cluster.yml",
}
#: Part → the groups that only it has a use for.
PART_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "slurm": (
        "slurm-master",
        "slurm-node",
        "slurm-nfs",
        "slurm-cache",
        "slurm-metric",
        "slurm-login",
        "slurm-cluster",
    ),
    "kubernetes": ("kube_control_plane", "etcd", "kube_node", "k8s_cluster"),
}

#: Groups of groups: group → its children as in config.example/inventory.
PARENT_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "slurm-cluster": (
        "slurm-master",
        "slurm-node",
        "slurm-cache",
        "slurm-nfs",
        "slurm-metric",
        "slurm-login",
    ),
    "k8s_cluster": ("kube_control_plane", "kube_node"),
}

PARTITION: Final = "batch"  # roles/slurm/templates/etc/slurm/slurm.conf
CLUSTER_NAME: Final = "deepops"  # slurm_cluster_name
SLURM_CONFIG_DIR: Final = "/etc/slurm"  # slurm_config_dir
SLURM_LOG_DIR: Final = "/var/log/slurm"
SLURMCTLD_PORT: Final = 6817
SLURMD_PORT: Final = 6818
SLURMDBD_PORT: Final = 6819
ACCOUNTING_DB: Final = "slurm_acct_db"
ACCOUNT: Final = "compute-account"

NFS_EXPORTS: Final = ("/home", "/sw")  # nfs_exports of group_vars/slurm-cluster.yml
NFS_PORT: Final = 2049

RSYSLOG_ROOT: Final = "/var/log/deepops-hosts"  # roles/rsyslog_server
RSYSLOG_PORT: Final = 514

LOCAL_USERS: Final = "/etc/localusers"  # slurm_allow_ssh_user, pam_listfile
#: A user whom the allow-list does not name: what pam_slurm_adopt decides for everybody else.
PLAIN_USER: Final = "testuser"

KUBE_ADMIN_CONF: Final = "/etc/kubernetes/admin.conf"  # kubeadm, Kubespray
KUBELET_CONF: Final = "/etc/kubernetes/kubelet.conf"  # kubeadm, Kubespray
KUBE_PKI: Final = "/etc/kubernetes/pki"
KUBE_API_PORT: Final = 6443
KUBELET_PORT: Final = 10250
ETCD_PORT: Final = 2379
CNI_CONFIG_DIR: Final = "/etc/cni/net.d"  # what containerd reads
#: Certificate files of a node, as shell patterns: of our stack and kubeadm, of Kubespray's etcd,
#: and what a kubelet renews by itself.
KUBE_CERTIFICATES: Final = (
    f"{KUBE_PKI}/*.crt",
    f"{KUBE_PKI}/etcd/*.crt",
    "/etc/kubernetes/ssl/*.crt",
    "/etc/ssl/etcd/ssl/*.pem",
    "/var/lib/kubelet/pki/kubelet-client-current.pem",
)
#: Where etcd's CA, a client certificate and its key are, as shell patterns; the first that exist.
ETCD_CERTIFICATES: Final = (
    (
        f"{KUBE_PKI}/etcd/ca.crt",
        f"{KUBE_PKI}/etcd/healthcheck-client.crt",
        f"{KUBE_PKI}/etcd/healthcheck-client.key",
    ),
    (
        "/etc/ssl/etcd/ssl/ca.pem",
        "/etc/ssl/etcd/ssl/admin-*[!y].pem",  # admin-NODE.pem, not admin-NODE-key.pem
        "/etc/ssl/etcd/ssl/admin-*-key.pem",
    ),
)
#: Label of the cluster's DNS pods and Service, whatever their names are.
KUBE_DNS_LABELS: Final = {"k8s-app": "kube-dns"}
#: Label of kube-proxy's pods where a DaemonSet brings it (kubeadm, Kubespray).
KUBE_PROXY_LABELS: Final = {"k8s-app": "kube-proxy"}
#: Image of the checks' own pods: the one that our stack imports, else a registry's.
CHECK_IMAGE: Final = "deepops.local/busybox:1"
CHECK_IMAGE_OF_REGISTRY: Final = "busybox:1.36"


def is_gpu_node(name: str) -> bool:
    """Return whether a node has GPUs, by its name, as in DeepOps' virtual-gpu01 (virtual/)."""
    return "gpu" in name


#: systemd units that a node runs for each of its groups.
UNITS: Final[dict[str, tuple[str, ...]]] = {
    "slurm-cluster": ("munge.service", "chrony.service", "rsyslog.service", "ssh.service"),
    "slurm-master": ("slurmctld.service", "slurmdbd.service", "mariadb.service"),
    "slurm-nfs": ("nfs-server.service",),
    "slurm-node": ("slurmd.service",),
    "k8s_cluster": (
        "kubelet.service",
        "containerd.service",
        "chrony.service",
        "rsyslog.service",
        "ssh.service",
    ),
    "etcd": ("etcd.service",),
}
#: TCP ports that a node listens on for each of its groups.
PORTS: Final[dict[str, dict[str, int]]] = {
    "slurm-master": {
        "slurmctld": SLURMCTLD_PORT,
        "slurmdbd": SLURMDBD_PORT,
        "rsyslog": RSYSLOG_PORT,
    },
    "slurm-nfs": {"nfs-server": NFS_PORT},
    "slurm-node": {"slurmd": SLURMD_PORT},
    "kube_control_plane": {"kube-apiserver": KUBE_API_PORT},
    "etcd": {"etcd": ETCD_PORT},
    "k8s_cluster": {"kubelet": KUBELET_PORT},
}
#: An MPI program that the distro stack puts on the shared file system.
MPI_HELLO: Final = "/sw/deepops-fixtures/mpi_hello.py"


class Card(NamedTuple):
    """What a kind of GPU can do by its data sheet."""

    #: GB/s (10**9 bytes) between the GPU and its own memory.
    bandwidth: int
    #: NVLinks that are all in use on the boards that this kind is sold on; None where boards and
    #: bridges differ.
    nvlinks: int | None = None


#: Cards by PCI vendor and device. Numbers: NVIDIA's data sheets of these products; which device
#: is which product: the PCI ID repository (https://pci-ids.ucw.cz).
CARDS: Final[dict[str, Card]] = {
    "10de:15f7": Card(549),  # Tesla P100 PCIe 12GB
    "10de:15f8": Card(732),  # Tesla P100 PCIe 16GB
    "10de:15f9": Card(732, 4),  # Tesla P100 SXM2 (DGX-1)
    "10de:1db1": Card(900, 6),  # Tesla V100 SXM2 16GB (DGX-1V)
    "10de:1db2": Card(900),  # Tesla V100 DGXS 16GB (DGX Station)
    "10de:1db4": Card(900),  # Tesla V100 PCIe 16GB
    "10de:1db5": Card(900, 6),  # Tesla V100 SXM2 32GB (DGX-1V)
    "10de:1db6": Card(900),  # Tesla V100 PCIe 32GB
    "10de:1db7": Card(900),  # Tesla V100 DGXS 32GB (DGX Station)
    "10de:1db8": Card(900, 6),  # Tesla V100 SXM3 32GB (DGX-2)
    "10de:1df6": Card(1134),  # Tesla V100S PCIe 32GB
    "10de:1eb8": Card(320),  # Tesla T4
    "10de:20b0": Card(1555, 12),  # A100 SXM4 40GB (DGX A100)
    "10de:20b2": Card(2039, 12),  # A100 SXM4 80GB (DGX A100)
    "10de:20b5": Card(1935),  # A100 PCIe 80GB
    "10de:20b7": Card(933),  # A30
    "10de:20f1": Card(1555),  # A100 PCIe 40GB
    "10de:2235": Card(696),  # A40
    "10de:2236": Card(600),  # A10
    "10de:26b5": Card(864),  # L40
    "10de:26b9": Card(864),  # L40S
    "10de:27b8": Card(300),  # L4
    "10de:2321": Card(3900),  # H100 NVL 94GB
    "10de:2330": Card(3350, 18),  # H100 SXM5 80GB (DGX H100)
    "10de:2331": Card(2000),  # H100 PCIe 80GB
    "10de:2335": Card(4800, 18),  # H200 SXM 141GB (DGX H200)
    "10de:233b": Card(4800),  # H200 NVL
}
#: PCI number of the first NVSwitch (10de:1ac1, DGX-2) and where its kind begins.
FIRST_NVSWITCH: Final = 0x1AC0
#: Where NVIDIA's GPU operator keeps the driver when it brings it in a container.
DRIVER_CONTAINER: Final = "/run/nvidia/driver"
#: Part of the data sheet's bandwidth that a copy within a card's memory has to reach.
BANDWIDTH_SHARE: Final = 0.7

#: What the driver means by the numbers in its kernel messages 'NVRM: Xid' (NVIDIA, XID Errors).
XIDS: Final[dict[int, str]] = {
    13: "exception in a program's kernel, or in the hardware",
    31: "a program touched memory that is not its own",
    32: "a broken command, of the driver or on the PCIe bus",
    38: "the driver's firmware failed",
    43: "a program's kernel was stopped",
    45: "a program was stopped before its end",
    46: "the GPU stopped working on its programs",
    48: "memory error that could not be corrected",
    54: "the card's power cable is not connected",
    56: "display engine error",
    61: "the GPU's own controller failed",
    62: "the GPU's own controller halted",
    63: "bad memory was taken out of use",
    64: "bad memory could not be taken out of use",
    69: "exception in the graphics engine",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many corrected memory errors",
    94: "memory error that hit one program",
    95: "memory error that may have hit every program",
    109: "a program did not let go of the GPU",
    119: "the GPU's system processor does not answer",
    120: "the GPU's system processor failed",
    137: "NVLink access that is not allowed",
    140: "memory error that could not be repaired",
    143: "the GPU could not be started",
    **dict.fromkeys(range(144, 151), "NVLink error"),
    154: "the driver asks for a reset or a reboot",
    156: "a bad part of the GPU was taken out of use",
    157: "a bad part of the GPU could not be taken out of use",
    160: "bad memory is marked for repair",
    161: "bad memory could not be marked for repair",
    171: "the memory error that Xid 48 tells was in the DRAM",
    172: "the memory error that Xid 48 tells was in the SRAM",
}
#: SXids that ask for nothing to be done (NVIDIA, Fabric Manager User Guide, non-fatal SXids).
HARMLESS_SXIDS: Final = frozenset({22013})


class Part(NamedTuple):
    """A part that DeepOps puts on Kubernetes, and how it is recognised in any namespace."""

    #: What it is called in a report.
    title: str
    #: The namespace where DeepOps puts it; where several fit, the one there counts.
    namespace: str
    #: Labels that its Services or workloads have, one set enough; the charts' of today and of some
    #: years ago.
    labels: tuple[dict[str, str], ...]
    #: Names of its Services where labels tell nothing.
    services: tuple[str, ...] = ()
    #: Port that it answers on within the cluster.
    port: int = 0
    #: NodePort that DeepOps gives it (0: none).
    node_port: int = 0
    #: Path that answers 200 when all is well.
    health: str = "/"


#: Sources: DeepOps' config.example/helm, roles' defaults and scripts/k8s; the labels: the charts
#: kube-prometheus-stack, ingress-nginx, docker-registry (twuni), metallb,
#: nfs-subdir-external-provisioner, gpu-operator and nvidia-device-plugin.
KUBE_PARTS: Final[dict[str, Part]] = {
    "gpu-operator": Part(
        "NVIDIA's GPU operator",
        "gpu-operator",
        ({"app": "gpu-operator"}, {"app.kubernetes.io/name": "gpu-operator"}),
    ),
    "device-plugin": Part(
        "NVIDIA's device plugin",
        "gpu-operator",
        (
            {"app": "nvidia-device-plugin-daemonset"},
            {"app.kubernetes.io/name": "nvidia-device-plugin"},
            {"name": "nvidia-device-plugin-ds"},
        ),
    ),
    "feature-discovery": Part(
        "NVIDIA's GPU feature discovery",
        "gpu-operator",
        (
            {"app": "gpu-feature-discovery"},
            {"app.kubernetes.io/name": "gpu-feature-discovery"},
        ),
    ),
    "dcgm-exporter": Part(
        "DCGM exporter",
        "gpu-operator",
        (
            {"app": "nvidia-dcgm-exporter"},
            {"app": "dcgm-exporter"},
            {"app.kubernetes.io/name": "dcgm-exporter"},
        ),
        port=9400,
        health="/health",
    ),
    "ingress": Part(
        "ingress-nginx",
        "deepops-ingress",
        (
            {
                "app.kubernetes.io/name": "ingress-nginx",
                "app.kubernetes.io/component": "controller",
            },
            {"app": "ingress-nginx"},
        ),
        ("ingress-nginx-controller", "ingress-nginx"),
        port=80,
    ),
    "metallb": Part(
        "MetalLB",
        "deepops-loadbalancer",
        (
            {"app.kubernetes.io/name": "metallb", "app.kubernetes.io/component": "controller"},
            {"app": "metallb", "component": "controller"},
        ),
    ),
    "registry": Part(
        "the container registry",
        "deepops-docker",
        ({"app": "docker-registry"}, {"app.kubernetes.io/name": "docker-registry"}),
        ("docker-registry",),
        port=5000,
        node_port=31500,
        health="/v2/",
    ),
    "prometheus": Part(
        "Prometheus",
        "monitoring",
        (
            {"app": "kube-prometheus-stack-prometheus"},
            {"app": "prometheus-operator-prometheus"},
            {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"},
        ),
        ("kube-prometheus-stack-prometheus", "prometheus-operated", "prometheus"),
        port=9090,
        node_port=30500,
        health="/-/ready",
    ),
    "grafana": Part(
        "Grafana",
        "monitoring",
        ({"app.kubernetes.io/name": "grafana"}, {"app": "grafana"}),
        ("kube-prometheus-stack-grafana", "grafana"),
        port=80,
        node_port=30200,
        health="/api/health",
    ),
    "alertmanager": Part(
        "Alertmanager",
        "monitoring",
        (
            {"app": "kube-prometheus-stack-alertmanager"},
            {"app": "prometheus-operator-alertmanager"},
            {"app.kubernetes.io/name": "alertmanager"},
        ),
        ("kube-prometheus-stack-alertmanager", "alertmanager-operated", "alertmanager"),
        port=9093,
        node_port=30400,
        health="/-/ready",
    ),
    "dashboard": Part(
        "Kubernetes' dashboard",
        "kube-system",
        (
            {"k8s-app": "kubernetes-dashboard"},
            {"app.kubernetes.io/name": "kubernetes-dashboard"},
            {
                "app.kubernetes.io/name": "kong",
                "app.kubernetes.io/instance": "kubernetes-dashboard",
            },
        ),
        ("kubernetes-dashboard-kong-proxy", "kubernetes-dashboard"),
        port=443,
        node_port=31443,
    ),
    "nfs-provisioner": Part(
        "the NFS provisioner",
        "deepops-nfs-client-provisioner",
        (
            {"app": "nfs-subdir-external-provisioner"},
            {"app": "nfs-client-provisioner"},
        ),
    ),
}
#: What MetalLB gives away (config.example/helm/metallb-resources.yml).
LOAD_BALANCER_POOL: Final = ("10.0.0.100-10.0.0.110",)
#: Resource names of NVIDIA's device plugin.
GPU_RESOURCE: Final = "nvidia.com/gpu"
MIG_RESOURCES: Final = "nvidia.com/mig-"
#: Image with a C library, for pods that run nvidia-smi where the node has none like it.
CUDA_IMAGE: Final = "nvcr.io/nvidia/cuda:12.4.1-base-ubuntu22.04"
#: Label of ConfigMaps that Grafana's sidecar takes dashboards from
#: (scripts/k8s/deploy_monitoring.sh).
DASHBOARD_LABEL: Final = "grafana_dashboard"
