"""Where the playbooks come from. One class a source; what a run needs of it is in its few
fields."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepops_fixtures import inputs, resources
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.inputs import Inputs


@dataclass(frozen=True)
class PlaybookSource:
    """A playbook with its folder and the variables it is given."""

    name: str
    playbook: Path
    extra_vars: dict[str, Any] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """Hash of everything below the playbook's folder: two runs of one revision ran the same
        content."""
        return inputs.key({"playbooks": inputs.of_tree(self.playbook.parent)})[:12]

    def inputs(self) -> Inputs:
        """Return what decides how a cluster looks after this playbook: every file beside it,
        committed or not, its variables, Ansible, and the code that runs it."""
        package = Path(__file__).resolve().parents[1]
        tools = ("ansible-core", "ansible-runner", "mitogen")
        return {
            "playbooks": inputs.of_tree(self.playbook.parent),
            "variables": inputs.of_data(self.extra_vars),
            "source": {"name": self.name, "playbook": self.playbook.name},
            "tools": {name: _version(name) for name in tools},
            "harness": inputs.of_files(package, [*(package / "deploy").glob("*.py")]),
        }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def find(name: str, deployment: str) -> PlaybookSource | None:
    """Return the playbook for a cluster's deployment, or None when there is nothing to deploy."""
    if name == "none" or deployment == "none":
        return None
    playbook = resources.playbooks() / f"{deployment}-cluster.yml"
    if name != "distro" or not playbook.is_file():
        raise UsageProblem(
            f"There is no playbook for deployment '{deployment}' from source '{name}'.",
            hint="choose --deepops-source distro or none",
        )
    return PlaybookSource(name=name, playbook=playbook)
