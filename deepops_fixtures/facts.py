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
    "slurm-metric",
    "slurm-login",
    "slurm-cluster",
    "kube_control_plane",
    "etcd",
    "kube_node",
    "k8s_cluster",
)

#: Group of groups: children as in config.example/inventory.
SLURM_CLUSTER_CHILDREN: Final = ("slurm-master", "slurm-node", "slurm-login")

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


def is_gpu_node(name: str) -> bool:
    """Return whether a node has GPUs, by its name, as in DeepOps' virtual-gpu01 (virtual/)."""
    return "gpu" in name


#: systemd units that a node runs for each of its groups.
UNITS: Final[dict[str, tuple[str, ...]]] = {
    "slurm-cluster": ("munge.service", "chrony.service", "rsyslog.service", "ssh.service"),
    "slurm-master": ("slurmctld.service", "slurmdbd.service", "mariadb.service"),
    "slurm-nfs": ("nfs-server.service",),
    "slurm-node": ("slurmd.service",),
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
    48: "memory error that could not be corrected",
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
    140: "memory error that could not be repaired",
    154: "the driver asks for a reset or a reboot",
}
