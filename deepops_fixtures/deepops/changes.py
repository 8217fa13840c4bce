"""What a branch of a DeepOps checkout has changed since a ref: committed, uncommitted, new files.

Read with git in the user's own working tree, which is never written to. Not for what the changes
mean: that is ``impact``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepops_fixtures.deepops import git
from deepops_fixtures.errors import UsageProblem

State = Literal["committed", "uncommitted", "untracked", "deleted"]


@dataclass(frozen=True)
class Changes:
    """The files that differ from the point where the branch left ``ref``: path → how."""

    tree: Path
    ref: str
    #: Commit where the branch left the ref, and the commit that is checked out; full names.
    base: str
    head: str
    files: dict[str, State]


def since(tree: Path, ref: str) -> Changes:
    """Return what has changed in a working tree since it left ``ref``.

    A renamed file counts with both its names. Raises UsageProblem when the tree is in no git
    repository, the ref is not in it, or both have no common commit.
    """
    git.need()
    git.refuse_distrusted(tree)
    top = git.try_ask(tree, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != tree.resolve():
        raise UsageProblem(
            f"What has changed in '{tree}' cannot be told: it is not the top of a git checkout.",
            hint="name the checkout's top: --deepops-source PATH",
        )
    commit = git.try_ask(tree, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    # A ref that begins with '-' would be an option.
    if not commit or ref.startswith("-"):
        near = git.near(ref, git.names(tree))
        raise UsageProblem(
            f"There is no branch, tag or commit '{ref}' in '{tree}'.",
            hint=f"did you mean {' or '.join(near)}?" if near else f"git -C {tree} branch --all",
        )
    base = git.try_ask(tree, "merge-base", commit, "HEAD")
    if not base:
        raise UsageProblem(
            f"'{ref}' and what is checked out in '{tree}' have no commit in common.",
            hint=f"git -C {tree} fetch --unshallow, where the clone is a shallow one",
        )
    files: dict[str, State] = {}
    for state, words in (
        ("committed", ["diff", base, "HEAD"]),
        ("uncommitted", ["diff", "HEAD"]),
    ):
        # Whatever the user's or the checkout's own settings say of submodules and renames.
        words += ["--name-status", "-z", "--no-renames", "--ignore-submodules=none"]
        for letter, path in _named(git.ask(tree, *words)):
            files[path] = "deleted" if letter == "D" else "committed"
            if state == "uncommitted" and letter != "D":
                files[path] = "uncommitted"
    for path in _split(git.ask(tree, "ls-files", "--others", "--exclude-standard", "-z")):
        files[path] = "untracked"
    head = git.ask(tree, "rev-parse", "HEAD")
    shown = {git.shown(path): state for path, state in files.items()}
    return Changes(tree, ref, base, head, dict(sorted(shown.items())))


def top_of(folder: Path) -> Path | None:
    """Return the top of the git checkout that a folder is in, None where it is in none. Raises
    UsageProblem."""
    git.need()
    git.refuse_distrusted(folder)
    top = git.try_ask(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _named(text: str) -> list[tuple[str, str]]:
    words = _split(text)
    return list(zip(words[::2], words[1::2], strict=True))


def _split(text: str) -> list[str]:
    return [word for word in text.split("\0") if word]
