"""A cluster file as it lies on disk: found by name or path, read, put on top of what it extends.

``extends: NAME`` (or a path beside the file) takes everything of another cluster file that this
one does not say itself: a field counts over the other's, nodes are joined by name, field by field,
and a node or a field that is empty here is left out. Not for what a cluster file may say: that is
``topology``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deepops_fixtures import resources, yaml_refusal
from deepops_fixtures.errors import UsageProblem

_EXTENDS = "extends"
#: A path in here is one beside the file that says it.
_VAGRANTFILE = "vagrantfile"


def available() -> list[str]:
    """Return the names of the clusters that come with the project."""
    return sorted(path.stem for path in (resources.vagrant() / "clusters").glob("*.yml"))


def find(name_or_path: str) -> Path:
    """Return the file of a cluster given by name or by path. Raises UsageProblem."""
    if "/" in name_or_path or name_or_path.endswith((".yml", ".yaml")):
        path = Path(name_or_path).expanduser()
        if path.is_dir():
            raise UsageProblem(f"'{path}' is a folder.", hint="give the path of a cluster file")
        if not path.is_file():
            raise UsageProblem(f"File '{path}' not found.", hint="deepops-virtual clusters")
        return path
    path = resources.vagrant() / "clusters" / f"{name_or_path}.yml"
    if not path.is_file():
        raise UsageProblem(
            f"There is no cluster named '{name_or_path}'.",
            hint=f"choose one of {', '.join(available())}, or give the path of a cluster file",
        )
    return path


@dataclass(frozen=True)
class _Layer:
    """One file of those that make a cluster: its data, and its tree, which knows the lines."""

    path: Path
    data: dict[str, Any]
    tree: yaml.Node | None


class ClusterFile:
    """A cluster file with all that it extends. Raises UsageProblem naming file and line."""

    def __init__(self, name_or_path: str) -> None:
        self.path = find(name_or_path)
        self._layers = _read_all(self.path)

    @property
    def data(self) -> dict[str, Any]:
        """What the files say together, the nearer one counting; named after this file."""
        joined: dict[str, Any] = {}
        for layer in reversed(self._layers):
            said = {key: value for key, value in layer.data.items() if key != _EXTENDS}
            # A cluster's name is its own: of what it extends it would be another's.
            joined.pop("name", None)
            if "/" in str(said.get(_VAGRANTFILE, "")):
                beside = layer.path.parent / Path(said[_VAGRANTFILE]).expanduser()
                said[_VAGRANTFILE] = str(beside.absolute())
            joined = _join(joined, said)
        joined.setdefault("name", self.path.stem)
        return joined

    def where(self, location: Iterable[object]) -> str:
        """Return 'file:line' of a field given by its path, in the nearest file that has it; of
        the part that there is, where none has all of it."""
        names = [str(part) for part in location]
        found = [(*_look(layer.tree, names), layer.path) for layer in self._layers]
        _, line, path = max(found, key=lambda item: item[0])
        return f"{path}:{line}"


def _read_all(path: Path) -> list[_Layer]:
    """Return the file and all that it extends, the nearest first."""
    layers = [_read(path)]
    while (base := layers[-1].data.get(_EXTENDS)) is not None:
        layer = layers[-1]
        where = f"{layer.path}:{_look(layer.tree, [_EXTENDS])[1]}: {_EXTENDS}"
        if not isinstance(base, str) or not base:
            raise UsageProblem(
                f"{where}: '{base}' is not the name or the path of a cluster file.",
                hint=f"mend '{layer.path}'; clusters by name: {', '.join(available())}",
            )
        try:
            beside = "/" in base or base.endswith((".yml", ".yaml"))
            other = find(str(layer.path.parent / Path(base).expanduser()) if beside else base)
        except UsageProblem as problem:
            raise UsageProblem(f"{where}: {problem.message}", hint=problem.hint) from None
        if any(other.resolve() == known.path.resolve() for known in layers):
            raise UsageProblem(
                f"{where}: '{base}' leads back to '{other}'.",
                hint=f"take '{_EXTENDS}' out of '{layer.path}'",
            )
        layers.append(_read(other))
    return layers


def _read(path: Path) -> _Layer:
    with yaml_refusal.refusing(path):
        text = path.read_text()
        data = yaml.safe_load(text)
    if not isinstance(data, dict):
        raise UsageProblem(
            f"{path}:1: a cluster file is a mapping with 'box' and 'nodes'.",
            hint="see vagrant/clusters/debian.yml",
        )
    return _Layer(path, data, yaml.compose(text, Loader=yaml.SafeLoader))


def _join(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return both: a mapping in both is joined, else what is ``over`` counts, None takes away."""
    joined = dict(under)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(joined.get(key), Mapping):
            joined[key] = _join(joined[key], value)
        elif value is None and key in under:
            del joined[key]
        else:
            joined[key] = value
    return joined


def _look(node: Any, names: list[str]) -> tuple[int, int]:
    """Return how many parts of a field's path there are in a tree, and the line of the last."""
    line: int = node.start_mark.line + 1 if node is not None else 1
    for depth, part in enumerate(names):
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return depth, line
        elif isinstance(node, yaml.SequenceNode) and part.isdigit():
            if int(part) >= len(node.value):
                return depth, line
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            return depth, line
    return len(names), line
