"""What DeepOps deploys, in one table: groups, names, ports and paths that checks and playbooks
agree on.

These are DeepOps' defaults (config.example and the roles' defaults); a variable of a deployment
may change them, and checks discover the value from the cluster where the cluster can tell.
"""

from __future__ import annotations

from typing import Final

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
