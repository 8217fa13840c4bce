"""One element of what ``nvidia-smi -q -x`` prints and the values below it: which words are
numbers, mean yes or no, tell nothing, or say that the GPU did not answer. Not for where a value is
and what it means: that is ``nvidia_smi_data``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)")
_YES = frozenset({"yes", "enabled", "active", "on"})
_NO = frozenset({"no", "disabled", "not active", "off"})
#: Words in the place of a value with which the driver says that the GPU did not answer.
_BROKEN = re.compile(
    r"gpu is lost|gpu requires reset|err!|unknown error|fallen off the bus", re.IGNORECASE
)
#: Elements of which the driver itself knows nothing: healthy GeForce cards on r535 have an
#: 'Unknown Error' there.
_OF_THE_DRIVER = frozenset({"addressing_mode"})
#: Words with which it says that there is nothing to tell, in brackets or without.
_UNTOLD = frozenset(
    {"", "n/a", "none", "not supported", "not available", "unknown", "insufficient permissions"}
)


class Section:
    """An element and what is below it. A value is looked for at several paths, the first that
    tells something counts."""

    def __init__(self, element: ElementTree.Element) -> None:
        self.element = element

    def _texts(self, paths: tuple[str, ...]) -> Iterator[str]:
        for path in paths:
            for found in self.element.findall(path):
                yield (found.text or "").strip()

    def text(self, *paths: str) -> str:
        """Return the first value that is one, '' when none is."""
        return next((text for text in self._texts(paths) if _told(text)), "")

    def number(self, *paths: str) -> float | None:
        """Return the first number; its unit is cut off."""
        found = (_NUMBER.match(text) for text in self._texts(paths))
        return next((float(match[1]) for match in found if match), None)

    def integer(self, *paths: str) -> int | None:
        """Return the first number as a whole one."""
        found = self.number(*paths)
        return None if found is None else int(found)

    def total(self, *paths: str) -> int | None:
        """Return the sum of the numbers at all these paths, None when there is none."""
        found = [int(float(match[1])) for match in map(_NUMBER.match, self._texts(paths)) if match]
        return sum(found) if found else None

    def flag(self, *paths: str) -> bool | None:
        """Return the first value that means yes or no."""
        words = [text.lower() for text in self._texts(paths)]
        return next((word in _YES for word in words if word in _YES | _NO), None)

    def any_flag(self, *paths: str) -> bool | None:
        """Return whether any value means yes; None when none means yes or no."""
        words = {text.lower() for text in self._texts(paths)} & (_YES | _NO)
        return bool(words & _YES) if words else None

    def sections(self, path: str) -> list[Section]:
        """Return the elements at this path."""
        return [Section(found) for found in self.element.findall(path)]

    def broken(self) -> tuple[str, ...]:
        """Return the elements that say that the GPU did not answer, 'gpu_temp: GPU is lost'."""
        return tuple(
            f"{part.tag}: {(part.text or '').strip()}"
            for part in self.element.iter()
            if _BROKEN.search(part.text or "") and part.tag not in _OF_THE_DRIVER
        )


def _told(text: str) -> bool:
    word = text.strip("[] ").lower()
    return word not in _UNTOLD and not ("deprecated" in word or _BROKEN.search(word))
