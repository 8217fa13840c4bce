"""GRUB's settings on Debian and Ubuntu: what kernels are started with, and adding to it.

/etc/default/grub and /etc/default/grub.d/*.cfg are shell; grub-mkconfig sources them in that order
and joins GRUB_CMDLINE_LINUX and GRUB_CMDLINE_LINUX_DEFAULT. Only assignments are understood here,
and what is not understood is refused and never guessed. Every byte but the added words stays. Not
for the RHEL family: grubby does it there. Source: the GRUB manual, "Simple configuration".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.kernel_line import Parameter, cmdline_parameters

DEFAULTS = "/etc/default/grub"
DROP_INS = "/etc/default/grub.d"
#: Every entry of the menu gets the first, those that are not for rescue the second after it.
ALL_ENTRIES, NORMAL_ENTRIES = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"

_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r"[^\s;&|()<>'\"\\]+")
_VARIABLE = re.compile(r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)[^}]*\})")
_ESCAPE = re.compile(r'\\([$`"\\\n])')
_BLOCK = re.compile(r"^[ \t]*(if|case|for|while|until|fi|esac|done)\b", re.MULTILINE)
_NEEDS_NO_QUOTES = re.compile(r"[\w./=,:+@%-]+")

#: Text by file name, in the order in which grub-mkconfig reads the files.
Sources = Mapping[str, str]


@dataclass(frozen=True)
class Assignment:
    """One assignment to a variable; ``start`` and ``end`` are of its right side in the file."""

    path: str
    name: str
    start: int
    end: int
    #: Right side without quotes, and whether the shell expands variables in that part.
    pieces: tuple[tuple[str, bool], ...]
    #: Written with '+='.
    appends: bool
    #: Inside an 'if' or after other words: it may not be carried out.
    conditional: bool

    @property
    def keeps(self) -> bool:
        """Whether the variable's earlier value stays part of it."""
        texts = (text for text, expands in self.pieces if expands)
        found = (_name(found) for text in texts for found in _VARIABLE.finditer(text))
        return self.appends or self.name in found

    @property
    def computed(self) -> bool:
        """Whether a command's output is part of it."""
        return any(expands and ("`" in text or "$(" in text) for text, expands in self.pieces)

    def value(self, values: Mapping[str, str]) -> str:
        """Return what the variable holds after it; variables without a value stay as written."""
        before = values.get(self.name, "") if self.appends else ""
        return before + "".join(
            _VARIABLE.sub(lambda found: values.get(_name(found), found[0]), text)
            if expands
            else text
            for text, expands in self.pieces
        )


def assignments(path: str, text: str, name: str) -> Iterator[Assignment]:
    """Yield the assignments to a variable in one file.

    Raises UsageProblem when a quote is never closed.
    """
    for found in re.finditer(rf"(?<![\w$]){name}(\+?)=", text):
        before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if "#" in before:
            continue
        pieces, end = _word(path, text, found.end())
        alone = before.strip() in ("", "export")
        yield Assignment(
            path=path,
            name=name,
            start=found.end(),
            end=end,
            pieces=pieces,
            appends=bool(found[1]),
            conditional=not alone or _depth(text[: found.start()]) > 0,
        )


def values(sources: Sources) -> dict[str, str]:
    """Return what the two variables hold when all files are read; '' for one that none sets."""
    found = {ALL_ENTRIES: "", NORMAL_ENTRIES: ""}
    for path, text in sources.items():
        both = [item for name in found for item in assignments(path, text, name)]
        for item in sorted(both, key=lambda item: item.start):
            found[item.name] = item.value(found)
    return found


def command_line(sources: Sources) -> str:
    """Return the parameters that GRUB gives to the kernels of normal entries."""
    return " ".join(filter(None, values(sources).values()))


