"""Which playbooks of a checkout reach which of its files and roles: by imports and roles, and by
the files that name one another.

Read from the checkout alone. Where reading cannot tell, more is said to be reached. Not for what a
change is about: that is ``impact``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deepops_fixtures.deepops.playbooks import ASIDE, ROLES_PATH, Playbooks
from deepops_fixtures.deepops.yaml_lines import Mapping, UnreadableYaml, read

#: What is at the top of a role and no playbook runs.
_UNUSED = re.compile(r"^(molecule|tests|\.[^/]+|[^/]+\.(md|rst)|meta/\.galaxy_install_info)(/|$)")
#: Folders whose files may name others, and the size (bytes) up to which they are read.
READERS = ("playbooks/", "roles/", "scripts/", "config.example/")
_READ_UP_TO = 512 * 1024
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
#: Folders of a role that others may take files from.
_ROLE_FOLDERS = "tasks|files|templates|vars|defaults|handlers|library|meta"


def role_of(path: str) -> str:
    """Return the role that a file is in, '' for none."""
    for place in sorted(ROLES_PATH, key=len, reverse=True):
        if path.startswith(f"{place}/"):
            name, slash, _ = path.removeprefix(f"{place}/").partition("/")
            # A role may be a link or a submodule: one path for git.
            return name if slash or "." not in name else ""
    return ""


def unused_in(role: str, path: str) -> bool:
    """Return whether a file is in a role only for people, or for the role's own tests."""
    return bool(role and _UNUSED.search(path.partition(f"/{role}/")[2]))


class _Reach(NamedTuple):
    files: frozenset[str]
    roles: frozenset[str]

    def has_role(self, names: Iterable[str]) -> bool:
        """Return whether a role is used under one of its names, as far as they are known."""
        unknown = [_pattern(role) for role in self.roles if "{{" in role]
        return any(
            name in self.roles or any(pattern.fullmatch(name) for pattern in unknown)
            for name in names
        )


def _pattern(role: str) -> re.Pattern[str]:
    """Return what a role may be called whose name has a template in it."""
    words = re.split(r"\{\{.*?\}\}", role)
    return re.compile(".+".join(map(re.escape, words)))


