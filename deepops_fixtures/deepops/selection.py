"""Which checks belong to a change: the pieces of DeepOps, or whole parts, that it reaches.

A role that is known to bring a piece (``scope.ROLES``) stands for the checks of that piece; one
that is not, for all checks of the parts whose playbooks use it. Not for ordering tests: that is
``changed``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from deepops_fixtures import facts
from deepops_fixtures.deepops import scope
from deepops_fixtures.deepops.impact import Impact, Reached
from deepops_fixtures.deepops.playbooks import Playbooks
from deepops_fixtures.deepops.yaml_lines import UnreadableYaml

#: Playbook of DeepOps → the part of which it is all.
_PARTS = {f"playbooks/{name}": part for part, name in facts.PARTS.items()}


class Selection(BaseModel):
    """The checks that a change asks for: of these pieces, of these whole parts, or all of them,
    and why. Empty where nothing that is checked is reached."""

    model_config = ConfigDict(frozen=True)

    everything: str = ""
    #: Whole part → the changed file for which it is.
    parts: dict[str, str] = {}
    #: Piece → the changed file for which it is.
    pieces: dict[str, str] = {}
    #: Whole part that the run is not about → the changed file that reaches it.
    elsewhere: dict[str, str] = {}

    def within(self, parts: Collection[str]) -> Selection:
        """Return what is left of it in a run of these parts; all where the run knows of none."""
        if not parts:
            return self
        inside = {part: path for part, path in self.parts.items() if part in parts}
        outside = {part: path for part, path in self.parts.items() if part not in parts}
        return self.model_copy(update={"parts": inside, "elsewhere": outside})

    def has(self, pieces: Collection[str], parts: Collection[str]) -> bool:
        """Return whether a check belongs that is about these pieces and names these parts; one
        that is about none in particular does as soon as anything is reached."""
        if self.everything:
            return True
        if not pieces and not parts:
            return bool(self.parts or self.pieces)
        wanted = set(pieces) | set(parts)
        if wanted & self.pieces.keys() or set(parts) & self.parts.keys():
            return True
        # Services carry every part: their checks name none.
        return not parts and bool(self.parts)

    @property
    def told(self) -> str:
        """The checks that belong, in words."""
        if self.everything:
            return f"all checks belong: {self.everything}"
        words = [f"all of {part} ({path})" for part, path in self.parts.items()]
        titles: dict[str, list[str]] = {}
        for piece, path in self.pieces.items():
            if piece in scope.PIECES and piece not in self.parts:
                titles.setdefault(path, []).append(scope.PIECES[piece])
        words += [f"{' and '.join(named)} ({path})" for path, named in titles.items()]
        told = f"checks of {', '.join(words)}" if words else "no check belongs to that"
        outside = [f"{part} ({path})" for part, path in self.elsewhere.items()]
        return f"{told}; not in this run: {', '.join(outside)}" if outside else told


def of(impact: Impact, root: Path, *, chosen: Collection[str] = ()) -> Selection:
    """Return the checks that belong to a change of the checkout at ``root``.

    ``chosen``: playbooks that the run applies in place of a part's own. Where the change reaches
    one of them and nobody knows what that brings, all checks of the run belong.
    """
    everything = ""
    pieces: dict[str, str] = {}
    parts: dict[str, str] = {}
    playbooks = Playbooks(root)
    for item in impact.files:
        if item.everything and not item.part:
            everything = f"{item.path}: {item.everything}"
            break
        if item.part:
            parts.setdefault(item.part, item.path)
            continue
        found = _pieces(item, playbooks)
        for piece in sorted(found):
            pieces.setdefault(piece, item.path)
        if not found:
            for part in (_PARTS[name] for name in item.playbooks if name in _PARTS):
                parts.setdefault(part, item.path)
            applied = [name for name in item.playbooks if name in chosen and name not in _PARTS]
            if applied:
                everything = everything or f"{item.path}: this run applies {applied[0]}"
    return (
        Selection(everything=everything) if everything else Selection(parts=parts, pieces=pieces)
    )


def _pieces(item: Reached, playbooks: Playbooks) -> frozenset[str]:
    """Return the pieces that a changed file brings; none where that is not known."""
    if not item.playbooks:
        return frozenset()
    if item.role:
        return scope.pieces_of_role(item.role)
    if item.path in _PARTS or item.path not in item.playbooks:
        return frozenset()
    try:
        plays = [
            play for play in playbooks.plays(Path(item.path)) if play.file.match(f"*/{item.path}")
        ]
    except UnreadableYaml:
        return frozenset()
    if any(play.has_tasks for play in plays) or playbooks.imports(Path(item.path)):
        return frozenset()
    roles = {use.name for play in plays for use in play.roles}
    found = [scope.pieces_of_role(role) for role in roles]
    # One role of which nothing is known, or tasks of its own, and it may be about anything.
    return frozenset().union(*found) if all(found) else frozenset()
