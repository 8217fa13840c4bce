"""The cluster's logs on one node: a line written anywhere arrives there. Source: DeepOps' role
rsyslog_server.
"""

from __future__ import annotations

import secrets

from deepops_fixtures import facts
from deepops_fixtures.checks import remote
from deepops_fixtures.checks.units import Units
from deepops_fixtures.checks.waiting import titled, wait_until
from deepops_fixtures.cluster.running import Node, Nodes
from deepops_fixtures.proc import Deadline


class Rsyslog:
    """The log server and what its clients sent it.

    >>> rsyslog.wait_for(rsyslog.say(node), node)
    '/var/log/deepops-hosts/virtual-gpu01/2026-11-23/syslog.log'
    """

    def __init__(self, nodes: Nodes) -> None:
        self.server = nodes.slurm_controller
        self.clients = [node for node in nodes.slurm_nodes if node is not self.server]

    def say(self, node: Node) -> str:
        """Write a line to a node's own log and return the word in it that is found nowhere else.
        """
        word = f"deepops-check-{secrets.token_hex(6)}"
        remote.run(node, f"logger --tag deepops-check {word}")
        return word

    def wait_for(self, word: str, node: Node, *, seconds: float = 20) -> str:
        """Wait until a node's line has arrived on the server; return the file that holds it."""
        __tracebackhide__ = True
        folder = f"{facts.RSYSLOG_ROOT}/{node.name}"
        return wait_until(
            f"Arrival of a log line of '{node.name}' in {self.server.name}:{folder}",
            lambda: remote.run(self.server, f"grep -rlF {word} {folder}").text.strip(),
            deadline=Deadline.after(seconds),
            done=lambda seen: seen.startswith(folder),
            evidence=lambda: self._evidence(node, folder),
        )

    def _evidence(self, node: Node, folder: str) -> str:
        files = remote.run(self.server, f"ls -lR {folder} | tail -n 12").text
        journals = (Units(one).journal("rsyslog") for one in (node, self.server))
        return "\n".join([titled(f"{self.server.name}:{folder}", files), *journals])