class Reader:
    """Knows which playbook of a checkout reaches which file and role.

    ``chosen``: playbooks below the checkout that a run applies, wherever they are.
    """

    def __init__(self, root: Path, chosen: Iterable[str] = ()) -> None:
        self.root = root
        self.playbooks = Playbooks(root)
        self._chosen = tuple(root / name for name in chosen)
        self._unread: list[str] = []

    @cached_property
    def _reach(self) -> dict[str, _Reach]:
        found = {}
        for path in dict.fromkeys((*self.playbooks.all(), *self._chosen)):
            try:
                # A file of variables or of tasks may lie anywhere.
                if isinstance(read(path), Mapping):
                    continue
                files = {path, *(i.target for i in self.playbooks.imports(path) if i.target)}
                roles = set()
                plays = self.playbooks.plays(path)
                if not plays and not self.playbooks.imports(path):
                    continue
                for play in plays:
                    files |= {play.file, *play.includes}
                    roles |= {_bare(use.name) for use in self.playbooks.roles_of_play(play)}
            except UnreadableYaml as error:
                self._unread.append(error.message.replace(f"{self.root}/", ""))
                continue
            within = (file for file in files if self.root in file.parents)
            found[self._name(path)] = _Reach(frozenset(map(self._name, within)), frozenset(roles))
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
            if each.target and self.root in each.target.parents
        )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def using_role(self, role: str) -> tuple[str, ...]:
        """Return the playbooks that reach a role, under any name that a link gives it."""
        names = {role, *(link for link, target in self._links.items() if role_of(target) == role)}
        found = (name for name, reach in self._reach.items() if reach.has_role(names))
        return tuple(sorted(found))

    @cached_property
    def _links(self) -> dict[str, str]:
        """Role that is a link → the folder below the checkout where it really is, with a '/'."""
        found = {}
        for place in ROLES_PATH:
            for path in sorted((self.root / place).glob("*")):
                target = path.resolve()
                if path.is_symlink() and self.root.resolve() in target.parents:
                    found[path.name] = f"{target.relative_to(self.root.resolve()).as_posix()}/"
        return found

    def role_of(self, path: str) -> str:
        """Return the role that a file is in, also where it is linked from, '' for none."""
        links = (name for name, target in self._links.items() if path.startswith(target))
        return role_of(path) or next(links, "")

    def made_of(self, path: str) -> tuple[str, ...]:
        """Return the playbooks that a file, not of a role, is part of."""
        return tuple(sorted(name for name, reach in self._reach.items() if path in reach.files))

    def beside(self, path: str) -> tuple[str, ...]:
        """Return the playbooks that a file may be for because it lies beside them: Ansible looks
        in files/, templates/, vars/ and tasks/ there."""
        folders = PurePosixPath(path).parts[:-1]
        if not folders or folders[0] != "playbooks" or path.endswith((".md", ".rst")):
            return ()
        depth = next((n for n, name in enumerate(folders) if name in ASIDE), len(folders))
        place = PurePosixPath(*folders[:depth])
        here = [name for name in self._reach if PurePosixPath(name).parent == place]
        return tuple(sorted({each for name in here for each in self.made_of(name)}))

    def entries(self, playbooks: Iterable[str]) -> tuple[str, ...]:
        """Return those of some playbooks that no other playbook imports."""
        playbooks = tuple(playbooks)
        return tuple(n for n in playbooks if n not in self._imported) or playbooks

    # -- files that name files ----------------------------------------------------------------

    @cached_property
    def _texts(self) -> dict[str, str]:
        """The text of every file that may name another; comments do not, in the configuration."""
        found = {}
        for place in READERS:
            for path in sorted((self.root / place).rglob("*")):
                name = self._name(path)
                if unused_in(role_of(name), name) or name.endswith((".md", ".rst")):
                    continue
                with suppress(OSError):
                    if path.is_file() and path.stat().st_size <= _READ_UP_TO:
                        text = path.read_text(errors="replace")
                        found[name] = _COMMENT.sub("", text) if place[0] == "c" else text
        return found

    @cached_property
    def _basenames(self) -> Counter[str]:
        """How many files have a name."""
        files = (path for place in READERS for path in (self.root / place).rglob("*"))
        return Counter(path.name for path in files if path.is_file())

    def naming(self, path: str) -> list[str]:
        """Return the files that name a file: by its last two words ('k8s/install_helm.sh'), or by
        its own name where no other file has it. What is in config.example is used as config."""
        used = PurePosixPath(re.sub(r"^config\.example/", "config/", path))
        words = ["/".join(used.parts[-2:])]
        # One that was deleted is not counted.
        others = self._basenames[used.name] - (self.root / path).is_file()
        if path.startswith(READERS) and "." in used.name and not others:
            words.append(used.name)
        return self._matching(
            "|".join(rf"(?<![\w.-]){re.escape(w)}(?![\w-])" for w in words), path
        )

    def naming_role(self, role: str) -> list[str]:
        """Return the files of others that name a folder of a role
        ('../../roles/slurm/templates')."""
        pattern = rf"(?<![\w.-]){re.escape(role)}/({_ROLE_FOLDERS})/"
        return [n for n in self._matching(pattern, "") if role_of(n) != role]

    def _matching(self, pattern: str, but: str) -> list[str]:
        compiled = re.compile(pattern)
        return [n for n, text in self._texts.items() if n != but and compiled.search(text)]


def _bare(role: str) -> str:
    """Return a role's name, which may be written as the path of its folder."""
    return PurePosixPath(role).name if "/" in role and "{{" not in role else role
