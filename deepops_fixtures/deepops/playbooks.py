"""What the playbooks of a checkout say without being run: plays, imports, roles, and the files
they are made of.

Read from the YAML alone, with file and line. What only a run knows (a name in a template, a
condition on a fact) is kept as it is written. Not for deciding what that means for the checks:
that is ``scope``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deepops_fixtures.deepops.plays import (
    Import,
    Play,
    RoleUse,
    import_of,
    list_of,
    play_of,
    role_name,
    roles_in,
    tags_of,
    tasks_of,
    tops_of,
    yaml_files,
)
from deepops_fixtures.deepops.yaml_lines import Mapping, read

__all__ = ["Import", "Play", "Playbooks", "Role", "RoleUse"]

#: Where DeepOps' ansible.cfg has roles looked for (roles_path), below the checkout.
ROLES_PATH = ("roles/galaxy", "roles", "submodules/kubespray/roles")
#: Folders beside playbooks in which there are none.
ASIDE = frozenset(
    {"tasks", "handlers", "files", "templates", "vars", "group_vars", "host_vars", "roles"}
)


@dataclass(frozen=True)
class Role:
    """A role that is in the checkout."""

    name: str
    folder: Path

    @cached_property
    def uses(self) -> tuple[RoleUse, ...]:
        """The roles that it needs: dependencies of its meta, and those that its tasks include."""
        found = list(self._dependencies())
        for part in ("tasks", "handlers"):
            for file in yaml_files(self.folder / part):
                found += roles_in(tops_of(file), file, self.name)
        return tuple(found)

    @cached_property
    def tags(self) -> frozenset[str]:
        """Every tag that its tasks carry."""
        found: set[str] = set()
        for file in yaml_files(self.folder / "tasks"):
            for task in tasks_of(tops_of(file)):
                found |= tags_of(task)
        return frozenset(found)

    def files(self) -> list[Path]:
        """Return every file of the role."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _dependencies(self) -> Iterator[RoleUse]:
        for file in yaml_files(self.folder / "meta"):
            if file.stem != "main":
                continue
            data = read(file)
            for item in list_of(data.get("dependencies")) if isinstance(data, Mapping) else ():
                name, line = role_name(item)
                if name:
                    yield RoleUse(name, file, line or data.line, "dependency", self.name)


class Playbooks:
    """The playbooks and roles below one folder that is laid out as DeepOps is.

    Playbooks are named by their path, below the folder or absolute. Raises UnreadableYaml (a
    UsageProblem) where one cannot be read, and naming file and line where it is no YAML.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._plays: dict[Path, list[Play]] = {}
        self._roles: dict[str, Role | None] = {}

    def all(self) -> list[Path]:
        """Return the files below ``playbooks/`` that are playbooks, without reading them: YAML
        that is in no folder of tasks, files, templates or variables."""
        return [
            path
            for path in yaml_files(self.root / "playbooks")
            if not ASIDE & set(path.relative_to(self.root).parts[:-1])
        ]

    def plays(self, playbook: Path) -> list[Play]:
        """Return the plays in the order of their running, those of imported playbooks
        included."""
        file = self._absolute(playbook)
        if file not in self._plays:
            self._plays[file] = list(self._read(file, ()))
        return self._plays[file]

    def imports(self, playbook: Path) -> list[Import]:
        """Return every import that is reached, in order; each once, those that are not there
        too."""
        found: list[Import] = []
        self._imports(self._absolute(playbook), found, set())
        return found

    def roles_of(self, playbook: Path) -> list[RoleUse]:
        """Return every use of a role that is reached: by the plays, by their roles' dependencies
        and by what the roles' tasks include."""
        return [use for play in self.plays(playbook) for use in self.roles_of_play(play)]

    def roles_of_play(self, play: Play) -> list[RoleUse]:
        """Return every use of a role that a play reaches, each role within another once."""
        found: list[RoleUse] = []
        seen: set[str] = set()
        todo = [*play.roles]
        while todo:
            use = todo.pop(0)
            found.append(use)
            role = self.role(use.name)
            if role and use.name not in seen:
                seen.add(use.name)
                todo += role.uses
        return found

    def files_of(self, playbook: Path) -> list[Path]:
        """Return the files that a playbook is made of: itself, what it imports and includes, and
        every file of the roles that it reaches."""
        found = {self._absolute(playbook)}
        found |= {each.target for each in self.imports(playbook) if each.target}
        for play in self.plays(playbook):
            found |= {play.file, *play.includes}
            for use in self.roles_of_play(play):
                role = self.role(use.name)
                found |= set(role.files()) if role else set()
        return sorted(found)

    def role(self, name: str) -> Role | None:
        """Return a role of the checkout, None where it is not there (Galaxy's, a
        collection's)."""
        if name not in self._roles:
            folders = (self.root / path / name for path in ROLES_PATH)
            folder = next((folder for folder in folders if folder.is_dir()), None)
            self._roles[name] = Role(name, folder) if folder else None
        return self._roles[name]

    def _absolute(self, playbook: Path) -> Path:
        return playbook if playbook.is_absolute() else self.root / playbook

    def _read(self, file: Path, via: tuple[Import, ...]) -> Iterator[Play]:
        data = tops_of(file)
        for item in data:
            found = import_of(item, file)
            if found is None:
                if "hosts" in item:
                    yield play_of(item, file, via)
            elif found.target and found.target not in {file, *(each.file for each in via)}:
                yield from self._read(found.target, (*via, found))

    def _imports(self, file: Path, found: list[Import], seen: set[Path]) -> None:
        seen.add(file)
        for item in tops_of(file):
            each = import_of(item, file)
            if each:
                found.append(each)
                if each.target and each.target not in seen:
                    self._imports(each.target, found, seen)
