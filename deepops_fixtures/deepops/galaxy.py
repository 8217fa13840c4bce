"""What a checkout wants of Ansible Galaxy (``roles/requirements.yml``): what is there, what can be
had, and what a run cannot do without.

Looked for where the checkout's user has it, in pip's package 'ansible' and in a cache; else
``ansible-galaxy`` is asked, with a deadline. Not for submodules: those are git's (``finding``).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from deepops_fixtures.deepops import yaml_lines
from deepops_fixtures.deepops.checkout import GALAXY, Checkout
from deepops_fixtures.deepops.playbooks import RoleUse
from deepops_fixtures.deepops.toolchain import Toolchain
from deepops_fixtures.errors import StepTimeout, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail

_FILE = Path("roles/requirements.yml")
#: Seconds that Galaxy has for roles, and for collections.
SECONDS = 240.0
_YAML = (".yml", ".yaml")
#: Seconds after which Galaxy is asked again for what it did not give.
_AGAIN = 3600.0


@dataclass(frozen=True)
class Wanted:
    """The names of roles and collections that a checkout lists."""

    roles: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it names nothing."""
        return not self.roles and not self.collections


def wanted(checkout: Checkout) -> Wanted:
    """Return what a checkout lists. Raises UnreadableYaml."""
    file = checkout.tree / _FILE
    data: Any = yaml_lines.read(file) if file.is_file() else {}
    if isinstance(data, list):
        # The older form lists roles alone.
        data = {"roles": data}
    return Wanted(_names(data, "roles"), _names(data, "collections"))


def _names(data: Any, kind: str) -> tuple[str, ...]:
    items = (data.get(kind) if isinstance(data, dict) else None) or []
    found = (
        str(item.get("name") or item.get("src") or "") if isinstance(item, dict) else str(item)
        for item in items
    )
    return tuple(name for name in found if name)


class Galaxy:
    """The content of Galaxy for one checkout and one Ansible."""

    def __init__(self, checkout: Checkout, tools: Toolchain, cache: Path) -> None:
        self._checkout = checkout
        self._tools = tools
        file = checkout.tree / _FILE
        text = file.read_bytes() if file.is_file() else b""
        digest = hashlib.sha256(text + tools.packages[0].encode()).hexdigest()[:12]
        self.folder = cache / "galaxy" / digest
        self.wanted = wanted(checkout)

    def roles_path(self) -> list[Path]:
        """Return the folders of roles that are not in the copy: the user's own, and the
        cache's."""
        return [path for path in (self._checkout.galaxy("roles"), self.folder / "roles") if path]

    def collections_path(self) -> list[Path]:
        """Return the folders of collections beside the copy's."""
        mine = self._checkout.galaxy("collections")
        return [path for path in (mine, self.folder / "collections") if path]

    def link_into(self, copy: Path) -> None:
        """Put links to what is not the checkout's own where its ansible.cfg has it looked for."""
        for folder in self.roles_path():
            _link(folder, copy / GALAXY["roles"])
        for folder in self.collections_path():
            for namespace in sorted((folder / "ansible_collections").glob("[a-z]*")):
                _link(
                    namespace,
                    copy / GALAXY["collections"] / "ansible_collections" / namespace.name,
                )

    def missing(self) -> Wanted:
        """Return what is nowhere on this host."""
        roles = [
            name
            for name in self.wanted.roles
            if not any((folder / name).is_dir() for folder in self.roles_path())
        ]
        collections = [name for name in self.wanted.collections if not self._has_collection(name)]
        return Wanted(tuple(roles), tuple(collections))

    def _has_collection(self, name: str) -> bool:
        below = Path(*name.split(".", 1))
        places = [path / "ansible_collections" for path in self.collections_path()]
        return any((place / below).is_dir() for place in (*places, self._tools.collections))

    def ensure(self, needed: Wanted, journal: Journal) -> Wanted:
        """Ask Galaxy for what is needed and missing, unless it was asked within the hour; return
        what is missing of all that the checkout lists."""
        if not _both(self.missing(), needed).empty:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder.with_suffix(".lock")):
                asked = self.folder / "asked"
                if not asked.exists() or time.time() - asked.stat().st_mtime > _AGAIN:
                    with journal.step("prepare", "asking Ansible Galaxy", detail=str(self._log)):
                        self._ask(self.missing())
                    asked.touch()
        return self.missing()

    @property
    def _log(self) -> Path:
        return self.folder / "galaxy.log"

    def _ask(self, missing: Wanted) -> None:
        self._log.unlink(missing_ok=True)
        file = self._checkout.tree / _FILE
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        # No ansible.cfg, and no token, of whoever runs this.
        config = self.folder / "ansible.cfg"
        config.touch()
        kept = {"HOME": str(home), "ANSIBLE_CONFIG": str(config), "ANSIBLE_NOCOLOR": "1"}
        for kind, names in (("role", missing.roles), ("collection", missing.collections)):
            place = self.folder / f"{kind}s"
            words: list[str | Path] = [kind, "install", "-p", place, "-r", file, *_PATIENCE[kind]]
            if names:
                try:
                    run_logged(
                        [self._tools.bin / "ansible-galaxy", *words],
                        log=self._log, deadline=Deadline.after(SECONDS),
                        what="Ansible Galaxy", env=kept, cwd=self.folder,
                    )  # fmt: skip
                except StepTimeout as error:
                    with self._log.open("a") as log:
                        log.write(f"{error.message}\n")

    def why(self) -> str:
        """Return what Galaxy said last, '' where it was not asked."""
        lines = [
            line
            for line in tail(self._log, 60).splitlines()
            if "ERROR" in line or "did not" in line
        ]
        return lines[-1].strip() if lines else ""


