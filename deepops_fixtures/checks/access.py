"""Who may log in to a compute node: everybody on its list, others only while a job of theirs runs
there.

Source: pam_slurm_adopt(8); DeepOps' variables slurm_restrict_node_access and slurm_allow_ssh_user.
"""

from __future__ import annotations

from deepops_fixtures import facts
from deepops_fixtures.checks import remote
from deepops_fixtures.checks.remote import Answer
from deepops_fixtures.cluster.running import Node, Nodes

_SSH = (
    "ssh -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=no"
    " -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
)


class Access:
    """Logins from the login node to other nodes.

    >>> access.log_in(nodes["virtual-gpu01"], "testuser").text
    'Access denied by pam_slurm_adopt: you have no active jobs on this node'
    """

    def __init__(self, nodes: Nodes) -> None:
        self.login = nodes.login

    def log_in(self, node: Node, user: str = facts.PLAIN_USER, command: str = "true") -> Answer:
        """Try to run a command on a node by ssh from the login node, as ``user``."""
        return remote.run(self.login, f"timeout 60 {_SSH} {node.name} '{command}'", user=user)
