"""How Vagrant is pointed at an instance, and how what it and its machines say is read.

python-vagrant knows neither deadlines nor log files, so that ``up`` runs through ``proc``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from deepops_fixtures import resources
from deepops_fixtures.cluster.ledger import MARK, Ledger, LedgerBook
from deepops_fixtures.proc import tail


def user_home() -> Path:
    """Return the folder where Vagrant keeps this user's boxes and plugins."""
    return Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")


def environment(ledger: Ledger, book: LedgerBook) -> dict[str, str]:
    """Return the variables that point Vagrant at an instance, in a home of the instance's own.

    Vagrant keeps a list of all machines in its home and locks them there; clusters that start
    together find one another's locked. What this user's home has of boxes and plugins is linked.
    """
    folder = book.path(ledger.name)
    home = folder / "vagrant-home"
    home.mkdir(exist_ok=True, mode=0o700)
    for name in ("boxes", "gems", "plugins.json"):
        link, target = home / name, user_home() / name
        if target.exists() and not link.is_symlink():
            link.symlink_to(target)
    return {
        MARK: ledger.name,
        "DEEPOPS_INSTANCE": str(folder / "instance.json"),
        "VAGRANT_HOME": str(home),
        "VAGRANT_CWD": str(resources.vagrant()),
        "VAGRANT_VAGRANTFILE": ledger.spec.vagrantfile,
        "VAGRANT_DOTFILE_PATH": str(folder / "vagrant"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_NO_COLOR": "1",
    }


def readable(text: str) -> str:
    """Return console text without terminal escapes and carriage returns."""
    text = re.sub(r"\x1b(\[[0-9;?=]*[a-zA-Z]|[()][0-9A-B]|c)", "", text)
    return re.sub(r"[^\n\t\x20-\x7e\u00a0-\uffff]", "", text).strip()


#: What a line of Vagrant's log begins with that says what went wrong, the plainest first.
_SAID = (
    re.compile(r"^(Call to \w+ failed: .*|Error while .*|There was an error .*|Timed out .*)"),
    re.compile(r"^(An error occurred\b(?! while executing multiple).*|Error\b.*)"),
)
_TRACE = re.compile(r"^(/\S+\.rb:\d+|from )")


def error_sentence(log: Path) -> str:
    """Return the sentence in which Vagrant says what went wrong, else its last line that is no
    line of a Ruby trace."""
    lines = [line.strip() for line in tail(log, 200).splitlines()]
    lines = [line for line in lines if line and not _TRACE.match(line)]
    for pattern in _SAID:
        for index, line in enumerate(lines):
            if pattern.match(line):
                return " ".join(lines[index : index + 3])[:400]
    for index, line in enumerate(lines):
        if "error" in line.lower() and not line.startswith("==>"):
            return " ".join(lines[index : index + 3])[:400]
    return lines[-1] if lines else "it said nothing"
