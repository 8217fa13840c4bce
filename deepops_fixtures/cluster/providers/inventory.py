"""Existing hosts from an Ansible inventory, local connection included.

Nothing is brought up and nothing is destroyed here, so destructive checks are skipped.
ansible-inventory reads the file, so every format and plugin that Ansible knows works.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from deepops_fixtures import facts
from deepops_fixtures.cluster import ssh
from deepops_fixtures.cluster.running import NodeData, RunningCluster, with_parent_groups
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail

_PATIENCE = 30.0
_PROGRAM = Path(sys.executable).with_name("ansible-inventory")
#: Seconds that Ansible gets for reading an inventory, scripts and plugins in it included.
_READING = 120.0
#: The folders that a folder of inventories may have: Ansible reads no hosts there.
_VARIABLES = ("group_vars", "host_vars")


def _refuse_loose_folder(path: Path) -> None:
    """Raise UsageProblem for a folder that is not one of inventories alone: Ansible executes every
    executable file at any depth of it, to have a dynamic inventory of each."""
    if not path.is_dir():
        return
    other = sorted(
        entry.name for entry in path.iterdir() if entry.is_dir() and entry.name not in _VARIABLES
    )
    writable = bool(path.stat().st_mode & 0o002)
    if not other and not writable:
        return
    why = "everybody may write there" if writable else f"it has '{other[0]}'"
    within = path / "inventory"
    raise UsageProblem(
        f"Folder '{path}' is no inventory ({why}), and Ansible would execute every program in it.",
        hint=f"name the file: {within if within.is_file() else 'FOLDER/inventory'}",
    )


class InventoryProvider:
    """The hosts of an inventory, as they are."""

    disposable = False

    def __init__(self, path: Path, journal: Journal, run_dir: Path) -> None:
        self.path = path
        self.journal = journal
        self.run_dir = run_dir
        self._data: dict[str, Any] | None = None

    def nodes(self) -> list[NodeData]:
        """Return the inventory's hosts. Raises UsageProblem when there are none or the file is not
        one."""
        data = self._read()
        variables: dict[str, dict[str, Any]] = data.get("_meta", {}).get("hostvars", {})
        groups: dict[str, list[str]] = {}
        for group, content in data.items():
            if group != "_meta" and isinstance(content, dict):
                groups[group] = _members(data, group)
        names = sorted(
            {name for members in groups.values() for name in members},
            key=lambda name: list(variables).index(name) if name in variables else 0,
        )
        if not names:
            raise UsageProblem(
                f"Inventory '{self.path}' has no hosts.", hint="add hosts in DeepOps' groups"
            )
        return [
            NodeData(
                name=name,
                groups=with_parent_groups(
                    [group for group in facts.GROUPS if name in groups.get(group, [])]
                ),
                address=str(variables.get(name, {}).get("deepops_address", "")),
                connection="local" if self._is_local(name, variables) else "ssh",
            )
            for name in names
        ]

    @staticmethod
    def _is_local(name: str, variables: dict[str, dict[str, Any]]) -> bool:
        return variables.get(name, {}).get("ansible_connection") == "local"

    def _read(self) -> dict[str, Any]:
        if self._data is not None:
            return self._data
        if not self.path.exists():
            raise UsageProblem(f"Inventory '{self.path}' not found.", hint="give an existing file")
        _refuse_loose_folder(self.path)
        by_hand = f"ansible-inventory -i {self.path} --list"
        with tempfile.TemporaryDirectory(prefix="deepops-inventory-") as folder:
            log, answer = Path(folder, "log"), Path(folder, "answer")
            status = run_logged(
                [_PROGRAM, "-i", self.path, "--list", "--output", answer],
                log=log,
                deadline=Deadline.after(_READING),
                what=f"Reading inventory '{self.path}'",
                env={"ANSIBLE_INVENTORY_UNPARSED_FAILED": "true"},
                hint=f"see what it waits for: {by_hand}",
            )
            said = tail(log, 8)
            try:
                self._data = dict(json.loads(answer.read_bytes()))
            except (OSError, ValueError):
                self._data = None
        if status != 0 or self._data is None:
            raise UsageProblem(
                f"'{self.path}' is not an inventory that Ansible can read.",
                detail=said,
                hint=by_hand,
            )
        return self._data

    def _sockets(self) -> Path:
        return ssh.socket_dir(self.run_dir.name[-12:])

    def _write_ssh_config(self, nodes: list[NodeData]) -> Path:
        """Write an ssh_config whose connections are shared."""
        sockets = self._sockets()
        sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = ["# Made by deepops-fixtures from " + str(self.path), *self._connections(nodes)]
        lines += [
            "Host *",
            "  BatchMode yes",
            "  ConnectTimeout 15",
            "  ControlMaster auto",
            f'  ControlPath "{sockets}/%C"',
            "  ControlPersist 900",
        ]
        path = self.run_dir / "ssh_config"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _connections(self, nodes: list[NodeData]) -> list[str]:
        """Translate Ansible's connection variables to an ssh_config, so that both reach a host one
        way."""
        variables = self._read().get("_meta", {}).get("hostvars", {})
        lines = []
        words = {
            "ansible_host": "HostName",
            "ansible_user": "User",
            "ansible_port": "Port",
            "ansible_ssh_private_key_file": "IdentityFile",
        }
        for node in nodes:
            lines.append(f"Host {node.name}")
            for key, word in words.items():
                if key in variables.get(node.name, {}):
                    lines.append(f'  {word} "{variables[node.name][key]}"')
            common = f"{variables.get(node.name, {}).get('ansible_ssh_common_args', '')}"
            if "ProxyJump=" in common:
                lines.append(f"  ProxyJump {common.split('ProxyJump=', 1)[1].split()[0]}")
        return lines

    def preflight(self) -> None:
        """Read the inventory and reach every host, so that an unreachable one is refused at
        once."""
        nodes = self.nodes()
        remote = [node.name for node in nodes if node.connection == "ssh"]
        if not remote:
            return
        config = self._write_ssh_config(nodes)
        unreachable = [name for name in remote if not ssh.answers(config, name, _PATIENCE)]
        if unreachable:
            self.down()
            raise UsageProblem(
                f"Not reachable over ssh: {', '.join(unreachable)} (inventory '{self.path}').",
                hint=f"ansible -i {self.path} -m ping all",
            )

    def up(self) -> RunningCluster:
        """Return the hosts. Raises StepTimeout naming those that do not answer."""
        nodes = self.nodes()
        remote = [node.name for node in nodes if node.connection == "ssh"]
        config = self._write_ssh_config(nodes) if remote else None
        if config:
            with self.journal.step("up", f"reaching {len(remote)} hosts over ssh"):
                ssh.wait_until_answering(
                    config, self.run_dir.name, remote, Deadline.after(60), lambda *_: None
                )
        return RunningCluster(
            name=self.path.stem,
            provider="inventory",
            nodes=nodes,
            ssh_config=config,
            inventory=self.path,
            disposable=False,
        )

    def down(self) -> None:
        """Close our own connections; the hosts stay as they are."""
        config = self.run_dir / "ssh_config"
        if config.exists():
            ssh.close_connections(config, [node.name for node in self.nodes()])
            shutil.rmtree(self._sockets(), ignore_errors=True)

    def evidence(self) -> list[Path]:
        """Return nothing: we keep no logs of hosts that are not ours."""
        return []


def _members(data: dict[str, Any], group: str, seen: frozenset[str] = frozenset()) -> list[str]:
    """Return the hosts of a group and of its children."""
    content = data.get(group, {})
    hosts = list(content.get("hosts", []))
    for child in content.get("children", []):
        if child not in seen:
            hosts += _members(data, child, seen | {group})
    return list(dict.fromkeys(hosts))
