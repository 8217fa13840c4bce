"""The files that say which modules are loaded at boot, and how: /etc/modules, modules-load.d,
modprobe.d.

Functions from text to text: what is missing, and the text with it added; no byte else changes.
Sources: modules(5), modules-load.d(5), modprobe.d(5); of libkmod, that files are read in the order
of their names, that the first 'softdep' of a module counts, and that of two 'options' that give
the same parameter the later does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

VFIO = "vfio-pci"
#: A line with the lines that a backslash joins to it.
_LINE = re.compile(r"(?:[^\n\\]|\\[\s\S])+")
_IDS = re.compile(r'(?<!\S)ids="?([^\s"\\]*)')

#: Text by file name, in the order in which modprobe reads the files.
Files = Mapping[str, str]


def module_name(text: str) -> str:
    """Return a module's name as the kernel writes it, with underscores."""
    return text.replace("-", "_")


# -- modules that are loaded ----------------------------------------------------------------


def listed_modules(text: str) -> tuple[str, ...]:
    """Return the modules that a file like /etc/modules names."""
    lines = (line.split() for line in text.splitlines())
    return tuple(module_name(words[0]) for words in lines if words and words[0][0] not in "#;")


def missing_modules(text: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return those of the wanted modules that a file like /etc/modules does not name."""
    listed = listed_modules(text)
    return tuple(name for name in wanted if module_name(name) not in listed)


def with_lines(text: str, lines: Iterable[str]) -> str:
    """Return the text with these lines at its end."""
    added = "".join(f"{line}\n" for line in lines)
    gap = "\n" if added and text and not text.endswith("\n") else ""
    return text + gap + added


def with_first_lines(text: str, lines: Iterable[str]) -> str:
    """Return the text with these lines before the first that says anything, below the comments
    that the file begins with."""
    comments = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*", text)
    at = comments.end() if comments else 0
    if text[at:].lstrip().startswith("#"):  # A comment that ends with the file, without a break.
        return with_lines(text, lines)
    return text[:at] + "".join(f"{line}\n" for line in lines) + text[at:]


# -- modprobe.d -----------------------------------------------------------------------------


def in_order(files: Files) -> dict[str, str]:
    """Return the files in the order in which modprobe reads them: that of their names, whatever
    the folder."""
    return {path: files[path] for path in sorted(files, key=lambda path: path.rpartition("/")[2])}


@dataclass(frozen=True)
class Directive:
    """One line of a file in modprobe.d, as words, and where it is."""

    words: tuple[str, ...]
    start: int
    raw: str

    @property
    def sets_vfio_ids(self) -> bool:
        """Whether it says which devices vfio-pci takes."""
        return (
            self.words[0] == "options"
            and module_name(self.words[1]) == module_name(VFIO)
            and bool(_IDS.search(self.raw))
        )


def directives(text: str) -> Iterator[Directive]:
    """Yield what a file in modprobe.d says; lines of one word and comments say nothing."""
    for found in _LINE.finditer(text):
        words = tuple(found[0].replace("\\\n", " ").split())
        if len(words) > 1 and not words[0].startswith("#"):
            yield Directive(words, found.start(), found[0])


def split_ids(text: str) -> tuple[str, ...]:
    """Return the entries of an 'ids=' value, in lower case."""
    return tuple(part for part in text.lower().split(",") if part)


def vfio_ids(text: str) -> tuple[str, ...] | None:
    """Return the IDs that vfio-pci is given in this file; None when the file does not say."""
    found = [item for item in directives(text) if item.sets_vfio_ids]
    return split_ids(_IDS.findall(found[-1].raw)[-1]) if found else None


def ids_file(files: Files) -> str | None:
    """Return the file whose IDs count: the last that gives any; None when none does."""
    found = [path for path, text in files.items() if vfio_ids(text) is not None]
    return found[-1] if found else None


def joined_ids(given: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the given entries, then those wanted that are not among them."""
    return tuple(dict.fromkeys((*given, *wanted)))


def with_ids(text: str, wanted: Iterable[str]) -> str:
    """Return the file's text with these IDs among those that vfio-pci is given."""
    wanted = tuple(wanted)
    given = vfio_ids(text)
    if given is None:
        return with_lines(text, [f"options {VFIO} ids={','.join(wanted)}"])
    if set(wanted) <= set(given):
        return text
    line = [item for item in directives(text) if item.sets_vfio_ids][-1]
    place = list(_IDS.finditer(line.raw))[-1]
    start, end = line.start + place.start(1), line.start + place.end(1)
    kept = text[start:end].rstrip(",")
    new = [item for item in wanted if item not in given]
    return text[:start] + ",".join(filter(None, [kept, *new])) + text[end:]


@dataclass
class Softdep:
    """What has to be loaded before and after a module."""

    module: str
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    @property
    def vfio_first(self) -> bool:
        """Whether vfio-pci is loaded, and takes its devices, before this module comes."""
        return module_name(VFIO) in map(module_name, self.before)

    def __str__(self) -> str:
        after = f" post: {' '.join(self.after)}" if self.after else ""
        return f"softdep {self.module} pre: {' '.join(self.before)}{after}"


def softdep(files: Files, module: str) -> Softdep:
    """Return the soft dependencies of a module that count: those of the first line with any."""
    found = Softdep(module)
    _, words = _first_softdep(files, module)
    place: list[str] = []
    for word in words[2:]:
        if word in ("pre:", "post:"):
            place = found.before if word == "pre:" else found.after
        else:
            place.append(word)
    return found


def softdep_file(files: Files, module: str) -> str:
    """Return the file with the soft dependencies of a module that count; '' when none has any."""
    return _first_softdep(files, module)[0]


def _first_softdep(files: Files, module: str) -> tuple[str, tuple[str, ...]]:
    for path, text in files.items():
        for item in directives(text):
            words = item.words
            if words[0] == "softdep" and fnmatchcase(module_name(module), module_name(words[1])):
                return path, words
    return "", ()


def missing_softdeps(files: Files, modules: Iterable[str]) -> tuple[Softdep, ...]:
    """Return the line for each of these modules that would come before vfio-pci.

    A line takes over what the one that counted so far says: only the first does. Blacklisted
    modules do not load by themselves and need none.
    """
    lines = (item.words for text in files.values() for item in directives(text))
    blacklist = {module_name(words[1]) for words in lines if words[0] == "blacklist"}
    found = []
    for module in modules:
        now = softdep(files, module)
        if module_name(module) not in blacklist and not now.vfio_first:
            found.append(Softdep(module, [*now.before, VFIO], now.after))
    return tuple(found)
