"""What a stage of a cluster was made from, as digests by name, so that two makings compare.

Equal inputs mean an equal stage; where they differ, ``changes`` says in words which input did. Not
for where the inputs come from: each room lists its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deepops_fixtures.errors import some

#: Kind of input ('playbooks', 'cluster', …) → name of the item → its value or digest.
Inputs = dict[str, dict[str, str]]

#: Values up to this length are kept and shown as they are; longer ones become digests.
_SHOWN = 40
_IGNORED = frozenset({"__pycache__", ".git"})


def as_text(path: str) -> str:
    """Return a path as it goes into JSON: its bytes that are no UTF-8 as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def of_tree(folder: Path) -> dict[str, str]:
    """Return path below the folder → digest, for every file that is not a by-product."""
    return of_files(folder, (path for path in folder.rglob("*") if path.is_file()))


def of_files(base: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Return path below ``base`` → digest of mode and content."""
    found = {}
    for path in sorted(paths):
        name = path.relative_to(base)
        if not _IGNORED & set(name.parts):
            # Whether its owner may execute it is part of it, as it is for git.
            mode = path.stat().st_mode & 0o100
            found[as_text(str(name))] = _digest(f"{mode:o}\0".encode() + path.read_bytes())
    return found


def of_data(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return dotted name → value of nested data: 'nodes.virtual-login.memory' → '1024'."""
    found = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            found.update(of_data(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            found[f"{prefix}{key}"] = text if len(text) <= _SHOWN else _digest(text.encode())
    return found


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()[:24]}"


def key(inputs: Inputs) -> str:
    """Return the one digest of all inputs (24 hexadecimal digits)."""
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def changes(then: Inputs, now: Inputs) -> list[str]:
    """Return a phrase for every kind of input that differs, items named: what changed since
    ``then``."""
    found = []
    for kind in sorted({*then, *now}):
        old, new = then.get(kind, {}), now.get(kind, {})
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        if names:
            told = [_difference(name, old.get(name), new.get(name)) for name in names]
            found.append(f"{kind}: {some(told)}")
    return found


def _difference(name: str, old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return f"{name} {'is new' if old is None else 'is gone'}"
    if old.startswith("sha256:") or new.startswith("sha256:"):
        return f"{name} changed"
    return f"{name} is {new}, was {old}"
