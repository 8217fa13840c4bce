"""The calls of ansible-playbook that deploy a source: which playbook, with which Ansible, where.

Our own playbooks run with our own Ansible, from wherever; those of a checkout in a copy of it,
with the Ansible that it asks for, under a home of their own, so that nothing of theirs ends up in
the user's. Not for running them: that is ``runner``.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.deepops.driving import Driving
from deepops_fixtures.deploy.sources import PlaybookSource

#: What both kinds are told.
_COMMON = {
    "ANSIBLE_HOST_KEY_CHECKING": "0",
    "ANSIBLE_FORKS": "16",
    "ANSIBLE_RETRY_FILES_ENABLED": "0",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    "ANSIBLE_LOCALHOST_WARNING": "0",
    "ANSIBLE_TIMEOUT": "60",
}
_OURS = {
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_CACHE_PLUGIN": "memory",
}
#: Seconds and times that Mitogen asks a silent node whether it lives; it would take five minutes
#: to find one dead.
_KEEPALIVE = {"mitogen_ssh_keepalive_interval": 15, "mitogen_ssh_keepalive_count": 4}


@dataclass(frozen=True)
class Call:
    """One call of ansible-playbook."""

    name: str
    playbook: Path
    inventory: Path
    environment: Mapping[str, str]
    variables: Mapping[str, Any]
    #: Folder that Ansible is started in; None where that decides nothing.
    folder: Path | None = None
    #: Where facts are kept from call to call of one run; None for within the call.
    facts: Path | None = None
    tags: str = ""
    limit: str = ""
    #: Whether a play that no host is in is an error, but for those named here.
    every_play_has_hosts: bool = False
    may_be_empty: frozenset[str] = field(default_factory=frozenset)


def calls_of(
    source: PlaybookSource, cluster: RunningCluster, run_dir: Path, scratch: Path | None
) -> list[Call]:
    """Return the calls that deploy a source, in order; a checkout is copied for them first."""
    if source.driving is not None:
        return _of_checkout(source, source.driving, cluster, run_dir, scratch)
    environment = {
        **_COMMON,
        **_OURS,
        **_reaching(cluster, scratch),
        # Our own Ansible, also when the virtual environment was not activated.
        "PATH": _path(Path(sys.executable).parent),
        **_fast_strategy(),
        # The ansible.cfg of whatever folder we stand in must not decide anything.
        "ANSIBLE_CONFIG": str(source.playbook.parent / "ansible.cfg"),
    }
    variables = {**_KEEPALIVE, **source.extra_vars}
    return [Call(source.playbook.name, source.playbook, cluster.inventory, environment, variables)]


def _of_checkout(
    source: PlaybookSource,
    driving: Driving,
    cluster: RunningCluster,
    run_dir: Path,
    scratch: Path | None,
) -> list[Call]:
    copy = run_dir / "deepops" / driving.part
    inventory = driving.copy(copy, cluster.inventory)
    # Its playbooks make ssh keys and write kubectl's configuration into the home.
    home = (scratch or run_dir / "deepops") / "home"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = {
        **_COMMON,
        **_reaching(cluster, scratch),
        "PATH": _path(driving.tools.bin),
        "HOME": str(home),
        "ANSIBLE_HOME": str(home / ".ansible"),
        "ANSIBLE_CONFIG": str(copy / "ansible.cfg"),
    }
    given = _key_of(cluster.ssh_config)
    elsewhere = frozenset(
        play.name or play.hosts for play in driving.plays if "submodules" in play.file.parts
    )
    return [
        Call(
            name=str(step.playbook) + (f" (tags {step.tags})" if step.tags else ""),
            playbook=copy / step.playbook,
            inventory=inventory,
            environment=environment,
            variables={**given, **step.variables, **source.extra_vars},
            folder=copy,
            facts=run_dir / "deepops" / "facts",
            tags=step.tags,
            limit=driving.limit,
            # Whoever limits a run leaves plays without hosts; Kubespray has some for what a
            # cluster need not have.
            every_play_has_hosts=not driving.wish.limit,
            may_be_empty=elsewhere,
        )
        for step in driving.steps
    ]


def _path(first: Path) -> str:
    return f"{first}:{os.environ.get('PATH', os.defpath)}"


def _reaching(cluster: RunningCluster, scratch: Path | None) -> dict[str, str]:
    """Return what leads Ansible to the nodes, and keeps what it leaves with the instance."""
    found = {}
    if cluster.ssh_config:
        found["ANSIBLE_SSH_ARGS"] = f"-F {cluster.ssh_config}"
    if scratch:
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        found |= {"TMPDIR": str(scratch), "ANSIBLE_LOCAL_TEMP": str(scratch)}
    return found


def _key_of(ssh_config: Path | None) -> dict[str, str]:
    """Return the cluster's own key as the one that DeepOps' playbooks spread; without it they make
    one, anew for each run."""
    lines = ssh_config.read_text().splitlines() if ssh_config and ssh_config.is_file() else []
    for words in (shlex.split(line, comments=True) for line in lines):
        if len(words) == 2 and words[0].lower() == "identityfile":
            key = Path(words[1])
            if key.is_file() and key.with_name(f"{key.name}.pub").is_file():
                return {"ansible_ssh_private_key_file": str(key)}
    return {}


def _fast_strategy() -> dict[str, str]:
    """Return the settings that keep one interpreter a node alive through the playbook, when
    Mitogen is installed.

    Starting Python for every task is what Ansible spends most of its time on where nodes are
    emulated.
    """
    spec = importlib.util.find_spec("ansible_mitogen")
    if spec is None or not spec.submodule_search_locations:
        return {}
    plugins = Path(spec.submodule_search_locations[0]) / "plugins" / "strategy"
    return {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}