def missing_parameters(sources: Sources, wanted: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return those of the wanted parameters that GRUB does not give."""
    given = cmdline_parameters(command_line(sources))
    return tuple(item for item in wanted if not item.met_by(given))


def with_parameters(sources: Sources, wanted: Sequence[Parameter]) -> dict[str, str]:
    """Return the new text of each file that has to change so that GRUB gives these parameters.

    They go where the last word on GRUB_CMDLINE_LINUX_DEFAULT is spoken: into the last assignment
    that forgets earlier ones, which may be in a file of grub.d. Raises UsageProblem where the
    files do what is not understood.
    """
    missing = missing_parameters(sources, wanted)
    if not missing:
        return {}
    everything = [
        item for path in sources for item in assignments(path, sources[path], NORMAL_ENTRIES)
    ]
    resets = [item for item in everything if not item.keeps]
    for item in resets:
        if item.conditional or item.computed:
            raise _not_understood(item, missing)
    if resets:
        place = resets[-1]
        text = sources[place.path]
        word = _edited(text[place.start : place.end], place.value({}), missing)
        changed = {place.path: text[: place.start] + word + text[place.end :]}
    else:
        text = sources.get(DEFAULTS, "")
        gap = "" if not text or text.endswith("\n") else "\n"
        words = " ".join(map(str, missing))
        changed = {DEFAULTS: f'{text}{gap}{NORMAL_ENTRIES}="{words}"\n'}
    if missing_parameters({**sources, **changed}, wanted):
        raise _not_understood(everything[-1] if everything else None, missing)
    return changed


def _edited(word: str, value: str, missing: Sequence[Parameter]) -> str:
    """Return the right side of an assignment with parameters added, its quotes kept."""
    added = []
    for item in missing:
        against = [m for m in item.pattern.finditer(word) if item.contradicted_by(m[1])]
        if against:
            word = word[: against[-1].start(1)] + item.value + word[against[-1].end(1) :]
        else:
            added.append(str(item))
    if not added:
        return word
    gap = " " if value and not value[-1].isspace() else ""
    words = gap + " ".join(added)
    if word[-1:] in ("'", '"'):
        return f"{word[:-1]}{words}{word[-1]}"
    return f'"{word}{words}"' if _NEEDS_NO_QUOTES.fullmatch(word) else f'{word}"{words}"'


def _word(path: str, text: str, start: int) -> tuple[tuple[tuple[str, bool], ...], int]:
    """Read one word of the shell; return its parts without quotes, and where it ends."""
    pieces: list[tuple[str, bool]] = []
    at = start
    while at < len(text):
        if text[at] == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise _unclosed(path, text, at)
            pieces.append((text[at + 1 : end], False))
            at = end + 1
        elif text[at] == '"':
            quoted = _DOUBLE_QUOTED.match(text, at)
            if not quoted:
                raise _unclosed(path, text, at)
            plain = _ESCAPE.sub(lambda found: found[1].strip("\n"), quoted[1])
            pieces.append((plain, True))
            at = quoted.end()
        elif text[at] == "\\":
            pieces.append((text[at + 1 : at + 2].strip("\n"), False))
            at += 2
        else:
            bare = _BARE.match(text, at)
            if not bare:
                break
            pieces.append((bare[0], True))
            at = bare.end()
    return tuple(pieces), min(at, len(text))


def _name(found: re.Match[str]) -> str:
    return found["plain"] or found["braced"]


def _depth(text: str) -> int:
    words = _BLOCK.findall(text)
    closing = sum(word in ("fi", "esac", "done") for word in words)
    return len(words) - 2 * closing


def _unclosed(path: str, text: str, at: int) -> UsageProblem:
    line = text.count("\n", 0, at) + 1
    return UsageProblem(
        f"A quote in line {line} of '{path}' is never closed.", hint=f"mend it: editor {path}"
    )


def _not_understood(item: Assignment | None, missing: Sequence[Parameter]) -> UsageProblem:
    path = item.path if item else DEFAULTS
    return UsageProblem(
        f"'{path}' sets {NORMAL_ENTRIES} in a way that is not understood: in a condition, from a "
        "command's output, or against these parameters further below.",
        hint=f"add '{' '.join(map(str, missing))}' to it by hand, then run this again",
    )
