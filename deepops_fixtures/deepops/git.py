"""git, asked in a way that always ends: no prompts, a deadline, its own words when it refuses.

Not for what the answers mean: that is ``checkout`` and ``finding``.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from pathlib import Path

from deepops_fixtures.errors import StepTimeout, UsageProblem
from deepops_fixtures.inputs import as_text
from deepops_fixtures.proc import Deadline, run_logged, tail

#: Seconds that a question to a repository on this host may take.
_QUESTION = 60.0
#: Seconds that the first copy of a repository may take.
FETCH = 600.0
#: git asks nobody for a name or a password, and ssh neither (git(1), ssh_config(5)).
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20"
#: What a caller may have set to point git elsewhere.
_POINTERS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")


class GitRefused(Exception):
    """git ended with another status than 0; the message is what it said."""


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _POINTERS}
    return {"GIT_SSH_COMMAND": _SSH, **kept, **_ENVIRONMENT}


def need() -> None:
    """Refuse to go on without git. Raises UsageProblem."""
    if shutil.which("git") is None:
        raise UsageProblem(
            "git is not installed, and a DeepOps source is read with it.",
            hint="sudo apt install git   (or: sudo dnf install git)",
        )


def ask(folder: Path, *words: str) -> str:
    """Return what git says about the repository of a folder, without the last line's end.

    Raises GitRefused, and StepTimeout after a minute.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_QUESTION,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise StepTimeout(
            f"'git {words[0]}' in '{folder}' did not end within {_QUESTION:.0f} s.",
            hint=f"git -C {folder} {' '.join(words)}",
        ) from None
    if done.returncode:
        raise GitRefused(done.stderr.strip() or f"git {words[0]} ended with {done.returncode}")
    return done.stdout.rstrip("\n")


def try_ask(folder: Path, *words: str) -> str:
    """Return what git says, '' where it refuses."""
    try:
        return ask(folder, *words)
    except GitRefused:
        return ""


def refuse_distrusted(folder: Path) -> None:
    """Refuse a checkout of another user, of which git says nothing: the usual thing where a job
    runs in a container, or with sudo. Raises UsageProblem with git's own remedy."""
    try:
        ask(folder, "rev-parse", "--git-dir")
    except GitRefused as error:
        if "dubious ownership" in str(error):
            named = re.search(r"safe\.directory (.+)", str(error))
            top = named[1].strip() if named else folder
            raise UsageProblem(
                f"git does not trust '{top}': it belongs to another user than {os.geteuid()}.",
                hint=f"git config --global --add safe.directory {top}",
            ) from None


def run(words: list[str | Path], *, log: Path, what: str, deadline: Deadline) -> str:
    """Run a git command that may go over a network; return '' or, where it fails, its last
    words. Raises StepTimeout."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    status = run_logged(
        ["env", *(f"--unset={name}" for name in _POINTERS), "git", *words],
        log=log, deadline=deadline, what=what, env=_environment(),
    )  # fmt: skip
    if not status:
        return ""
    said = [line for line in tail(log, 12).splitlines() if line.strip() and line[0] != "$"]
    told = [line for line in said if line.startswith(("fatal:", "error:", "ssh:"))]
    return (told or said or [f"git ended with {status}"])[0].removeprefix("fatal: ")


def shown(path: str) -> str:
    """Return a path as it can be printed and written into JSON: bytes that are no UTF-8, and what
    would break the line, as escapes."""
    text = as_text(path)
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def names(folder: Path) -> list[str]:
    """Return the short names of a repository's branches and tags."""
    text = try_ask(
        folder, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", "refs/remotes"
    )
    found = (re.sub(r"^refs/(heads|tags|remotes/[^/]+)/", "", line) for line in text.split("\n"))
    return sorted({name for name in found if name and name != "HEAD"})


def near(name: str, known: list[str]) -> list[str]:
    """Return the names that somebody may have meant, the nearest first."""
    close = difflib.get_close_matches(name, known, 4, 0.5)
    tails = [each for each in known if name in each and each not in close]
    return (close + tails)[:5]
