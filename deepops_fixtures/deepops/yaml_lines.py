"""YAML with the lines that its mappings and words stand on, for messages that name a place.

Tags such as ``!vault`` are read as plain values. Not for settings: those are ``yaml.safe_load``'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deepops_fixtures import yaml_refusal
from deepops_fixtures.errors import UsageProblem


class UnreadableYaml(UsageProblem):
    """A file of the checkout cannot be read, or is no YAML; the message names file and line."""


class Mapping(dict[str, Any]):
    """A mapping that knows the line it begins on, and each key's; counted from 1."""

    line: int = 0
    lines: dict[str, int]


class Text(str):
    """A word that knows its line."""

    line: int = 0


def read(file: Path) -> Any:
    """Return what a YAML file says. Raises UnreadableYaml."""
    with yaml_refusal.refusing(file, kind=UnreadableYaml):
        return _value(yaml.compose(file.read_text(), Loader=yaml.SafeLoader))


def _value(node: Any) -> Any:
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        found = Mapping()
        found.line, found.lines = node.start_mark.line + 1, {}
        for key, value in node.value:
            name = str(key.value)
            found[name] = _value(value)
            found.lines[name] = key.start_mark.line + 1
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if node.tag == "tag:yaml.org,2002:null":
        return None
    text = Text(node.value)
    text.line = node.start_mark.line + 1
    return text
