"""What a change of a DeepOps checkout reaches: the roles and playbooks that use each changed file.

Read from the checkout itself: what playbooks import, which roles they and those roles use, and
which files name which. Where that cannot tell, because a file is everybody's, all is reached and
the reason is kept. Not for which checks follow from it: that is ``scope``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from deepops_fixtures import facts
from deepops_fixtures.deepops.changes import Changes, State
from deepops_fixtures.deepops.playbooks import ROLES_PATH, Playbooks
from deepops_fixtures.deepops.yaml_lines import UnreadableYaml

#: Files that decide about every playbook, and what they decide. A name that ends in '/' is a
#: folder; Ansible looks for these beside the playbooks and at the top (Ansible, "Sample setup").
SHARED = {
    "ansible.cfg": "Ansible's settings for every playbook",
    "scripts/setup.sh": "it says which Ansible runs the playbooks",
    "roles/requirements.yml": "Galaxy's roles and collections for every playbook",
    "collections/requirements.yml": "Galaxy's collections for every playbook",
    "config.example/inventory": "groups and variables of every host",
    "config.example/host_vars/": "variables of hosts",
    **{
        f"{place}{name}/": "Ansible's own additions, for every playbook"
        for place in ("", "playbooks/")
        for name in (
            "library",
            "module_utils",
            "plugins",
            "filter_plugins",
            "lookup_plugins",
            "action_plugins",
            "callback_plugins",
        )
    },
    **{
        f"{place}{name}/": "variables of every playbook"
        for place in ("", "playbooks/")
        for name in ("group_vars", "host_vars")
    },
}
_GROUP_VARS = "config.example/group_vars/"
#: What is in a role and no playbook runs.
_ASIDE = re.compile(r"(^|/)(molecule|tests|meta/\.galaxy_install_info|\.[^/]+)(/|$)|\.(md|rst)$")
#: Folders whose files may name others, and the size (bytes) up to which they are read.
_READERS = ("playbooks/", "roles/", "scripts/")
_READ_UP_TO = 512 * 1024


class Reached(BaseModel):
    """One changed file: its role, the playbooks that reach it, and the way there.

    ``playbooks`` are all that do; ``entries`` those of them that no other imports. ``everything``:
    why it reaches all, or all of ``part``; '' where it does not.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    state: State
    role: str = ""
    playbooks: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    via: str = ""
    everything: str = ""
    part: str = ""

    @property
    def nothing(self) -> bool:
        """Whether no playbook reaches it."""
        return not self.playbooks and not self.everything

    @property
    def told(self) -> str:
        """The way from the file to the playbooks, in words."""
        if self.everything:
            what = f"everything of {self.part}" if self.part else "everything"
            return f"{what}: {self.everything}"
        if not self.playbooks:
            return self.via or "no playbook reaches it"
        return f"{self.via + ': ' if self.via else ''}{', '.join(self.entries)}"


class Impact(BaseModel):
    """All that has changed since a ref, and what it reaches."""

    model_config = ConfigDict(frozen=True)

    ref: str
    base: str
    files: tuple[Reached, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that were changed themselves and that some playbook uses."""
        return tuple(sorted({item.role for item in self.files if item.role and item.playbooks}))

    @property
    def playbooks(self) -> tuple[str, ...]:
        """Every playbook that is reached."""
        return tuple(sorted({name for item in self.files for name in item.playbooks}))

    @property
    def shared(self) -> tuple[Reached, ...]:
        """The files that reach everything."""
        return tuple(item for item in self.files if item.everything)

    @property
    def unreached(self) -> tuple[Reached, ...]:
        """The files that no playbook reaches."""
        return tuple(item for item in self.files if item.nothing)


class _Reach(NamedTuple):
    files: frozenset[str]
    roles: frozenset[str]


class Reader:
    """Knows which playbook of a checkout reaches which file and role."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.playbooks = Playbooks(root)
        self._unread: list[str] = []

    @cached_property
    def _reach(self) -> dict[str, _Reach]:
        found = {}
        for path in self.playbooks.all():
            name = self._name(path)
            try:
                files = {path, *(i.target for i in self.playbooks.imports(path) if i.target)}
                roles = set()
                for play in self.playbooks.plays(path):
                    files |= {play.file, *play.includes}
                    roles |= {use.name for use in self.playbooks.roles_of_play(play)}
            except UnreadableYaml as error:
                self._unread.append(error.message.replace(f"{self.root}/", ""))
                continue
            found[name] = _Reach(frozenset(map(self._name, files)), frozenset(roles))
        return found

    @property
    def blind(self) -> str:
        """Why it is not known what all playbooks reach, '' where it is."""
        return self._unread[0] if self._reach is not None and self._unread else ""

    @cached_property
    def _imported(self) -> frozenset[str]:
        return frozenset(
            self._name(each.target)
            for name in self._reach
            for each in self.playbooks.imports(Path(name))
            if each.target
        )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def using_role(self, role: str) -> tuple[str, ...]:
        """Return the playbooks that reach a role."""
        return tuple(sorted(name for name, reach in self._reach.items() if role in reach.roles))

    def made_of(self, path: str) -> tuple[str, ...]:
        """Return the playbooks that a file, not of a role, is part of."""
        return tuple(sorted(name for name, reach in self._reach.items() if path in reach.files))

    def entries(self, playbooks: Iterable[str]) -> tuple[str, ...]:
        """Return those of some playbooks that no other playbook imports."""
        playbooks = tuple(playbooks)
        return tuple(n for n in playbooks if n not in self._imported) or playbooks

    # -- files that name files ----------------------------------------------------------------

    @cached_property
    def _texts(self) -> dict[str, str]:
        """The text of every file that may name another."""
        found = {}
        for place in _READERS:
            for path in sorted((self.root / place).rglob("*")):
                name = self._name(path)
                if _ASIDE.search(name) or not path.is_file() or path.is_symlink():
                    continue
                if path.stat().st_size <= _READ_UP_TO:
                    found[name] = path.read_text(errors="replace")
        return found

    @cached_property
    def _basenames(self) -> frozenset[str]:
        """The names that only one file of the checkout has."""
        names = [
            path.name
            for place in (*_READERS, "config.example/")
            for path in (self.root / place).rglob("*")
            if path.is_file()
        ]
        return frozenset(name for name in names if names.count(name) == 1 and "." in name)

    def naming(self, path: str) -> list[str]:
        """Return the files that name a file: by its last two words ('k8s/install_helm.sh'), or by
        its own name where no other file has it. What is in config.example is used as config."""
        used = PurePosixPath(re.sub(r"^config\.example/", "config/", path))
        words = ["/".join(used.parts[-2:])]
        if used.name in self._basenames:
            words.append(used.name)
        pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(word)}(?![\w-])" for word in words))
        return [n for n, text in self._texts.items() if n != path and pattern.search(text)]


