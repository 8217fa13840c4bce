"""A checkout of DeepOps: its files, and what is known of where they come from.

It is read where it is and never written to; a run works on a copy. Not for finding one, nor for
fetching one: that is ``finding``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from deepops_fixtures import inputs
from deepops_fixtures.deepops import git
from deepops_fixtures.errors import UsageProblem, some

#: What a DeepOps tree has at its top.
SHAPE = ("ansible.cfg", "playbooks", "roles", "config.example")
#: What its own setup.sh puts there and git ignores: used where it is, not copied.
GALAXY = {"roles": Path("roles/galaxy"), "collections": Path("collections")}
#: Folders at its top that no playbook reads.
_FOR_PEOPLE = ("docs", ".github")


@dataclass(frozen=True)
class Checkout:
    """The files of a DeepOps tree."""

    #: Where they are; nothing of ours is ever written there.
    tree: Path
    #: What was asked for: a path, a URL with a ref, a ref.
    asked: str
    #: Full commit ('' outside git).
    commit: str = ""
    #: Branch or tag ('' for none).
    branch: str = ""
    #: Paths that are not as in the commit.
    dirty: tuple[str, ...] = ()
    #: Whose ref it is: a URL or a repository's path ('' for a working tree).
    repository: str = ""
    #: What has to be known of it, a sentence ('' for nothing).
    note: str = ""
    #: Trees that are to stand in the copy: folder below its top → where its files are.
    added: tuple[tuple[Path, Path], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files below the tree now: what git tracks, and what is new and not ignored; outside
        git all of them."""
        return tuple(sorted(_files(self.tree)))

    @property
    def told(self) -> str:
        """The checkout in words: 'DeepOps 3957a42f0c1d (master) + 2 changed files'."""
        where = f"{self.commit[:12]} ({self.branch or 'no branch'})" if self.commit else self.asked
        count = len(self.dirty)
        changed = f" + {count} changed file{'s' if count > 1 else ''}" if count else ""
        return f"DeepOps {where}{changed}"

    @property
    def provenance(self) -> str:
        """All that is known of it, changed files by name (eight of them)."""
        words = [self.told, f"from {self.repository or self.tree}"]
        if self.dirty:
            words.append(f"changed: {some(self.dirty, most=8)}")
        return "; ".join([*words, *([self.note] if self.note else [])])

    def inputs(self) -> dict[str, str]:
        """Return path → digest of every file but those that are only read by people, for a
        checkpoint to be compared by."""
        regular = (self.tree / path for path in self.files if path.parts[0] not in _FOR_PEOPLE)
        found = inputs.of_files(self.tree, (path for path in regular if path.is_file()))
        for place, tree in self.added:
            digests = inputs.of_files(tree, (tree / path for path in _files(tree)))
            found |= {str(place / name): digest for name, digest in digests.items()}
        return found

    def has(self, path: Path | str) -> bool:
        """Return whether there is something of this path in it."""
        return (self.tree / path).exists()

    def galaxy(self, kind: str) -> Path | None:
        """Return the folder of Galaxy's 'roles' or 'collections' that its user has put there, None
        where there is none."""
        folder = self.tree / GALAXY[kind]
        return folder if folder.is_dir() and any(folder.iterdir()) else None

    def with_tree(self, place: Path, tree: Path) -> Checkout:
        """Return the checkout with another tree below it (a submodule)."""
        return replace(self, added=(*self.added, (place, tree)))

    def copy(self, folder: Path) -> None:
        """Copy the files to a new folder, links as links.

        The copy is a git repository of its own with nothing in it: playbooks that call git there
        must not find the repository that the run's folder happens to be in.
        """
        _copy(self.tree, self.files, folder)
        for place, tree in self.added:
            _copy(tree, _files(tree), folder / place)
        git.try_ask(folder, "init", "--quiet")


def refuse_other(tree: Path, asked: str) -> None:
    """Refuse a folder that is no DeepOps tree. Raises UsageProblem."""
    missing = [name for name in SHAPE if not (tree / name).exists()]
    if missing:
        has = [f"{name}/" if name != "ansible.cfg" else name for name in missing]
        raise UsageProblem(
            f"'{asked}' is no DeepOps tree: it has no {', '.join(has)}.",
            hint="--deepops-source PATH, where PATH is the top of a checkout: "
            "git clone https://github.com/NVIDIA/deepops",
        )


def _files(tree: Path) -> list[Path]:
    """Return the files of a tree, below it: git's answer, submodules that are there included."""
    top = git.try_ask(tree, "rev-parse", "--show-toplevel")
    if top and Path(top).resolve() == tree.resolve():
        text = git.ask(tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        found = []
        for name in dict.fromkeys(filter(None, text.split("\0"))):
            path = tree / name
            if path.is_symlink() or path.is_file():
                found.append(Path(name))
            elif path.is_dir() and (path / ".git").exists():
                found += [Path(name) / inner for inner in _files(path)]
        return found
    return [
        path.relative_to(tree)
        for path in sorted(tree.rglob("*"))
        if (path.is_symlink() or path.is_file()) and ".git" not in path.relative_to(tree).parts
    ]


def _copy(tree: Path, files: Iterable[Path], folder: Path) -> None:
    for path in files:
        source, target = tree / path, folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            shutil.copy2(source, target)
