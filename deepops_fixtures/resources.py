"""Where the data files of the project lie: playbooks, inventories, Vagrantfiles, cluster files,
box recipes, checks.

In a checkout they are the top-level folders; in an installed wheel they are under ``_data``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """Return the folder that holds ``playbooks/``, ``vagrant/`` and ``tests/``."""
    packaged = _PACKAGE / "_data"
    return packaged if packaged.is_dir() else _PACKAGE.parent


def playbooks() -> Path:
    """Return the folder of our own Ansible content."""
    return root() / "playbooks"


def vagrant() -> Path:
    """Return the folder of the Vagrantfiles, cluster files and box recipes."""
    return root() / "vagrant"


def inventory(name: str) -> Path:
    """Return an inventory of the project by its name, whether it is there or not."""
    return root() / "playbooks" / "inventories" / f"{name}.ini"


def checks(parts: Iterable[str]) -> list[Path]:
    """Return the folders of the cluster checks: those of some parts, and those of any cluster."""
    return [root() / "tests" / name for name in (*parts, "services", "gpu")]
