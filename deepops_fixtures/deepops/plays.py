"""One play, one import, one use of a role, as they are written in a playbook, with their places.

For ``playbooks``, which follows what they name from file to file.
"""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deepops_fixtures.deepops.yaml_lines import Mapping, UnreadableYaml, read

_PREFIXES = ("", "ansible.builtin.", "ansible.legacy.")


def _spellings(*words: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{word}" for prefix in _PREFIXES for word in words)


#: 'include' is how releases of DeepOps up to 22.08 import playbooks.
_IMPORTS = (*_spellings("import_playbook"), "include")
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
    #: Variables that the import gives, as (name, value), in ``vars``.
    given: tuple[tuple[str, str], ...] = ()
    #: Variables behind the name ('x.yml hostlist=slurm-node'), which ansible-core drops.
    dropped: tuple[tuple[str, str], ...] = ()


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
    #: Whether it has tasks or handlers of its own, beside those that bring a role.
    has_tasks: bool = False
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


# -- reading ------------------------------------------------------------------------------


def tops_of(file: Path) -> list[Mapping]:
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


def play_of(item: Mapping, file: Path, via: tuple[Import, ...]) -> Play:
    """Return a play, given its mapping and the imports that lead to its file."""
    uses: list[RoleUse] = []
    for entry in list_of(item.get("roles")):
        name, line = role_name(entry)
        if name:
            line = line or item.lines.get("roles", item.line)
            place = entry if isinstance(entry, Mapping) else Mapping()
            uses.append(
                RoleUse(name, file, line, "roles", "", tags_of(place), _when(place), _given(place))
            )
    includes = [_place(file, file, name, "vars") for name in _flat(item.get("vars_files"))]
    tasks = [task for key in _PLAY_TASKS for task in tasks_of(list_of(item.get(key)))]
    uses += roles_in(tasks, file, "")
    for included in _included(tasks, file, file, set()):
        includes.append(included.file)
        uses += included.uses
    return Play(
        file=file,
        line=item.line,
        name=str(item.get("name") or ""),
        hosts=_pattern(item.get("hosts")),
        roles=tuple(uses),
        includes=tuple(path for path in includes if path and path.is_file()),
        has_tasks=any(not (task.keys() & {*_ROLES, *_BLOCKS}) for task in tasks),
        imports=via,
        tags=tags_of(item),
    )


def import_of(item: Mapping, file: Path) -> Import | None:
    """Return the import that a mapping is, None for a play."""
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
    variables = item["vars"] if isinstance(item.get("vars"), Mapping) else {}
    behind = _assignments(text) if name != text else ()
    kept = behind if key == "include" else ()
    return Import(
        file,
        item.lines.get(key, item.line),
        name,
        there,
        _when(item),
        tags_of(item),
        (*((name, str(value)) for name, value in variables.items()), *kept),
        () if kept else behind,
    )


def _first_word(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return words[0] if words else ""


def _assignments(text: str) -> tuple[tuple[str, str], ...]:
    try:
        words = shlex.split(text)[1:]
    except ValueError:
        words = text.split()[1:]
    pairs = (word.split("=", 1) for word in words if "=" in word)
    return tuple((name, value) for name, value in pairs)


def _normal(path: Path) -> str:
    # Not ``resolve``: a link in the checkout is a name of its own.
    return os.path.normpath(path)


def tasks_of(items: Iterable[Any]) -> Iterator[Mapping]:
    """Return tasks, those within blocks included."""
    for item in items:
        if isinstance(item, Mapping):
            yield item
            for key in _BLOCKS:
                yield from tasks_of(list_of(item.get(key)))


def roles_in(items: Iterable[Any], file: Path, within: str) -> Iterator[RoleUse]:
    """Return the roles that tasks include or import; ``within`` is the role whose tasks they
    are."""
    for task in tasks_of(items):
        for key in _ROLES:
            if key not in task:
                continue
            name, _line = role_name(task[key])
            via: Via = "import_role" if key.endswith("import_role") else "include_role"
            if name:
                yield RoleUse(
                    name, file, task.line, via, within, tags_of(task), _when(task), _given(task)
                )


class _Included(NamedTuple):
    file: Path
    uses: list[RoleUse]


def _included(
    items: Iterable[Any], file: Path, playbook: Path, seen: set[Path]
) -> Iterator[_Included]:
    """Return the files that tasks include, and those that these include, with their roles."""
    for task in tasks_of(items):
        for key in _TASKS:
            value = task.get(key)
            if isinstance(value, Mapping):
                value = value.get("file")
            variables = key.endswith("include_vars")
            path = _place(file, playbook, value, "vars" if variables else "tasks")
            if path is None or path in seen:
                continue
            seen.add(path)
            inner = [] if variables else _tasks_in(path)
            uses = [
                replace(use, when=(*_when(task), *use.when), tags=tags_of(task) | use.tags)
                for use in roles_in(inner, path, "")
            ]
            yield _Included(path, uses)
            for more in _included(inner, path, playbook, seen):
                uses = [replace(use, when=(*_when(task), *use.when)) for use in more.uses]
                yield more._replace(uses=uses)


def _place(file: Path, playbook: Path, name: Any, kind: str) -> Path | None:
    """Return the file that is meant by a name in a playbook or a file of tasks: Ansible looks
    beside that file and beside the playbook, there also in the folder of its kind; None where only
    a run knows it, or where it is not there."""
    if not isinstance(name, str) or not name.strip():
        return None
    word = _first_word(re.sub(r"\{\{ *playbook_dir *\}\}/?", f"{playbook.parent}/", name))
    if "{{" in word:
        return None
    folders = (file.parent, playbook.parent, playbook.parent / kind)
    paths = (Path(_normal(folder / word)) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _tasks_in(file: Path) -> list[Mapping]:
    """Return the mappings of a file that may be a list."""
    data = read(file)
    return [item for item in data if isinstance(item, Mapping)] if isinstance(data, list) else []


def _flat(value: Any) -> Iterator[Any]:
    # Files of variables may be lists of which the first that is there counts.
    for each in list_of(value):
        if isinstance(each, list):
            yield from each
        else:
            yield each


def role_name(entry: Any) -> tuple[str, int]:
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


def tags_of(item: Mapping) -> frozenset[str]:
    """Return the tags of a play, an import, a role or a task."""
    words = list_of(item.get("tags"))
    return frozenset(part.strip() for word in words for part in str(word).split(",") if part)


def _when(item: Mapping) -> tuple[str, ...]:
    return tuple(str(each) for each in list_of(item.get("when")))


def _given(item: Mapping) -> frozenset[str]:
    # Beside the role's name ('nfs_is_client: yes') or below 'vars'.
    values = {**item, **(item["vars"] if isinstance(item.get("vars"), Mapping) else {})}
    none = ("", "no", "false", "none")
    return frozenset(name for name, value in values.items() if str(value).lower() not in none)


def list_of(value: Any) -> list[Any]:
    """Return what may be written as one or as a list, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files below a folder, in order; none where it is not there."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.rglob("*") if path.suffix in (".yml", ".yaml") and path.is_file()
    )
