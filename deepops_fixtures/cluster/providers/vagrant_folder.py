"""Machines of a user's own Vagrantfile, as they are: Vagrant says which there are and how to reach
them, their names say what they are in DeepOps' terms.

They are somebody's, brought up by ``vagrant up`` in that folder, and are treated like the hosts of
an inventory: nothing is created, deployed or destroyed. A Vagrantfile that is to have the whole
life of a cluster reads the data of ``DEEPOPS_INSTANCE`` and is named by a cluster file
(``vagrantfile: ./Vagrantfile-mine``). Not for the project's own Vagrantfiles: see ``vagrant``.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

from deepops_fixtures.cluster import inventory_file, node_names
from deepops_fixtures.cluster.providers.inventory import InventoryProvider
from deepops_fixtures.cluster.running import NodeData, RunningCluster
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.settings import Settings

#: Seconds for a question to Vagrant: it asks libvirt about every machine.
_PATIENCE = 180.0
_HOST = re.compile(r"^Host (\S+)$", re.MULTILINE)
_ADDRESS = re.compile(r"^\s+HostName (\S+)$", re.MULTILINE)


class VagrantFolderProvider(InventoryProvider):
    """The machines of a Vagrantfile, in the groups of an inventory where one is given beside it,
    else in those that their names stand for."""

    def __init__(
        self, file: Path, inventory: Path | None, journal: Journal, run_dir: Path
    ) -> None:
        super().__init__(inventory or run_dir / "inventory.ini", journal, run_dir)
        self.file = file
        self._grouped = inventory is not None

    def _ask(self, *words: str) -> str:
        """Return what Vagrant prints. Raises UsageProblem in its own words."""
        if not self.file.is_file():
            raise UsageProblem(
                f"Vagrantfile '{self.file}' not found.",
                hint="give DEEPOPS_VAGRANT_FILE one of the project's (./Vagrantfile-ubuntu, "
                "./Vagrantfile-centos) or the path of your own",
            )
        unset = ("VAGRANT_CWD", "VAGRANT_DOTFILE_PATH", "DEEPOPS_INSTANCE")
        environment = {key: value for key, value in os.environ.items() if key not in unset}
        environment |= {"VAGRANT_VAGRANTFILE": self.file.name, "VAGRANT_NO_COLOR": "1"}
        environment |= {"VAGRANT_CHECKPOINT_DISABLE": "1"}
        try:
            done = subprocess.run(
                ["vagrant", *words],
                cwd=self.file.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageProblem(
                f"'vagrant {' '.join(words)}' in '{self.file.parent}' did not work: {error}.",
                hint=self._by_hand("vagrant status"),
            ) from None
        if done.returncode != 0:
            raise UsageProblem(
                f"Vagrant refuses '{self.file}'.",
                detail="\n".join((done.stderr or done.stdout).strip().splitlines()[-8:]),
                hint=self._by_hand("vagrant validate"),
            )
        return done.stdout

    def _by_hand(self, command: str) -> str:
        name = "" if self.file.name == "Vagrantfile" else f"VAGRANT_VAGRANTFILE={self.file.name} "
        return f"cd {self.file.parent} && {name}{command}"

    @cached_property
    def _states(self) -> dict[str, str]:
        """Machine → state, in the Vagrantfile's order."""
        states = {}
        for line in self._ask("status", "--machine-readable").splitlines():
            _time, target, kind, data = [*line.split(",", 3), "", "", ""][:4]
            if target and kind == "state":
                states[target] = data
        return states

    @cached_property
    def _ssh_config(self) -> str:
        down = {name: state for name, state in self._states.items() if state != "running"}
        if down or not self._states:
            told = ", ".join(f"{name} ({state.replace('_', ' ')})" for name, state in down.items())
            raise UsageProblem(
                f"Not all machines of Vagrantfile '{self.file}' are up: {told or 'it has none'}.",
                hint=f"{self._by_hand('vagrant up')}; or a cluster file with 'vagrantfile:' has "
                "the harness bring it up: docs/how-to/from-deepops-virtual.md",
            )
        return self._ask("ssh-config")

    def _read(self) -> dict[str, Any]:
        if self._data is None:
            names = list(self._states)
            if self._grouped:
                self._check_inventory(super()._read(), names)
                self._data = super()._read()
            else:
                self._data = self._by_names(names)
        return self._data

    def _check_inventory(self, data: dict[str, Any], names: list[str]) -> None:
        strangers = sorted(set(data.get("_meta", {}).get("hostvars", {})) - set(names))
        if strangers:
            raise UsageProblem(
                f"Inventory '{self.path}' names {', '.join(strangers)}, which Vagrantfile "
                f"'{self.file}' does not define; it defines {', '.join(names) or 'none'}.",
                hint="give the hosts the names that the machines have",
            )

    def _by_names(self, names: list[str]) -> dict[str, Any]:
        groups = node_names.groups_by_names(names)
        nameless = [name for name in names if not groups[name]]
        if nameless:
            raise UsageProblem(
                f"What {', '.join(nameless)} of Vagrantfile '{self.file}' is in DeepOps' terms "
                "cannot be read from the name.",
                hint="name machines as DeepOps does (virtual-login, virtual-mgmt, virtual-gpu01), "
                "or give their groups: --deepops-inventory FILE",
            )
        data: dict[str, Any] = {"_meta": {"hostvars": {name: {} for name in names}}}
        for name in names:
            for group in groups[name]:
                data.setdefault(group, {"hosts": []})["hosts"].append(name)
        return data

    def _connections(self, nodes: list[NodeData]) -> list[str]:
        """Return Vagrant's own ssh_config: addresses, keys, and that host keys are new."""
        return self._ssh_config.splitlines()

    def preflight(self) -> None:
        """Refuse machines that are not up or do not answer. Raises UsageProblem."""
        _all_up = self._ssh_config
        super().preflight()

    def up(self) -> RunningCluster:
        """Return the machines. Raises StepTimeout naming those that do not answer."""
        running = super().up()
        if not self._grouped:
            hosts, addresses = _HOST.findall(self._ssh_config), _ADDRESS.findall(self._ssh_config)
            reached = dict(zip(hosts, addresses, strict=False))
            inventory_file.write(
                self.path,
                [
                    node.model_copy(update={"address": reached.get(node.name, "")})
                    for node in running.nodes
                ],
            )
        return running.model_copy(update={"name": self.file.parent.name})


def existing(settings: Settings, journal: Journal, run_dir: Path) -> InventoryProvider:
    """Return the provider of the hosts that a run takes as they are: those of a Vagrantfile of a
    user's own, else of an inventory."""
    if settings.vagrant_file:
        return VagrantFolderProvider(settings.vagrant_file, settings.inventory, journal, run_dir)
    assert settings.inventory is not None
    return InventoryProvider(settings.inventory, journal, run_dir)
