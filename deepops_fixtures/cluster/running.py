"""A cluster that answers: plain data about its nodes, and the testinfra hosts made from it.

The data is what providers hand on, what other processes of an xdist run read, and what the ledger keeps.
Not for bringing anything up or down.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import testinfra
import testinfra.host
from pydantic import BaseModel, ConfigDict

from deepops_fixtures import facts


class NodeData(BaseModel):
    """One node as a provider describes it."""

    model_config = ConfigDict(frozen=True)

    name: str
    #: DeepOps groups, parents such as slurm-cluster included.
    groups: list[str]
    #: Address in the cluster's own network ('' when unknown).
    address: str = ""
    connection: Literal["ssh", "local"] = "ssh"
    #: File that records the serial console ('' when there is none).
    console: str = ""


class RunningCluster(BaseModel):
    """A cluster whose nodes answer. Serializable; holds no connection."""

    model_config = ConfigDict(frozen=True)

    name: str
    provider: Literal["vagrant", "inventory"]
    nodes: list[NodeData]
    #: OpenSSH client configuration with a Host entry a node and multiplexing.
    ssh_config: Path | None = None
    #: Ansible inventory of the cluster.
    inventory: Path
    #: 'kvm' or 'tcg', and why; '' for hosts that we did not make.
    accelerator: str = ""
    accelerator_reason: str = ""
    #: False for existing hosts: destructive checks are skipped there.
    disposable: bool = True


class Node:
    """One node with its connections: ``host`` works as root (sudo), ``user_host`` as the login user."""

    def __init__(self, data: NodeData, ssh_config: Path | None) -> None:
        self.name = data.name
        self.groups = data.groups
        self.address = data.address
        self._data = data
        self._ssh_config = ssh_config

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def _connect(self, sudo: bool) -> testinfra.host.Host:
        if self._data.connection == "local":
            return testinfra.get_host("local://", sudo=sudo)
        return testinfra.get_host(
            f"ssh://{quote(self.name)}", ssh_config=str(self._ssh_config), sudo=sudo,
            # The ssh_config multiplexes; testinfra's own ControlPersist sets no ControlPath.
            controlpersist=0,
        )

    @cached_property
    def host(self) -> testinfra.host.Host:
        """The testinfra host of this node, as root."""
        return self._connect(sudo=True)

    @cached_property
    def user_host(self) -> testinfra.host.Host:
        """The testinfra host of this node, as the user that logs in."""
        return self._connect(sudo=False)


class Nodes:
    """The nodes of a running cluster, by name and by group, in the cluster file's order.

    >>> nodes["virtual-login"].host.check_output("hostname")
    'virtual-login'
    >>> [node.name for node in nodes.group("slurm-node")]
    ['virtual-mgmt', 'virtual-gpu01']
    """

    def __init__(self, cluster: RunningCluster) -> None:
        self.cluster = cluster
        self._nodes = {data.name: Node(data, cluster.ssh_config) for data in cluster.nodes}

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def group(self, name: str) -> list[Node]:
        """Return the nodes of a DeepOps group; an unknown or empty group gives []."""
        return [node for node in self if name in node.groups]

    @property
    def slurm_controller(self) -> Node:
        """The node that runs slurmctld: the first of group slurm-master."""
        return self.group("slurm-master")[0]

    @property
    def slurm_nodes(self) -> list[Node]:
        """The nodes that run slurmd."""
        return self.group("slurm-node")

    @property
    def nfs_server(self) -> Node:
        """The node that exports /home and /sw: slurm-nfs[0], else the controller (DeepOps' default)."""
        servers = self.group("slurm-nfs")
        return servers[0] if servers else self.slurm_controller


def with_parent_groups(groups: list[str]) -> list[str]:
    """Return the groups with DeepOps' parent groups added (slurm-cluster)."""
    if set(groups) & set(facts.SLURM_CLUSTER_CHILDREN) and "slurm-cluster" not in groups:
        return [*groups, "slurm-cluster"]
    return list(groups)