def _link(folder: Path, place: Path) -> None:
    """Link everything in a folder into a place, but for what is there."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        target = place / path.name
        if not target.exists():
            place.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())


#: One that is not to be had keeps no other from coming.
_PATIENCE: dict[str, tuple[str, ...]] = {
    "role": ("--ignore-errors",),
    "collection": ("--ignore-errors", "--timeout", "30"),
}


def needed(uses: Iterable[RoleUse], files: Iterable[Path], listed: Wanted) -> Wanted:
    """Return what of the listed roles and collections is used: roles by name, collections where a
    file names something of theirs."""
    names = {use.name for use in uses}
    texts = [file.read_text(errors="replace") for file in files if file.suffix in _YAML]
    return Wanted(
        tuple(role for role in listed.roles if role in names),
        tuple(each for each in listed.collections if any(f"{each}." in text for text in texts)),
    )


def refuse_without(
    missing: Wanted, wanted: Wanted, uses: Iterable[RoleUse], root: Path, why: str
) -> None:
    """Refuse a run whose playbooks need what is not to be had. Raises UsageProblem that names
    each, and the places that use a role."""
    lacking = _both(missing, wanted)
    if lacking.empty:
        return
    places: dict[str, list[str]] = {}
    for use in uses:
        if use.name in lacking.roles or use.name.startswith(lacking.collections):
            file = use.file.relative_to(root) if root in use.file.parents else use.file
            places.setdefault(use.name, []).append(f"{file}:{use.line}")
    raise UsageProblem(
        f"The chosen playbooks need the {told(lacking)} of Ansible Galaxy, and Galaxy cannot be "
        f"had{f': {why}' if why else ''}.",
        detail="\n".join(f"{name}: {', '.join(dict.fromkeys(at))}" for name, at in places.items()),
        hint="where there is a network, in the checkout: ansible-galaxy role install -p "
        "roles/galaxy -r roles/requirements.yml (collection install -p collections); "
        "or choose playbooks without them: --deepops-playbook",
    )


def _both(one: Wanted, other: Wanted) -> Wanted:
    return Wanted(
        tuple(name for name in one.roles if name in other.roles),
        tuple(name for name in one.collections if name in other.collections),
    )


def told(missing: Wanted) -> str:
    """Return what is missing in words, '' for nothing."""
    words = []
    for kind, names in (("role", missing.roles), ("collection", missing.collections)):
        if names:
            words.append(f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}")
    return " and ".join(words)
