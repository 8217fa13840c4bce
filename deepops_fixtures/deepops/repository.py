"""Repositories that a checkout comes from: a bare mirror of a URL in the cache, refs, and the
files of one commit as a folder in the cache.

Not for what is asked for: that is ``finding``.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from deepops_fixtures.deepops import git
from deepops_fixtures.errors import StepTimeout, UsageProblem
from deepops_fixtures.proc import Deadline

#: Seconds for which a mirror counts as fresh: the processes of one run see one state of it.
_FRESH = 60
_SCP = re.compile(r"^[\w.-]+@[\w.-]+:.+")


class Url(NamedTuple):
    """A repository that is reached by a URL, and a ref of it ('' for what its HEAD says)."""

    url: str
    ref: str


def url_of(text: str) -> Url | None:
    """Return URL and ref of 'URL[@REF]' (also git's 'user@host:path[@REF]'), None for no URL."""
    if "://" in text:
        scheme, _, rest = text.partition("://")
        host, slash, path = rest.partition("/")
        start = f"{scheme}://{host}{slash}"
    elif _SCP.match(text) and not Path(text).exists():
        host, _, path = text.partition(":")
        start = f"{host}:"
    else:
        return None
    base, _, ref = path.rpartition("@") if "@" in path else (path, "", "")
    return Url(f"{start}{base}", ref)


def mirror_of(url: str, cache: Path) -> Path:
    """Return where the mirror of a URL is in the cache, or will be."""
    name = Path(url.rstrip("/")).name.removesuffix(".git")
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return cache / "mirrors" / f"{name}-{digest}.git"


def mirrored(url: str, ref: str, cache: Path) -> tuple[Path, str]:
    """Return the mirror of a URL, fetched unless it has this very commit, and a sentence where
    only its last state could be had. Raises UsageProblem."""
    mirror = mirror_of(url, cache)
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(mirror.with_suffix(".lock")):
        exact = re.fullmatch(r"[0-9a-f]{40}", ref) and mirror.is_dir() and commit_of(mirror, ref)
        return mirror, "" if exact else _refresh(mirror, url)


def _refresh(mirror: Path, url: str) -> str:
    stamp, log = mirror.with_suffix(".fetched"), mirror.with_suffix(".log")
    fetched = stamp.stat().st_mtime if stamp.exists() else 0.0
    if mirror.is_dir() and time.time() - fetched < _FRESH:
        return ""
    new = mirror.with_suffix(".new")
    words: list[str | Path] = ["-C", mirror, "fetch", "--quiet", "--prune", "--force", "origin"]
    if not mirror.is_dir():
        shutil.rmtree(new, ignore_errors=True)
        # From a path git copies its files as they are, instead of packing them anew.
        words = ["clone", "--quiet", "--mirror", url.removeprefix("file://"), new]
    try:
        said = git.run(words, log=log, what=f"Fetching {url}", deadline=Deadline.after(git.FETCH))
    except StepTimeout as error:
        said = error.message
    if said and mirror.is_dir():
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(fetched))
        return f"as it was fetched last ({when}): {url} cannot be reached now: {said}"
    if said:
        raise UsageProblem(
            f"{url} cannot be fetched: {said}.".replace("..", "."),
            hint=f"look: git ls-remote {url}   or: --deepops-source PATH of a checkout here",
        )
    if new.is_dir():
        new.rename(mirror)
    stamp.touch()
    return ""


def commit_of(repository: Path, ref: str) -> str:
    """Return the full commit of a ref of a repository on this host, '' where it has none."""
    for name in (ref, f"origin/{ref}"):
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        found = git.try_ask(repository, *words)
        if found:
            return found
    return ""


def tree_of(repository: Path, commit: str, cache: Path) -> Path:
    """Return the folder in the cache with the files of a commit; it is whole or not there. Raises
    UsageProblem where git cannot read them."""
    tree = cache / "trees" / commit
    tree.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(tree.with_suffix(".lock")):
        if tree.is_dir():
            return tree
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix="new-") as scratch:
            archive, new = Path(scratch) / "tree.tar", Path(scratch) / "tree"
            try:
                git.ask(repository, "archive", "--format=tar", f"--output={archive}", commit)
            except git.GitRefused as error:
                raise UsageProblem(
                    f"The files of commit {commit[:12]} cannot be read from {repository}: {error}",
                    hint=f"git -C {repository} fsck",
                ) from None
            with tarfile.open(archive) as packed:
                _unpack(packed, new)
            new.rename(tree)
    return tree


def _unpack(packed: tarfile.TarFile, folder: Path) -> None:
    folder.mkdir()
    if hasattr(tarfile, "tar_filter"):
        packed.extractall(folder, filter="tar")
    else:  # Python before its security releases of 2023; the archive is git's own.
        packed.extractall(folder)
