"""The services that every DeepOps node carries: systemd units, munge, clocks, names, NFS, rsyslog,
ssh access."""

from __future__ import annotations

import csv
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepops_fixtures import facts
from deepops_fixtures.checks.waiting import wait_until

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node, Nodes


@dataclass(frozen=True)
class Unit:
    """A systemd unit's state: active ('active', 'inactive', 'failed'), enabled ('enabled',
    'disabled', …)."""

    name: str
    active: str
    enabled: str

    def __str__(self) -> str:
        return f"{self.name} is {self.active} and {self.enabled}"

    @property
    def good(self) -> bool:
        """Whether it runs and comes back after a reboot."""
        return self.active == "active" and self.enabled in (
            "enabled",
            "static",
            "alias",
            "generated",
        )


class Units:
    """The units a node must run for its groups, and how they are.

    >>> [str(unit) for unit in units.of(node) if not unit.good]
    ['slurmd.service is inactive and enabled']
    """

    def __init__(self, deployed: Callable[[str], bool] = lambda name: True) -> None:
        #: Says of a unit, or of a service that has a port, whether anybody has deployed it.
        self._deployed = deployed

    def expected(self, node: Node) -> list[str]:
        """Return the units that the node's DeepOps groups ask for (facts.UNITS), of those that are
        deployed."""
        names = [unit for group in node.groups for unit in facts.UNITS.get(group, ())]
        return [name for name in dict.fromkeys(names) if self._deployed(name)]

    def ports(self, node: Node) -> dict[str, int]:
        """Return service → TCP port that the node's DeepOps groups ask for (facts.PORTS), of those
        that are deployed."""
        found = {
            name: port
            for group in node.groups
            for name, port in facts.PORTS.get(group, {}).items()
        }
        return {name: port for name, port in found.items() if self._deployed(name)}

    def of(self, node: Node) -> list[Unit]:
        """Return the state of each expected unit, read in one command."""
        names = self.expected(node)
        output = node.host.run(
            "systemctl show --property=Id,ActiveState,UnitFileState " + " ".join(names)
        ).stdout
        found = []
        for block, name in zip(output.strip().split("\n\n"), names, strict=False):
            pairs = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            enabled = pairs.get("UnitFileState", "") or "absent"
            found.append(Unit(name, pairs.get("ActiveState", "unknown"), enabled))
        return found

    def why(self, node: Node, unit: Unit) -> str:
        """Return the end of a unit's journal."""
        text = node.host.run(f"journalctl --no-pager -n 8 -o cat -u {unit.name} 2>&1").stdout
        return f"--- journal of {unit.name} on {node.name} ---\n{text.rstrip()}"

    def failed(self, node: Node) -> list[str]:
        """Return the units of a node that systemd counts as failed."""
        output = node.host.run("systemctl list-units --failed --plain --no-legend").stdout
        return [line.split()[0] for line in output.splitlines() if line.strip()]

    def listening(self, node: Node) -> set[int]:
        """Return the TCP ports that something listens on."""
        output = node.host.check_output("ss --no-header --tcp --listening --numeric")
        return {int(line.split()[3].rsplit(":", 1)[1]) for line in output.splitlines()}


class Munge:
    """Credentials of munge between nodes (munge(7))."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def encode(self, node: Node) -> str:
        """Return a credential made on a node; raises AssertionError with munge's own words."""
        return str(node.host.check_output("timeout 15 munge -n"))

    def decode(self, node: Node, credential: str) -> str:
        """Return 'Success (0)' when a node accepts a credential, else what unmunge says of it."""
        done = node.host.run("printf %%s %s | timeout 15 unmunge 2>&1", credential)
        for line in done.stdout.splitlines():
            if line.startswith("STATUS:"):
                return str(line.split(":", 1)[1].strip())
        return str(done.stdout.strip() or f"exit status {done.rc}")

    def refusals(self, nodes: list[Node]) -> dict[tuple[str, str], str]:
        """Return what each (maker, reader) pair of nodes says where a credential is not
        accepted."""
        credentials = {node.name: self.encode(node) for node in nodes}
        found = {}
        for reader in nodes:
            for maker, credential in credentials.items():
                said = self.decode(reader, credential)
                if not said.startswith("Success"):
                    found[maker, reader.name] = said
        return found

    def blame(self, refusals: dict[tuple[str, str], str]) -> str:
        """Return one sentence that names the node which agrees with no other, when there is
        one."""
        names = {name for pair in refusals for name in pair}
        odd = [name for name in names if all(name in pair for pair in refusals)]
        pairs = "; ".join(f"{a} -> {b}: {said}" for (a, b), said in sorted(refusals.items()))
        who = (
            f"{odd[0]} has another munge key than the rest"
            if len(odd) == 1
            else "munge keys differ"
        )
        return f"{who} ({pairs})"

    def key_digest(self, node: Node) -> str:
        """Return a salted digest of a node's key: good for comparing, useless for anything
        else."""
        output = node.host.check_output("sha256sum /etc/munge/munge.key")
        return hashlib.sha256(f"deepops{output.split()[0]}".encode()).hexdigest()[:12]


#: Why a source is not followed, by the state that ``chronyc -c sources`` gives it (chronyc(1)).
_DOUBTS = {
    "x": "its time disagrees with that of most others",
    "~": "its time varies too much",
    "?": "its time is not usable (not synchronised itself, or too few answers yet)",
}