def of(changes: Changes, root: Path | None = None) -> Impact:
    """Return what changes reach, read in the tree as it is now."""
    reader = Reader(root or changes.tree)
    files = [_reached(reader, path, state) for path, state in changes.files.items()]
    return Impact(ref=changes.ref, base=changes.base, files=tuple(files))


def _reached(reader: Reader, path: str, state: State) -> Reached:
    why, part = _shared(path)
    if why:
        return Reached(path=path, state=state, everything=why, part=part)
    role = role_of(path)
    if reader.blind and path.startswith(_READERS):
        return Reached(path=path, state=state, role=role, everything=reader.blind)
    if role:
        return _of_role(reader, path, state, role)
    found = reader.made_of(path)
    if found:
        entries = reader.entries(found)
        via = "" if entries == (path,) else "part of"
        return Reached(path=path, state=state, playbooks=found, entries=entries, via=via)
    return _by_name(reader, path, state)


def _shared(path: str) -> tuple[str, str]:
    """Return why a file is everybody's, or all of one part's, and that part."""
    for name, why in SHARED.items():
        if path == name or (name.endswith("/") and path.startswith(name)):
            return why, ""
    if path.startswith(_GROUP_VARS):
        group = PurePosixPath(path.removeprefix(_GROUP_VARS)).parts[0].split(".")[0]
        parts = [part for part, groups in facts.PART_GROUPS.items() if group in groups]
        if parts:
            return f"variables of group {group}", parts[0]
        if group == "all":
            return "variables of every host", ""
    return "", ""


def role_of(path: str) -> str:
    """Return the role that a file is in, '' for none."""
    for place in sorted(ROLES_PATH, key=len, reverse=True):
        if path.startswith(f"{place}/"):
            name, slash, _ = path.removeprefix(f"{place}/").partition("/")
            return name if slash else ""
    return ""


def _of_role(reader: Reader, path: str, state: State, role: str) -> Reached:
    inside = path.partition(f"/{role}/")[2]
    if _ASIDE.search(inside):
        why = f"of role '{role}', and no playbook runs it"
        return Reached(path=path, state=state, role=role, via=why)
    found = reader.using_role(role)
    via = f"role '{role}'" if found else f"no playbook uses role '{role}'"
    entries = reader.entries(found)
    return Reached(path=path, state=state, role=role, playbooks=found, entries=entries, via=via)


def _by_name(reader: Reader, path: str, state: State) -> Reached:
    """Follow the files that name this one, and those that name them, to the playbooks."""
    found: set[str] = set()
    first, seen, todo = "", {path}, [path]
    while todo:
        for name in reader.naming(todo.pop()):
            if name in seen:
                continue
            seen.add(name)
            role = role_of(name)
            playbooks = reader.using_role(role) if role else reader.made_of(name)
            if playbooks:
                first = first or (f"named in role '{role}'" if role else f"named in {name}")
                found |= set(playbooks)
            elif not role:
                todo.append(name)
    playbooks = tuple(sorted(found))
    entries = reader.entries(playbooks)
    return Reached(path=path, state=state, playbooks=playbooks, entries=entries, via=first)
