"""What a change of a DeepOps checkout reaches: the roles and playbooks that use each changed file.

Read from the checkout itself: what playbooks import, which roles they and those roles use, and
which files name which. Where that cannot tell, because a file is everybody's, all is reached and
the reason is kept. Not for which checks follow from it: that is ``scope``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from deepops_fixtures import facts
from deepops_fixtures.deepops import variables
from deepops_fixtures.deepops.changes import Changes, State
from deepops_fixtures.deepops.reach import READERS, Reader, unused_in

#: Beside any playbook, and at the top (Ansible, "Sample directory layout").
_BESIDE = r"(playbooks/(.+/)?)?"
#: Files that decide about every playbook, and what they decide.
_SHARED = (
    (r"ansible\.cfg$", "Ansible's settings for every playbook"),
    (r"scripts/setup\.sh$", "it says which Ansible runs the playbooks"),
    (r"roles/requirements\.yml$", "Galaxy's roles and collections for every playbook"),
    (r"collections/", "collections for every playbook"),
    (r"\.gitmodules$", "it says where submodules come from"),
    (r"config\.example/(inventory|hosts)(/|$)", "groups and variables of every host"),
    (r"config\.example/host_vars/", "variables of hosts"),
    (
        _BESIDE + r"(library|module_utils|plugins|[a-z]+_plugins)/",
        "Ansible's own additions, for every playbook",
    ),
    (_BESIDE + r"(group_vars|host_vars)/", "variables of every playbook"),
)
_CONFIGURATION = "config.example/"
#: Folders of which reading may tell something, when everything can be read.
_READ = (*READERS, "submodules/")
_GROUP_VARS = "config.example/group_vars/"
#: What Ansible reads of a folder of variables (its 'vars' plugins).
_VARIABLES = ("", ".yml", ".yaml", ".json")


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


def of(changes: Changes, root: Path | None = None, *, chosen: Iterable[str] = ()) -> Impact:
    """Return what changes reach, read in the tree as it is now. ``chosen``: playbooks that a run
    applies, for those that are in no folder of playbooks."""
    reader = Reader(root or changes.tree, chosen)
    files = [_reached(reader, path, state) for path, state in changes.files.items()]
    return Impact(ref=changes.ref, base=changes.base, files=tuple(files))


def _reached(reader: Reader, path: str, state: State) -> Reached:
    why, part = _shared(path)
    if why:
        return Reached(path=path, state=state, everything=why, part=part)
    role = reader.role_of(path)
    if reader.blind and (path.startswith(_READ) or reader.naming(path)):
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
    for pattern, why in _SHARED:
        if re.match(pattern, path):
            return why, ""
    for part, file in variables.VIRTUAL.items():
        if path == file.as_posix():
            return f"variables that DeepOps' virtual scripts give {part}", part
    group = _group_of(path)
    parts = [
        part
        for part, groups in facts.PART_GROUPS.items()
        # 'k8s-cluster' is what releases up to 22.x call it.
        if group.replace("-", "_") in {each.replace("-", "_") for each in groups}
    ]
    if parts:
        return f"variables of group {group}", parts[0]
    return ("variables of every host", "") if group == "all" else ("", "")


def _group_of(path: str) -> str:
    """Return the group whose variables a file of the configuration has, '' for none."""
    if not path.startswith(_GROUP_VARS) or PurePosixPath(path).suffix not in _VARIABLES:
        return ""
    return PurePosixPath(path.removeprefix(_GROUP_VARS)).parts[0].split(".")[0]


def _of_role(reader: Reader, path: str, state: State, role: str) -> Reached:
    if unused_in(role, path):
        why = f"of role '{role}', and no playbook runs it"
        return Reached(path=path, state=state, role=role, via=why)
    using = reader.using_role(role)
    others, named, _ = _through(reader, reader.naming_role(role))
    found = tuple(sorted({*using, *others}))
    via = f"role '{role}'" if using else named or f"no playbook uses role '{role}'"
    entries = reader.entries(found)
    return Reached(path=path, state=state, role=role, playbooks=found, entries=entries, via=via)


def _by_name(reader: Reader, path: str, state: State) -> Reached:
    found, via, shared = _through(reader, reader.naming(path))
    if not shared and not found and (group := _group_of(path)):
        shared = (f"variables of group {group}", "")
    if shared:
        return Reached(path=path, state=state, everything=shared[0], part=shared[1])
    if not found and (found := reader.beside(path)):
        via = "beside"
    entries = reader.entries(found)
    return Reached(path=path, state=state, playbooks=found, entries=entries, via=via)


def _through(
    reader: Reader, names: Iterable[str]
) -> tuple[tuple[str, ...], str, tuple[str, str] | None]:
    """Follow files that name another, and those that name them, to the playbooks; return these,
    the first way there in words, and why it is everybody's where the configuration names it."""
    found: set[str] = set()
    first, todo = "", list(names)
    seen = set(todo)
    while todo:
        name = todo.pop(0)
        why, part = _shared(name) if name.startswith(_CONFIGURATION) else ("", "")
        if why:
            return (), "", (f"{why}, in {name}", part)
        role = reader.role_of(name)
        playbooks = reader.using_role(role) if role else reader.made_of(name)
        if playbooks:
            first = first or (f"named in role '{role}'" if role else f"named in {name}")
            found |= set(playbooks)
        elif not role:
            more = [each for each in reader.naming(name) if each not in seen]
            seen |= {*more}
            todo += more
    return tuple(sorted(found)), first, None
