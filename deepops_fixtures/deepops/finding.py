"""Finding the checkout that ``--deepops-source`` names: a folder, a URL with a ref, a ref alone.

A ref alone is looked for in the repository that ``--deepops-repository`` names; else in the
checkout that the current folder is in; else in DeepOps' own. What is not on this host comes by a
bare mirror in the cache, and its trees stay there, one a commit. Not for driving a checkout.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deepops_fixtures.deepops import git
from deepops_fixtures.deepops.checkout import SHAPE, Checkout, refuse_other
from deepops_fixtures.deepops.repository import commit_of, mirror_of, mirrored, tree_of, url_of
from deepops_fixtures.errors import UsageProblem

#: DeepOps' own repository.
UPSTREAM = "https://github.com/NVIDIA/deepops"


def find(asked: str, *, cache: Path, repository: str = "", here: Path | None = None) -> Checkout:
    """Return the checkout that is asked for. ``cache`` is the folder for mirrors and trees.

    Raises UsageProblem: no such folder, no DeepOps tree, no such ref, no such repository, no git.
    """
    remote = url_of(asked)
    if remote:
        return _of_url(remote.url, remote.ref or "HEAD", asked, cache)
    path = Path(asked).expanduser()
    if path.is_dir():
        return working_tree(path.absolute(), asked)
    if asked.startswith(("/", ".", "~")) or path.exists():
        what = "is no folder" if path.exists() else "is not there"
        raise UsageProblem(
            f"--deepops-source: '{asked}' {what}.",
            hint="--deepops-source PATH, where PATH is the top of a DeepOps checkout",
        )
    git.need()
    place = repository or _checkout_around(here or Path.cwd()) or UPSTREAM
    remote = url_of(place)
    if remote:
        return _of_url(remote.url, asked, asked, cache)
    return _of_repository(Path(place).expanduser().absolute(), asked, asked, cache)


def working_tree(tree: Path, asked: str) -> Checkout:
    """Return a user's own tree as a checkout, with what is not committed. Raises UsageProblem."""
    refuse_other(tree, asked)
    if not (tree / ".git").exists():
        return Checkout(tree, asked, note="it is in no git repository of its own")
    git.need()
    git.refuse_distrusted(tree)
    status = git.try_ask(tree, "status", "--porcelain", "-z", "--untracked-files=all")
    return Checkout(
        tree,
        asked,
        commit=git.try_ask(tree, "rev-parse", "--verify", "--quiet", "HEAD"),
        branch=_branch(tree),
        dirty=tuple(sorted(_changed(status))),
    )


def _changed(status: str) -> list[str]:
    """Return the paths of ``git status --porcelain -z``; a renamed file's old path is none."""
    found, entries = [], iter(filter(None, status.split("\0")))
    for entry in entries:
        found.append(git.shown(entry[3:]))
        if entry[0] in "RC":
            next(entries, None)
    return found


def _branch(tree: Path) -> str:
    return git.try_ask(tree, "symbolic-ref", "--short", "--quiet", "HEAD") or git.try_ask(
        tree, "describe", "--tags", "--exact-match"
    )


def _checkout_around(folder: Path) -> str:
    top = git.try_ask(folder, "rev-parse", "--show-toplevel")
    return top if top and all((Path(top) / name).exists() for name in SHAPE) else ""


def _of_url(url: str, ref: str, asked: str, cache: Path) -> Checkout:
    git.need()
    mirror, note = mirrored(url, ref, cache)
    return replace(_of_repository(mirror, ref, asked, cache, shown=url), note=note)


def _of_repository(
    repository: Path, ref: str, asked: str, cache: Path, *, shown: str = ""
) -> Checkout:
    """Return the checkout of a ref of a repository on this host. Raises UsageProblem."""
    shown = shown or str(repository)
    if not repository.is_dir() or not git.try_ask(repository, "rev-parse", "--git-dir"):
        raise UsageProblem(
            f"'{shown}' is no git repository.", hint="--deepops-repository URL or PATH of one"
        )
    commit = commit_of(repository, ref)
    if not commit:
        near = git.near(ref, git.names(repository))
        like = f"; near it: {', '.join(near)}" if near else ""
        also = ", and no folder of that name is here" if asked == ref else ""
        raise UsageProblem(
            f"--deepops-source: there is no ref '{ref}' in {shown}{also}{like}.",
            hint=f"git ls-remote --heads --tags {shown}",
        )
    tree = tree_of(repository, commit, cache)
    refuse_other(tree, asked)
    named = "" if commit.startswith(ref) else ref
    if ref == "HEAD":
        named = git.try_ask(repository, "symbolic-ref", "--short", "--quiet", "HEAD")
    return Checkout(tree, asked, commit=commit, branch=named, repository=shown)


# -- submodules ---------------------------------------------------------------------------


def with_submodule(checkout: Checkout, path: str, cache: Path) -> Checkout:
    """Return the checkout with a submodule's files in it: those that are there, else fetched.

    Raises UsageProblem where they cannot be had.
    """
    place = Path(path)
    if any(place in file.parents and file.name != ".gitkeep" for file in checkout.files):
        return checkout
    url, commit = _gitlink(checkout, path, cache)
    if not url or not commit:
        raise UsageProblem(
            f"'{path}' of {checkout.told} is empty, and git does not say what belongs there.",
            hint=f"git -C {checkout.tree} submodule update --init {path}",
        )
    try:
        mirror, _note = mirrored(url, commit, cache)
        if not commit_of(mirror, commit):
            raise UsageProblem(f"{url} has no commit {commit[:12]}.")
        return checkout.with_tree(place, tree_of(mirror, commit, cache))
    except UsageProblem as error:
        raise UsageProblem(
            f"The submodule '{path}' of {checkout.told} cannot be had: {error.message}",
            hint=f"git submodule update --init {path}   in a checkout, then --deepops-source PATH",
        ) from None


def _gitlink(checkout: Checkout, path: str, cache: Path) -> tuple[str, str]:
    """Return URL and commit that a checkout's git notes for a submodule; '' for what it does
    not."""
    modules = checkout.tree / ".gitmodules"
    if not modules.is_file() or not checkout.commit:
        return "", ""
    text = git.try_ask(
        checkout.tree, "config", "--file", str(modules), "--get-regexp", r"\.(path|url)$"
    )
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    key = next((k for k, value in values.items() if value == path and k.endswith(".path")), "")
    repository = checkout.tree
    if checkout.repository:
        remote = url_of(checkout.repository)
        repository = mirror_of(remote.url, cache) if remote else Path(checkout.repository)
    entry = git.try_ask(repository, "ls-tree", checkout.commit, path).split()
    commit = entry[2] if len(entry) > 2 and entry[1] == "commit" else ""
    return values.get(f"{key.removesuffix('.path')}.url", ""), commit
