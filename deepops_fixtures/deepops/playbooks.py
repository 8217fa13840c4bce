"""What the playbooks of a checkout say without being run: plays, imports, roles, and the files
they are made of.

Read from the YAML alone, with file and line. What only a run knows (a name in a template, a
condition on a fact) is kept as it is written. Not for deciding what that means for the checks:
that is ``scope``.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from deepops_fixtures.deepops.yaml_lines import Mapping, UnreadableYaml, read

#: Where DeepOps' ansible.cfg has roles looked for (roles_path), below the checkout.
ROLES_PATH = ("roles/galaxy", "roles", "submodules/kubespray/roles")
_PREFIXES = ("", "ansible.builtin.", "ansible.legacy.")


def _spellings(*words: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{word}" for prefix in _PREFIXES for word in words)


_IMPORTS = _spellings("import_playbook")
_ROLES = _spellings("include_role", "import_role")
_TASKS = _spellings("include_tasks", "import_tasks", "include", "include_vars")
_PLAY_TASKS = ("pre_tasks", "tasks", "post_tasks", "handlers")
_BLOCKS = ("block", "rescue", "always")
Via = Literal["roles", "include_role", "import_role", "dependency"]


@dataclass(frozen=True)
class RoleUse:
    """One place where a role is used."""

    name: str
    file: Path
    #: Counted from 1.
    line: int
    via: Via
    #: The role whose tasks or dependencies use it; '' where a play does.
    within: str = ""
    #: Tags of the place, those of the play aside.
    tags: frozenset[str] = frozenset()
    #: Conditions of the place, those of the imports aside.
    when: tuple[str, ...] = ()
    #: Names of the variables that the role is given there and that are no 'no'.
    given: frozenset[str] = frozenset()

    @property
    def where(self) -> str:
        """'file:line'."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Import:
    """One ``import_playbook``."""

    file: Path
    line: int
    #: What is imported as it is written, without the variables behind it.
    text: str
    #: The file, None where only a run knows it (a template) or where it is not there.
    target: Path | None
    when: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Play:
    """One play of a playbook, or of one that it imports."""

    file: Path
    line: int
    name: str
    #: The pattern as it is written: 'slurm-node', "{{ hostlist | default('all') }}".
    hosts: str
    #: Roles of the play's own lists and tasks; what these roles need in turn is in ``roles_of``.
    roles: tuple[RoleUse, ...]
    #: Files of tasks and variables that the play includes.
    includes: tuple[Path, ...] = ()
    #: The imports that lead here, the outermost first.
    imports: tuple[Import, ...] = ()
    tags: frozenset[str] = frozenset()

    @property
    def when(self) -> tuple[str, ...]:
        """The conditions of the imports that lead here; all of them have to hold."""
        return tuple(condition for each in self.imports for condition in each.when)

    @property
    def all_tags(self) -> frozenset[str]:
        """Tags of the play and of the imports that lead to it."""
        return self.tags.union(*(each.tags for each in self.imports))


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
            for file in _yaml_files(self.folder / part):
                found += _roles_in(_top(file), file, self.name)
        return tuple(found)

    @cached_property
    def tags(self) -> frozenset[str]:
        """Every tag that its tasks carry."""
        found: set[str] = set()
        for file in _yaml_files(self.folder / "tasks"):
            for task in _tasks(_top(file)):
                found |= _tags(task)
        return frozenset(found)

    def files(self) -> list[Path]:
        """Return every file of the role."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _dependencies(self) -> Iterator[RoleUse]:
        for file in _yaml_files(self.folder / "meta"):
            if file.stem != "main":
                continue
            data = read(file)
            for item in _list(data.get("dependencies")) if isinstance(data, Mapping) else ():
                name, line = _role_name(item)
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
        aside = {"tasks", "files", "templates", "vars", "group_vars", "host_vars", "roles"}
        return [
            path
            for path in _yaml_files(self.root / "playbooks")
            if not aside & set(path.relative_to(self.root).parts[:-1])
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
        data = _top(file)
        for item in data:
            found = _import(item, file)
            if found is None:
                if "hosts" in item:
                    yield _play(item, file, via)
            elif found.target and found.target not in {file, *(each.file for each in via)}:
                yield from self._read(found.target, (*via, found))

    def _imports(self, file: Path, found: list[Import], seen: set[Path]) -> None:
        seen.add(file)
        for item in _top(file):
            each = _import(item, file)
            if each:
                found.append(each)
                if each.target and each.target not in seen:
                    self._imports(each.target, found, seen)


# -- reading ------------------------------------------------------------------------------


def _top(file: Path) -> list[Mapping]:
    """Return the mappings of a file that is a list: plays or tasks."""
    data = read(file)
    if data is None:
        return []
    if not isinstance(data, list):
        if file.parent.name in ("tasks", "handlers"):
            return []
        raise UnreadableYaml(
            f"{file}:1: a playbook is a list of plays.", hint="name another playbook"
        )
    return [item for item in data if isinstance(item, Mapping)]


def _play(item: Mapping, file: Path, via: tuple[Import, ...]) -> Play:
    uses: list[RoleUse] = []
    for entry in _list(item.get("roles")):
        name, line = _role_name(entry)
        if name:
            line = line or item.lines.get("roles", item.line)
            place = entry if isinstance(entry, Mapping) else Mapping()
            uses.append(
                RoleUse(name, file, line, "roles", "", _tags(place), _when(place), _given(place))
            )
    includes = [file.parent / str(name) for name in _list(item.get("vars_files"))]
    for key in _PLAY_TASKS:
        tasks = [task for task in _list(item.get(key)) if isinstance(task, Mapping)]
        uses += _roles_in(tasks, file, "")
        includes += _included(tasks, file)
    return Play(
        file=file,
        line=item.line,
        name=str(item.get("name") or ""),
        hosts=_pattern(item.get("hosts")),
        roles=tuple(uses),
        includes=tuple(path for path in includes if path.is_file()),
        imports=via,
        tags=_tags(item),
    )


def _import(item: Mapping, file: Path) -> Import | None:
    key = next((key for key in _IMPORTS if key in item), None)
    if key is None:
        return None
    text = str(item[key] or "").strip()
    # Old playbooks give variables behind the name: 'x.yml hostlist=slurm-node'.
    name = text if "{{" in text else _first_word(text)
    name = name.replace("{{ playbook_dir }}/", "").replace("{{playbook_dir}}/", "")
    target = (file.parent / name) if name and "{{" not in name else None
    if target:
        target = Path(_normal(target))
    there = target if target and target.is_file() else None
    return Import(file, item.lines.get(key, item.line), name, there, _when(item), _tags(item))


def _first_word(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return words[0] if words else ""


def _normal(path: Path) -> str:
    # Not ``resolve``: a link in the checkout is a name of its own.
    return os.path.normpath(path)


def _tasks(items: Iterable[Any]) -> Iterator[Mapping]:
    """Return tasks, those within blocks included."""
    for item in items:
        if isinstance(item, Mapping):
            yield item
            for key in _BLOCKS:
                yield from _tasks(_list(item.get(key)))


def _roles_in(items: Iterable[Any], file: Path, within: str) -> Iterator[RoleUse]:
    for task in _tasks(items):
        for key in _ROLES:
            if key not in task:
                continue
            name, _line = _role_name(task[key])
            via: Via = "import_role" if key.endswith("import_role") else "include_role"
            if name:
                yield RoleUse(
                    name, file, task.line, via, within, _tags(task), _when(task), _given(task)
                )


def _included(items: Iterable[Any], file: Path) -> list[Path]:
    found = []
    for task in _tasks(items):
        for key in _TASKS:
            value = task.get(key)
            if isinstance(value, Mapping):
                value = value.get("file")
            if isinstance(value, str) and "{{" not in value and value:
                path = file.parent / _first_word(value)
                found.append(path)
                if path.is_file() and not key.endswith("include_vars"):
                    inner = read(path)
                    found += _included(inner if isinstance(inner, list) else [], path)
    return found


def _role_name(entry: Any) -> tuple[str, int]:
    """Return a role's name and line from any of the ways to write one."""
    if isinstance(entry, Mapping):
        for key in ("role", "name", "src"):
            if entry.get(key):
                return str(entry[key]), entry.line
        return "", entry.line
    text = str(entry or "").strip()
    # 'name=facts tasks_from=build'
    words = [word for word in text.split() if word.startswith("name=")]
    return (words[0].removeprefix("name=") if words else text), getattr(entry, "line", 0)


def _pattern(value: Any) -> str:
    return ":".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _tags(item: Mapping) -> frozenset[str]:
    words = _list(item.get("tags"))
    return frozenset(part.strip() for word in words for part in str(word).split(",") if part)


def _when(item: Mapping) -> tuple[str, ...]:
    return tuple(str(each) for each in _list(item.get("when")))


def _given(item: Mapping) -> frozenset[str]:
    # Beside the role's name ('nfs_is_client: yes') or below 'vars'.
    values = {**item, **(item["vars"] if isinstance(item.get("vars"), Mapping) else {})}
    none = ("", "no", "false", "none")
    return frozenset(name for name, value in values.items() if str(value).lower() not in none)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _yaml_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.rglob("*") if path.suffix in (".yml", ".yaml") and path.is_file()
    )
