"""A cluster that answers: plain data about its nodes, and the testinfra hosts made from it.

The data is what providers hand on, what other processes of an xdist run read, and what the ledger
keeps. Not for bringing anything up or down.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import testinfra
import testinfra.host
from pydantic import BaseModel, ConfigDict
from testinfra.backend.base import CommandResult

from deepops_fixtures import facts
from deepops_fixtures.cluster import ssh
from deepops_fixtures.records import CommandRecord


class NodeData(BaseModel):
    """One node as a provider describes it."""

    model_config = ConfigDict(frozen=True)

    name: str
    #: DeepOps groups, parents such as slurm-cluster included.
    groups: list[str]
    #: Address in the cluster's own network ('' when unknown).
    address: str = ""
    connection: Literal["ssh", "local"] = "ssh"
    #: Whether our key lets root in; sudo costs an emulated node half a second a command.
    root_login: bool = False
    #: File that records the serial console ('' when there is none).
    console: str = ""
    #: Devices of the host that the node has for itself, 'name [vendor:device] at BDF' each.
    devices: list[str] = []


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
    #: Whether the machines' networks have no way out (``--deepops-airgap``).
    airgap: bool = False
    #: False for existing hosts: destructive checks are skipped there.
    disposable: bool = True


Recorder = Callable[[CommandRecord], None]


class _Told(CommandResult):  # type: ignore[misc]  # testinfra has no types
    """A command's result that says where it was run and what came back, as a person would: it is
    all that testinfra's check_output and run_expect say of a command that failed."""

    node: str

    def __repr__(self) -> str:
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        said = "\n".join(lines[-5:]) or "no output"
        return f"'{self.command.decode(errors='replace')}' on {self.node}: {said}"


def _listen(host: testinfra.host.Host, node: str, user: str, record: Recorder) -> None:
    """Have every command that this testinfra host runs recorded: what was run, what came back, how
    long."""
    run = host.backend.run

    def recorded(command: str, *args: str, **options: Any) -> Any:
        begin = time.monotonic()
        text = host.backend.quote(command, *args)
        try:
            result = run(command, *args, **options)
        except Exception as error:
            took = time.monotonic() - begin
            record(CommandRecord(node, text, -1, "", str(error), round(took, 3), user))
            raise
        took = time.monotonic() - begin
        record(
            CommandRecord(
                node, text, result.rc, str(result.stdout), str(result.stderr), round(took, 3), user
            )
        )
        told = _Told(**{field.name: getattr(result, field.name) for field in fields(result)})
        told.node = node
        return told

    host.backend.run = recorded


class Node:
    """One node with its connections: ``host`` works as root (sudo), ``user_host`` as the login
    user."""

    def __init__(
        self, data: NodeData, ssh_config: Path | None, record: Recorder | None = None
    ) -> None:
        self._record = record
        self.name = data.name
        self.groups = data.groups
        self.address = data.address
        self._data = data
        self._ssh_config = ssh_config

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def _connect(self, sudo: bool) -> testinfra.host.Host:
        if self._data.connection == "local":
            host = testinfra.get_host("local://", sudo=sudo and os.getuid() != 0)
        else:
            as_root = sudo and self._data.root_login
            host = testinfra.get_host(
                f"ssh://{'root@' if as_root else ''}{quote(self.name)}",
                ssh_config=str(self._ssh_config),
                sudo=sudo and not as_root,
                # The ssh_config multiplexes; testinfra's own ControlPersist sets no ControlPath.
                controlpersist=0,
            )
        if self._record:
            _listen(host, self.name, "root" if sudo else "user", self._record)
        return host

    @cached_property
    def host(self) -> testinfra.host.Host:
        """The testinfra host of this node, as root."""
        return self._connect(sudo=True)

    @cached_property
    def user_host(self) -> testinfra.host.Host:
        """The testinfra host of this node, as the user that logs in."""
        return self._connect(sudo=False)

    def run_script(self, script: str, seconds: float) -> str:
        """Run a shell script as root over one connection and return all it wrote; it is not
        recorded.

        Raises subprocess.TimeoutExpired and OSError.
        """
        command = ["sudo", "-n", "sh", "-s"]
        if self._ssh_config:
            remote = (
                ["-l", "root", self.name, "sh", "-s"]
                if self._data.root_login
                else [self.name, *command]
            )
            command = ["ssh", "-F", str(self._ssh_config), "-o", "BatchMode=yes", *remote]
        elif os.getuid() == 0:
            command = ["sh", "-s"]
        done = subprocess.run(
            command,
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        return done.stdout

    def reconnect(self) -> None:
        """Drop the shared ssh connection, which a reboot leaves hanging; the next command opens
        another."""
        if self._ssh_config:
            ssh.close_connections(self._ssh_config, [self.name])

    def try_command(self, command: str, seconds: int = 20) -> str:
        """Return a command's output, '' while the node does not answer (during a reboot)."""
        if self._ssh_config is None:
            return str(self.host.run(command).stdout).strip()
        try:
            done = subprocess.run(
                ["ssh", "-F", str(self._ssh_config), "-o", "ConnectTimeout=8", self.name, command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                text=True,
            )
        except subprocess.TimeoutExpired:
            self.reconnect()
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""


class Nodes:
    """The nodes of a running cluster, by name and by group, in the cluster file's order.

    >>> nodes["virtual-login"].host.check_output("hostname")
    'virtual-login'
    >>> [node.name for node in nodes.group("slurm-node")]
    ['virtual-mgmt', 'virtual-gpu01']
    """

    def __init__(self, cluster: RunningCluster, record: Recorder | None = None) -> None:
        self.cluster = cluster
        self._nodes = {data.name: Node(data, cluster.ssh_config, record) for data in cluster.nodes}

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
    def login(self) -> Node:
        """The node that users log in to: slurm-login[0], else the Slurm controller, else the first
        node."""
        for group in ("slurm-login", "slurm-master"):
            if self.group(group):
                return self.group(group)[0]
        return next(iter(self))

    @property
    def management(self) -> Node:
        """The first control plane node, else the first node named …mgmt…, else the login node."""
        planes = self.group("kube_control_plane") or [node for node in self if "mgmt" in node.name]
        return planes[0] if planes else self.login

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
        """The node that exports /home and /sw: slurm-nfs[0], else the controller (DeepOps'
        default)."""
        servers = self.group("slurm-nfs")
        return servers[0] if servers else self.slurm_controller


def with_parent_groups(groups: list[str]) -> list[str]:
    """Return the groups with DeepOps' parent groups added (slurm-cluster, k8s_cluster)."""
    added = [
        parent
        for parent, children in facts.PARENT_GROUPS.items()
        if set(groups) & set(children) and parent not in groups
    ]
    return [*groups, *added]


def without_groups(cluster: RunningCluster, groups: Collection[str]) -> RunningCluster:
    """Return the cluster with none of its nodes in these groups; its Ansible inventory keeps
    them."""
    nodes = [
        node.model_copy(update={"groups": [item for item in node.groups if item not in groups]})
        for node in cluster.nodes
    ]
    return cluster.model_copy(update={"nodes": nodes})
