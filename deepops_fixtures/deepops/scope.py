"""What a run puts on a cluster, read from its playbooks: the pieces that checks are about.

A piece is less than a part: ``nfs``, ``chrony``, ``slurm``. What a check is about is said by its
fixtures (``FIXTURES``) or by the marker ``piece``; a check of a piece that no playbook of the run
deploys is skipped with that reason. Not for which parts a run is about: that is ``parts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jinja2
import jinja2.nativetypes

from deepops_fixtures.deepops.playbooks import Play, Playbooks, RoleUse

#: Piece → what it is called in the reason of a skipped check.
PIECES: Final[dict[str, str]] = {
    "hosts": "/etc/hosts",
    "chrony": "chrony",
    "nfs-server": "NFS's server",
    "nfs": "NFS",
    "rsyslog-server": "the log server",
    "rsyslog": "rsyslog",
    "slurm": "Slurm",
    "munge": "munge",
    "openmpi": "OpenMPI",
    "lmod": "Lmod",
    "kubernetes": "Kubernetes",
    "plain-user": "the user whom the allow-list does not name",
    "mpi-program": "the MPI program on /sw",
}
#: Role of DeepOps → the pieces that it deploys.
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "deepops_hosts": ("hosts",),
    "deepops_chrony": ("chrony",),
    # The same in releases up to 26.07, where they are Galaxy's.
    "DeepOps.hosts": ("hosts",),
    "DeepOps.chrony": ("chrony",),
    "slurm": ("slurm", "munge"),
    "rsyslog_server": ("rsyslog-server",),
    "rsyslog_client": ("rsyslog-client",),
    "openmpi": ("openmpi",),
    "lmod": ("lmod",),
}
#: Role → the pieces that it deploys where it is given a variable of this name.
_GIVEN: Final[dict[str, dict[str, str]]] = {
    "nfs": {"nfs_is_server": "nfs-server", "nfs_is_client": "nfs-client"},
}
#: Piece → the pieces that it is made of: there when all of them are.
_MADE_OF: Final[dict[str, tuple[str, ...]]] = {
    "nfs": ("nfs-server", "nfs-client"),
    "rsyslog": ("rsyslog-server", "rsyslog-client"),
}
#: Fixture → the piece that a check which uses it is about.
FIXTURES: Final[dict[str, str]] = {
    "slurm": "slurm",
    "kubernetes": "kubernetes",
    "munge": "munge",
    "nfs": "nfs-server",
    "rsyslog": "rsyslog",
    "clocks": "chrony",
    "access": "plain-user",
}
#: systemd unit, or service of ``facts.PORTS`` → the piece that brings it.
UNITS: Final[dict[str, str]] = {
    "munge.service": "munge",
    "chrony.service": "chrony",
    "rsyslog.service": "rsyslog-client",
    "slurmctld.service": "slurm",
    "slurmdbd.service": "slurm",
    "mariadb.service": "slurm",
    "slurmd.service": "slurm",
    "nfs-server.service": "nfs-server",
    "kubelet.service": "kubernetes",
    "containerd.service": "kubernetes",
    "etcd.service": "kubernetes",
    "slurmctld": "slurm",
    "slurmdbd": "slurm",
    "slurmd": "slurm",
    "rsyslog": "rsyslog-server",
    "nfs-server": "nfs-server",
    "kube-apiserver": "kubernetes",
    "kubelet": "kubernetes",
    "etcd": "kubernetes",
}


@dataclass(frozen=True)
class Scope:
    """The pieces that a run deploys; ``None`` for all that there are."""

    pieces: frozenset[str] | None = None

    def has(self, piece: str) -> bool:
        """Return whether a piece is there."""
        return self.pieces is None or piece in self.pieces

    def why_not(self, pieces: Iterable[str]) -> str:
        """Return why a check of these pieces is skipped, '' where all of them are there."""
        absent = [PIECES.get(piece, piece) for piece in pieces if not self.has(piece)]
        return f"{' and '.join(absent)}: no playbook of this run deploys it" if absent else ""

    def brings(self, name: str) -> bool:
        """Return whether a unit or a service of a port is deployed; one that no piece names is."""
        return name not in UNITS or self.has(UNITS[name])

    def joined(self, other: Scope) -> Scope:
        """Return what is there of either."""
        if self.pieces is None or other.pieces is None:
            return Scope()
        return Scope(complete(self.pieces | other.pieces))


class Conditions:
    """What variables that are known beforehand say of ``when:``."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known
        self._environment = jinja2.nativetypes.NativeEnvironment(undefined=jinja2.StrictUndefined)
        self._environment.filters["bool"] = _as_bool

    def may_hold(self, conditions: Iterable[str]) -> bool:
        """Return whether all of them may hold; what only a run knows may."""
        return all(self._may_hold(text) for text in conditions)

    def _may_hold(self, text: str) -> bool:
        bare = text.strip()
        if bare.startswith("{{") and bare.endswith("}}"):
            bare = bare[2:-2]
        try:
            said = self._environment.from_string("{{ " + bare + " }}").render(self._known)
            return True if isinstance(said, str) and "{{" in said else _as_bool(said)
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
            # A fact, a registered result, a filter of Ansible's own: known to nobody yet.
            return True


def _as_bool(value: Any) -> bool:
    # As Ansible reads words for yes and no.
    if isinstance(value, str):
        return value.strip().lower() not in ("", "no", "false", "off", "n", "f", "0", "none")
    return bool(value)


def pieces_of(
    playbooks: Playbooks, plays: Iterable[Play], known: Conditions, tags: frozenset[str]
) -> frozenset[str]:
    """Return the pieces that plays deploy, as far as their roles tell.

    An import whose condition cannot hold deploys nothing; with tags only what carries one does.
    """
    found: set[str] = set()
    for play in plays:
        if not known.may_hold(play.when):
            continue
        if "submodules/kubespray" in str(play.file):
            found.add("kubernetes")
        for use in playbooks.roles_of_play(play):
            wanted = not tags or _tagged(playbooks, play, use, tags)
            if wanted and known.may_hold(use.when):
                found |= set(ROLES.get(use.name, ()))
                given = _GIVEN.get(use.name, {})
                found |= {piece for name, piece in given.items() if name in use.given}
    return complete(found)


def complete(pieces: Iterable[str]) -> frozenset[str]:
    """Return the pieces with those that they make together."""
    found = set(pieces)
    found |= {whole for whole, needed in _MADE_OF.items() if found >= set(needed)}
    return frozenset(found)


def _tagged(playbooks: Playbooks, play: Play, use: RoleUse, tags: frozenset[str]) -> bool:
    if "all" in tags or tags & (play.all_tags | use.tags):
        return True
    role = playbooks.role(use.name)
    return bool(role and tags & role.tags)


def pieces_of_role(name: str) -> frozenset[str]:
    """Return every piece that a role may have to do with, however it is used, and those that it is
    a part of (rsyslog's client is one of 'rsyslog'); none where nothing is known of it."""
    found = {*ROLES.get(name, ()), *_GIVEN.get(name, {}).values()}
    return frozenset(found | {whole for whole, needed in _MADE_OF.items() if found & set(needed)})