class Clocks:
    """The nodes' clocks."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def offset(self, node: Node) -> tuple[float, float]:
        """Return (seconds that a node is ahead of this host, half of the round trip as its
        uncertainty)."""
        best = (0.0, 1e9)
        for _ in range(3):
            before = time.time()
            theirs = float(node.host.check_output("date +%s.%N"))
            after = time.time()
            if (after - before) / 2 < best[1]:
                best = (theirs - (before + after) / 2, (after - before) / 2)
        return best

    def why_alone(self, node: Node) -> str:
        """Return why chronyd of a node follows nobody: names without an address, sources that do
        not answer or are not believed (chronyc(1): activity, sources)."""
        run = node.host.run
        files = "/etc/chrony/chrony.conf /etc/chrony.conf /etc/chrony/sources.d /etc/chrony/conf.d"
        wanted = run(f"grep -rhsE '^ *(server|pool|peer|refclock) ' {files}").stdout
        return silent_sources(
            [line.split()[1] for line in wanted.splitlines()],
            run("chronyc activity").stdout,
            run("chronyc -c -n sources").stdout,
        )


def silent_sources(wanted: list[str], activity: str, sources: str) -> str:
    """Return one sentence on why no source of chronyd can be followed, from those that its files
    name and from what ``chronyc activity`` and ``chronyc -c -n sources`` print."""
    if not wanted:
        return "chrony's files name no server, pool, peer or refclock"
    unknown = re.search(r"(\d+) sources? with unknown address", activity)
    found = []
    if unknown and int(unknown[1]):
        found.append(
            f"{unknown[1]} of the sources {', '.join(wanted)} have no address: a name cannot be "
            "resolved"
        )
    for row in csv.reader(sources.splitlines()):
        state, name, reach = row[1], row[2], int(row[5], 8)
        if not reach:
            found.append(f"source {name} does not answer")
        elif state in _DOUBTS:
            found.append(f"source {name} answers, but {_DOUBTS[state]}")
    return "; ".join(found) or f"chrony asks {', '.join(wanted)} and has not decided yet"


class Nfs:
    """The shared file systems."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    @property
    def clients(self) -> list[Node]:
        """The nodes of the Slurm cluster that are not the server."""
        server = self.nodes.nfs_server
        return [node for node in self.nodes.group("slurm-cluster") if node is not server]

    def exported(self) -> set[str]:
        """Return the paths that the server exports (exportfs(8))."""
        return {
            line.split()[0]
            for line in self.nodes.nfs_server.host.check_output("exportfs -s").splitlines()
        }

    def mounted(self, node: Node) -> dict[str, str]:
        """Return mount point → source of the NFS mounts of a node."""
        output = node.host.check_output("cat /proc/mounts")
        rows = [line.split() for line in output.splitlines()]
        return {row[1]: row[0] for row in rows if row[2].startswith("nfs")}

    def unseen(self, writer: Node, folder: str) -> list[str]:
        """Write a file on a node and return, for each other node that does not read it back, a
        sentence."""
        word = secrets.token_hex(8)
        path = f"{folder}/.deepops-check-{word}"
        written = writer.host.run("printf %%s %s > %s", word, path)
        if written.rc != 0:
            return [f"{writer.name} cannot write {path}: {written.stderr.strip()}"]
        found = []
        try:
            for reader in self.nodes.group("slurm-cluster"):
                # Listing the folder makes an NFS client ask the server instead of its cache.
                read = reader.host.run(
                    "timeout 30 ls -a %s >/dev/null; timeout 30 cat -- %s", folder, path
                )
                if read.stdout != word:
                    said = read.stderr.strip() or repr(read.stdout)
                    found.append(f"{reader.name} does not see what {writer.name} wrote: {said}")
        finally:
            writer.host.run("rm -f -- %s", path)
        return found


class Rsyslog:
    """The way of a log line from a node to the server."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        # DeepOps: rsyslog_client_tcp_host is the first slurm-master, else the control plane.
        masters = nodes.group("slurm-master")
        self.server = (masters or nodes.group("kube_control_plane"))[0]

    def line_arrives(self, node: Node, seconds: float = 30) -> str:
        """Log a unique line on a node and wait for it on the server; return the file it is in."""
        __tracebackhide__ = True
        word = f"deepops-check-{secrets.token_hex(8)}"
        node.host.run_expect([0], "logger -t deepops %s", word)
        folder = f"{facts.RSYSLOG_ROOT}/{node.name}"
        return wait_until(
            f"the log line '{word}' of '{node.name}' arrives in {self.server.name}:{folder}",
            lambda: str(self.server.host.run(f"grep -rlF {word} {folder}").stdout).strip(),
            bool,
            seconds,
            evidence=lambda: self._evidence(node),
        )

    def _evidence(self, node: Node) -> str:
        command = (
            'echo "rsyslog is $(systemctl is-active rsyslog)"; '
            "journalctl --no-pager -n 6 -o cat -u rsyslog"
        )
        return "\n".join(
            f"--- {where.name} ---\n{where.host.run(command).stdout.rstrip()}"
            for where in (node, self.server)
        )


class Access:
    """Who may log in to a compute node by ssh (pam_slurm_adopt)."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def attempt(self, node: Node, user: str = facts.PLAIN_USER) -> tuple[bool, str]:
        """Return whether a user gets in from the login node, and what ssh said."""
        command = (
            "timeout 45 sudo -n -u %s ssh -o BatchMode=yes -o StrictHostKeyChecking=no "
            "-o UserKnownHostsFile=/dev/null -o LogLevel=INFO -o ConnectTimeout=30 %s hostname"
            # 255 would be taken for the end of our own connection.
            " || exit 1"
        )
        done = self.nodes.login.host.run(command, user, node.name)
        return done.rc == 0 and done.stdout.strip() == node.name, (
            done.stderr or done.stdout
        ).strip()
