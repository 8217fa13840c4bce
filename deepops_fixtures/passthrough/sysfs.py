"""Single files and links of sysfs as values: a number, what a link points at, a link's speed.

A file that is not there is None; one that holds what it should not is refused by name, since a
saved tree may be a bad copy. What the values mean together is in `pci`. Source:
Documentation/ABI/testing/sysfs-bus-pci of the kernel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deepops_fixtures.errors import UsageProblem

RECOPY: Final = "copy the tree again, with its links as links: cp -a --parents"
#: What may stand around a value; tar fills the files of sysfs up with zeros to the size that the
#: kernel says they have.
_PADDING: Final = " \t\n\0"
#: Letters of a file's content that a message quotes.
_QUOTED: Final = 60


def malformed(path: Path, text: str, wanted: str) -> UsageProblem:
    """Return the refusal of a file, with the beginning of what it holds on one line."""
    words = " ".join(text.split())
    seen = words if len(words) <= _QUOTED else f"{words[:_QUOTED]}…"
    return UsageProblem(f"'{path}' holds '{seen}', which is not {wanted}.", hint=RECOPY)


def number(path: Path) -> int:
    """Return the number in a file that every PCI device has. Raises UsageProblem."""
    found = maybe_number(path)
    if found is None:
        raise UsageProblem(f"'{path}' is missing or cannot be read.", hint=RECOPY)
    return found


def maybe_number(path: Path, base: int = 0) -> int | None:
    """Return the number in a file, None without the file. Raises UsageProblem."""
    try:
        text = path.read_text(errors="replace").strip(_PADDING)
    except OSError:
        return None
    try:
        return int(text, base)
    except ValueError as error:
        raise malformed(path, text, "a number") from error


def natural_number(path: Path) -> int | None:
    """Return the decimal number in a file, None without the file or for one below zero."""
    found = maybe_number(path, base=10)
    return None if found is None or found < 0 else found


def link(path: Path) -> str:
    """Return the last part of what a link points at, '' without one. Raises UsageProblem."""
    if path.is_symlink():
        return path.readlink().name
    if path.exists():
        raise UsageProblem(f"'{path}' is not a symbolic link.", hint=RECOPY)
    return ""


def iommu_group(path: Path) -> int | None:
    """Return the number of the group that a device's link points at; None without one, and for
    the kernel's unsafe no-IOMMU mode. Raises UsageProblem."""
    name = link(path)
    if not name:
        return None
    if not name.isdecimal():
        raise malformed(path, name, "the number of an IOMMU group")
    try:
        unsafe = "noiommu" in (path / "name").read_text(errors="replace")
    except OSError:
        unsafe = False
    return None if unsafe else int(name)


def speed(path: Path) -> float | None:
    """Return GT/s; the kernel says '8.0 GT/s PCIe', or 'Unknown'."""
    try:
        first = path.read_text(errors="replace").split()[0]
        return float(first)
    except (OSError, IndexError, ValueError):
        return None


def width(path: Path) -> int | None:
    """Return lanes; the kernel says 0 or 255 where it does not know."""
    found = maybe_number(path, base=10)
    return None if found in (None, 0, 255) else found
