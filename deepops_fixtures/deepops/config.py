"""The configuration of one run, in its own copy of the checkout: config.example, and an inventory
with DeepOps' groups.

``ansible.cfg`` of the checkout looks for it in ``./config``. Not for what goes with ``-e``:
that is ``variables``.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from deepops_fixtures.errors import UsageProblem

_SECTION = re.compile(r"^\[([^\]:]+)(:children)?\]")


def write(copy: Path, inventory: Path) -> Path:
    """Put the configuration into a copy of the checkout and return its inventory.

    ``inventory`` is the cluster's own; the groups that DeepOps' example has beside those are added
    to it, with the members that the example gives them.
    """
    folder = copy / "config"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copy / "config.example", folder, symlinks=True)
    example = folder / "inventory"
    children = groups_of(example.read_text()) if example.is_file() else {}
    example.unlink(missing_ok=True)
    example.write_text(with_groups(inventory.read_text(), children))
    return example


def groups_of(text: str) -> dict[str, list[str]]:
    """Return group → the groups that are in it, of an inventory in INI form."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        section = _SECTION.match(line.strip())
        if line.startswith("[") and not section:
            current = None
        elif section:
            members = found.setdefault(section[1], [])
            current = members if section[2] else None
        elif current is not None and line.strip() and line.strip()[0] not in "#;":
            current.append(line.split()[0])
    return {group: members for group, members in found.items() if group != "all"}


def with_groups(text: str, children: dict[str, list[str]]) -> str:
    """Return an inventory with the groups added that it lacks.

    Each node's address in the cluster's network is told to Kubespray too, which calls it 'ip'.
    """
    text = re.sub(r"\bdeepops_address=(\S+)", r"\g<0> ip=\1", text)
    there = {section[1] for line in text.splitlines() if (section := _SECTION.match(line))}
    new = [group for group in children if group not in there]
    # A group that another one names has to be there, if only with nobody in it.
    named = [member for group in new for member in children[group]]
    empty = [group for group in dict.fromkeys(named) if group not in {*there, *new}]
    lines = [f"[{group}]" for group in empty]
    for group in new:
        lines += [f"[{group}:children]", *children[group]] if children[group] else [f"[{group}]"]
    added = "\n".join(["", "# As in config.example/inventory.", *lines, ""]) if lines else ""
    return text + added


def refuse_limit(limit: str, tree: Path, nodes: Collection[str], groups: Collection[str]) -> None:
    """Refuse a limit that names nobody, by Ansible's patterns (a:b, a,b, !a, &a, a*, a[0]).

    ``groups`` are known beside those of the example inventory. Raises UsageProblem.
    """
    example = tree / "config.example" / "inventory"
    groups = {*groups, *(groups_of(example.read_text()) if example.is_file() else ())}
    known = {*nodes, *groups, "all", "localhost"}
    for word in filter(None, re.split(r"[,:](?![^\[]*\])", limit)):
        name = re.sub(r"\[[-\d:]*\]$", "", word.strip().lstrip("!&"))
        if name.startswith("~"):
            continue
        if not any(fnmatch.fnmatchcase(each, name) for each in known):
            raise UsageProblem(
                f"--deepops-limit: the cluster has no node and no group '{name}'; its nodes are "
                f"{', '.join(nodes)}.",
                hint="--deepops-limit GROUP or NODE; groups: " + ", ".join(sorted(groups)),
            )
