"""A kernel's command line: which parameters are on it, and whether one that is needed holds.

Only text is looked at; where the line comes from (GRUB, grubby, /proc/cmdline) is the business of
others. Source: Documentation/admin-guide/kernel-parameters.rst of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
Parameters = Mapping[str, tuple[str, ...]]


def cmdline_parameters(text: str) -> dict[str, tuple[str, ...]]:
    """Return every value of each parameter, in order; '' for one without a value.

    Dashes in names become underscores: the kernel takes both for the same.

    >>> cmdline_parameters("ro iommu=pt vfio-pci.ids=10de:1db1")
    {'ro': ('',), 'iommu': ('pt',), 'vfio_pci.ids': ('10de:1db1',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in _WORD.findall(text):
        name, _, value = word.partition("=")
        key = name.strip('"').replace("-", "_")
        found[key] = (*found.get(key, ()), value.strip('"'))
    return found


@dataclass(frozen=True)
class Parameter:
    """A parameter that has to be on the command line, and why."""

    name: str
    #: One element, or several with commas between them.
    value: str
    why: str = ""
    #: Elements that say the opposite; the later of two counts.
    against: frozenset[str] = frozenset()
    #: Whether the kernel forgets an earlier value when there is a later one.
    replaces_all: bool = False

    def __str__(self) -> str:
        return f"{self.name}={self.value}"

    @property
    def key(self) -> str:
        """The name as `cmdline_parameters` gives it."""
        return self.name.replace("-", "_")

    @property
    def pattern(self) -> re.Pattern[str]:
        """What finds it in a line, its value as the only group."""
        name = "[-_]".join(re.escape(part) for part in self.key.split("_"))
        return re.compile(rf"(?<![^\s\"'=]){name}=([^\s\"']*)")

    def met_by(self, parameters: Parameters) -> bool:
        """Return whether it holds on a line with these parameters."""
        for given in reversed(parameters.get(self.key, ())):
            if _elements(self.value) <= _elements(given):
                return True
            if self.contradicted_by(given):
                return False
        return False

    def contradicted_by(self, given: str) -> bool:
        """Return whether a value that is there has to go for this one to hold."""
        return self.replaces_all or bool(self.against & _elements(given))


def _elements(value: str) -> frozenset[str]:
    return frozenset(value.lower().split(","))
