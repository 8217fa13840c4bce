"""A plan for a host: files before and after, commands, notes; and the draft that it grows in.

Plain data. What belongs into the files is decided in `preparation`, and `prepared` writes them.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import BaseModel, ConfigDict

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.kernel_line import Parameter
from deepops_fixtures.passthrough.modprobe import with_lines
from deepops_fixtures.passthrough.pci import Host

_HEADER: Final = (
    "# Made by 'deepops-virtual gpu prepare'; 'deepops-virtual gpu prepare --undo' removes it."
)


class Command(BaseModel):
    """A program that has to run after the files have changed."""

    model_config = ConfigDict(frozen=True)

    argv: tuple[str, ...]
    #: What runs when the preparation is taken back.
    undo: tuple[str, ...]
    why: str

    @classmethod
    def same_both_ways(cls, *argv: str, why: str) -> Command:
        """Return a command that also makes the files count after they are put back."""
        return cls(argv=argv, undo=argv, why=why)

    @property
    def shown(self) -> str:
        """The command as one types it."""
        return shlex.join(self.argv)

    @property
    def lasts(self) -> bool:
        """Whether its effect is kept outside of the files, so that once is enough."""
        return self.argv[0] == "grubby"


@dataclass(frozen=True)
class FileChange:
    """One file, before and after; None where there is no file."""

    path: str
    before: str | None
    after: str | None
    why: tuple[str, ...] = ()

    @property
    def action(self) -> str:
        """What happens to it: 'create', 'edit' or 'remove'."""
        if self.before is None:
            return "create"
        return "remove" if self.after is None else "edit"

    @property
    def diff(self) -> str:
        """The change as a unified diff."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            (self.after or "").splitlines(keepends=True),
            "/dev/null" if self.before is None else self.path,
            "/dev/null" if self.after is None else self.path,
        )
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in lines
        )


@dataclass(frozen=True)
class Preparation:
    """A plan: which files change, which commands run then, and what has to be known."""

    ids: tuple[str, ...]
    #: Only files that change.
    files: tuple[FileChange, ...]
    commands: tuple[Command, ...]
    parameters: tuple[Parameter, ...]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.files or self.commands)

    def without(self, done: Iterable[Command]) -> Preparation:
        """Return the plan without commands whose effect lasts and that have run already."""
        lasting = {item.argv for item in done if item.lasts}
        left = tuple(item for item in self.commands if item.argv not in lasting)
        return replace(self, commands=left)


@dataclass
class Draft:
    """The files as they are, and as they will be."""

    host: Host
    before: dict[str, str | None] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    why: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self, path: str) -> str | None:
        """Return a file's text as drafted so far, None when there is none."""
        if path not in self.before:
            self.before[path] = read_text(self.host, path)
        return self.after.get(path, self.before[path])

    def write(self, path: str, text: str, why: str) -> None:
        """Note a file's new text, unless it is the one that it has."""
        if text != (self.text(path) or ""):
            self.after[path] = text
            self.why.setdefault(path, []).append(why)

    def add_lines(self, path: str, lines: Iterable[str], why: str) -> None:
        """Add lines to a file; a new one gets a first line that says whose it is."""
        lines = tuple(lines)
        if lines:
            text = self.text(path)
            self.write(path, with_lines(with_header(text), lines), why)

    def changes(self) -> tuple[FileChange, ...]:
        """Return the files that change."""
        return tuple(
            FileChange(path, self.before[path], self.after[path], tuple(self.why[path]))
            for path in self.after
        )


def text_of(content: bytes | None) -> str | None:
    """Return a file's bytes as text from which `bytes_of` makes the same bytes again."""
    return None if content is None else content.decode("utf-8", "surrogateescape")


def bytes_of(text: str | None) -> bytes | None:
    """Return the bytes that `text_of` was given."""
    return None if text is None else text.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """Return text that any terminal can show: bytes that are no UTF-8 become '\\xNN'."""
    return (bytes_of(text) or b"").decode("utf-8", "backslashreplace")


def with_header(text: str | None) -> str:
    """Return a file's text, or the first line of a file that is made new."""
    return f"{_HEADER}\n" if text is None else text


def read_text(host: Host, path: str) -> str | None:
    """Return a file's text so that every byte of it can be written again; None without the file.

    Raises UsageProblem for what is no plain file, or cannot be read.
    """
    place = host.path(path)
    if place.is_symlink() or (place.exists() and not place.is_file()):
        what = f"a link to '{place.readlink()}'" if place.is_symlink() else "no file"
        raise UsageProblem(
            f"'{place}' is {what}; only plain files are prepared.",
            hint=f"put a plain file there, then run this again: ls -l {place}",
        )
    try:
        return text_of(place.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageProblem(
            f"'{place}' cannot be read: {error.strerror}.", hint="run this with sudo"
        ) from error
