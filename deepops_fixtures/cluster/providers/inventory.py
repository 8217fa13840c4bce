"""Existing hosts from an Ansible inventory, local connection included.

Nothing is brought up and nothing is destroyed here, so destructive checks are skipped.
ansible-inventory reads the file, so every format and plugin that Ansible knows works.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from deepops_fixtures import facts
from deepops_fixtures.cluster import ssh
from deepops_fixtures.cluster.running import NodeData, RunningCluster, with_parent_groups
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline

_PATIENCE = 30.0
#: Seconds that Ansible may take to read an inventory; one that asks a cloud takes its time.
_LISTING = 120.0


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
        listing = f"ansible-inventory -i {self.path} --list"
        try:
            done = subprocess.run(
                [Path(sys.executable).with_name("ansible-inventory"), "-i", self.path, "--list"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LISTING,
                env={**os.environ, "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true"},
            )
        except subprocess.TimeoutExpired:
            what = "folder, of which every file is one" if self.path.is_dir() else "file"
            raise UsageProblem(
                f"Ansible has not read inventory '{self.path}' (a {what}) in {_LISTING:.0f} s.",
                hint=listing,
            ) from None
        try:
            self._data = dict(json.loads(done.stdout))
        except ValueError:
            self._data = None
        if done.returncode != 0 or self._data is None:
            raise UsageProblem(
                f"'{self.path}' is not an inventory that Ansible can read.",
                detail="\n".join(done.stderr.strip().splitlines()[-8:]),
                hint=listing,
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
