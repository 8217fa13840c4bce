"""The shared folders: exported by the server, mounted by everybody else. Source: exportfs(8),
findmnt(8).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from deepops_fixtures import facts
from deepops_fixtures.checks import remote
from deepops_fixtures.checks.waiting import failure
from deepops_fixtures.cluster.running import Node, Nodes


@dataclass(frozen=True)
class Mount:
    """A mounted file system: ``source`` is 'server:/path' for NFS."""

    target: str
    source: str
    kind: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.target} is {self.kind} from {self.source}"
            if self.kind
            else (f"{self.target} is not mounted")
        )


class Nfs:
    """The shared folders of a cluster.

    >>> nfs.mount(nodes["virtual-gpu01"], "/home").source
    'virtual-login:/home'
    """

    def __init__(self, nodes: Nodes) -> None:
        self.server = nodes.nfs_server
        self.clients = [node for node in nodes.group("slurm-cluster") if node is not self.server]

    @property
    def exports(self) -> dict[str, str]:
        """The folders that the server exports, each with its options as exportfs writes them."""
        said = remote.run(self.server, "exportfs -s").text
        pairs = (line.split(None, 1) for line in said.splitlines() if line.startswith("/"))
        return {pair[0]: pair[-1] for pair in pairs}

    @staticmethod
    def mount_command(path: str) -> str:
        """The command whose answer ``parse_mount`` understands; it hangs on no dead server."""
        return (
            f"findmnt --noheadings --raw --mountpoint {path} --output TARGET,SOURCE,FSTYPE,OPTIONS"
        )

    @staticmethod
    def parse_mount(path: str, text: str) -> Mount:
        """Return the mount from what ``mount_command`` said; the last one where several lie
        stacked.
        """
        lines = [line.split() for line in text.splitlines() if line.startswith(path)]
        if not lines or len(lines[-1]) < 4:
            return Mount(path, "", "", ())
        target, source, kind, options = lines[-1][:4]
        return Mount(target, source, kind, tuple(options.split(",")))

    def mount(self, node: Node, path: str) -> Mount:
        """Return what is mounted at this very path on a node."""
        return self.parse_mount(path, remote.run(node, self.mount_command(path)).text)

    def mounts(self, node: Node) -> list[Mount]:
        """Return what is mounted on a node at each path that DeepOps shares."""
        said = remote.ask(node, {path: self.mount_command(path) for path in facts.NFS_EXPORTS})
        return [self.parse_mount(path, answer.text) for path, answer in said.items()]

    def is_ours(self, mount: Mount) -> bool:
        """Whether a mount is NFS from the cluster's server."""
        server = mount.source.rpartition(":")[0].strip("[]")
        return mount.kind.startswith("nfs") and server in (self.server.name, self.server.address)

    def write(self, node: Node, folder: str) -> tuple[str, str]:
        """Write a new file on a node as root; return its path and what it holds."""
        __tracebackhide__ = True
        text = f"written on {node.name} {secrets.token_hex(6)}"
        path = f"{folder}/.deepops-check-{secrets.token_hex(6)}"
        answer = remote.run(node, f"timeout 20 sh -c \"echo '{text}' > {path}\"")
        if not answer.ok:
            raise failure(f"Node '{node.name}' cannot write {path}.", answer.text)
        return path, text
