"""Where the playbooks come from. One class a source; what a run needs of it is in its few
fields."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepops_fixtures import resources
from deepops_fixtures.errors import UsageProblem


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
        digest = hashlib.sha256()
        folder = self.playbook.parent
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            if "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:12]


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
