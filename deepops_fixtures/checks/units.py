"""The systemd units that a node of each DeepOps group has to run, and how they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deepops_fixtures import facts
from deepops_fixtures.checks import remote
from deepops_fixtures.checks.waiting import titled
from deepops_fixtures.cluster.running import Node

#: What each group runs (DeepOps' roles of the same names). Names joined by '|' are one service as
#: different distributions call it.
UNITS: Final[dict[str, tuple[str, ...]]] = {
    "slurm-cluster": ("munge", "chrony|chronyd"),
    "slurm-master": ("slurmctld", "slurmdbd", "mariadb|mysql|mysqld", "rsyslog"),
    "slurm-nfs": ("nfs-server|nfs-kernel-server",),
    "slurm-node": ("slurmd", "rsyslog"),
}

#: The TCP ports a group's services answer on, by the service (facts.py).
PORTS: Final[dict[str, dict[str, int]]] = {
    "slurm-master": {
        "slurmctld": facts.SLURMCTLD_PORT,
        "slurmdbd": facts.SLURMDBD_PORT,
        "rsyslog": facts.RSYSLOG_PORT,
    },
    "slurm-nfs": {"nfs-server": facts.NFS_PORT},
    "slurm-node": {"slurmd": facts.SLURMD_PORT},
}

_ENABLED = frozenset(("enabled", "enabled-runtime", "static", "alias", "generated", "indirect"))
_PROPERTIES = "Id,LoadState,ActiveState,SubState,Result,UnitFileState"


@dataclass(frozen=True)
class Unit:
    """A service: ``name`` as the table calls it, the rest as ``systemctl show`` says
    (systemctl(1)).
    """

    name: str
    group: str
    load: str
    active: str
    sub: str
    result: str
    file_state: str

    @property
    def is_active(self) -> bool:
        """Whether it runs, or has done what a one-shot service does."""
        return self.active == "active"

    @property
    def is_enabled(self) -> bool:
        """Whether the next boot starts it."""
        return self.file_state in _ENABLED

    def __str__(self) -> str:
        if self.load == "not-found":
            return f"{self.name} is not installed"
        result = f", result {self.result}" if self.result not in ("", "success") else ""
        return f"{self.name} is {self.active} ({self.sub}{result}) and {self.file_state}"


class Units:
    """The services that a node's groups ask for.

    >>> [unit.name for unit in Units(nodes["virtual-gpu01"]).all if not unit.is_active]
    []
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def expected(self) -> dict[str, str]:
        """The services of this node and the group that asks for each."""
        wanted: dict[str, str] = {}
        for group, names in UNITS.items():
            if group in self.node.groups:
                for name in names:
                    wanted.setdefault(name, group)
        return wanted

    @property
    def command(self) -> str:
        """The command whose answer ``parse`` understands."""
        names = [f"{one}.service" for name in self.expected for one in name.split("|")]
        return f"systemctl show --property={_PROPERTIES} {' '.join(names)}"

    def parse(self, text: str) -> list[Unit]:
        """Return the services from what ``command`` said."""
        blocks = iter(
            [
                dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
                for block in text.strip().split("\n\n")
            ]
        )
        units = []
        for name, group in self.expected.items():
            found = [next(blocks, {}) for _ in name.split("|")]
            best = next((block for block in found if block.get("LoadState") == "loaded"), found[0])
            units.append(
                Unit(
                    name=name.partition("|")[0],
                    group=group,
                    load=best.get("LoadState", "not-found"),
                    active=best.get("ActiveState", "unknown"),
                    sub=best.get("SubState", ""),
                    result=best.get("Result", ""),
                    file_state=best.get("UnitFileState", ""),
                )
            )
        return units

    @property
    def all(self) -> list[Unit]:
        """The services as they are now."""
        if not self.expected:
            return []
        return self.parse(remote.run(self.node, self.command).text)

    @property
    def failed(self) -> list[str]:
        """The names of the units that systemd calls failed, expected here or not."""
        said = remote.run(self.node, "systemctl list-units --failed --plain --no-legend").text
        return [line.split()[0] for line in said.splitlines() if line.strip()]

    def journal(self, name: str) -> str:
        """Return the end of a unit's journal, as evidence."""
        said = remote.run(
            self.node, f"journalctl --unit={name} --lines=12 --no-pager --output=short"
        )
        return titled(f"journal of {name} on {self.node.name}", said.text)
