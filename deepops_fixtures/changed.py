"""Which tests a change of the DeepOps checkout asks for (``--deepops-changed-since``): they run
first, or alone (``--deepops-changed-only``).

Not for what a change reaches: that is ``deepops.impact`` and ``deepops.selection``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from deepops_fixtures import parts
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.session import Session, needs_cluster, runs_on_cluster

if TYPE_CHECKING:
    import pytest

    from deepops_fixtures.deepops.impact import Impact
    from deepops_fixtures.deepops.selection import Selection

#: What was left out, for a process that collects no tests.
FILE = "left-out.json"
#: How many changed files are named before the first test.
_FILES = 6


class Change:
    """What has changed in the checkout that the run is about, and which checks belong to it."""

    def __init__(
        self,
        tree: Path,
        ref: str,
        *,
        only: bool,
        about: Callable[[], parts.Parts],
        playbooks: tuple[str, ...] = (),
    ) -> None:
        self._tree = tree
        self._ref = ref
        self._about = about
        self._playbooks = playbooks
        self.only = only

    @cached_property
    def impact(self) -> Impact:
        """What has changed and what it reaches. Raises UsageProblem."""
        from deepops_fixtures.deepops import changes, impact

        return impact.of(changes.since(self._tree, self._ref), chosen=self._chosen)

    @cached_property
    def _chosen(self) -> tuple[str, ...]:
        """The playbooks that the run applies in place of a part's own, below the checkout."""
        from deepops_fixtures.deepops import driving
        from deepops_fixtures.deepops.playbooks import Playbooks

        known = Playbooks(self._tree)
        return tuple(str(driving.playbook(known, word)) for word in self._playbooks)

    @cached_property
    def _all(self) -> Selection:
        from deepops_fixtures.deepops import selection

        return selection.of(self.impact, self._tree, chosen=self._chosen)

    @property
    def selection(self) -> Selection:
        """The checks of this run that belong to it. Raises UsageProblem."""
        return self._all.within(self._about())

    def asks_for(self, item: pytest.Item) -> bool:
        """Return whether a test belongs to the change; those without the cluster always do."""
        return not needs_cluster(item) or self.selection.has(
            parts.pieces_named_by(item), parts.named_by([item])
        )

    def lines(self) -> list[str]:
        """Return what is said before the first test."""
        files = self.impact.files
        how = "only" if self.only else "first"
        count = f"{len(files)} file{'' if len(files) == 1 else 's'}"
        lines = [f"changed since {self._ref}: {count}; {how}: {self.selection.told}"]
        lines += [f"  {item.path} -> {item.told}" for item in files[:_FILES]]
        if len(files) > _FILES:
            more = len(files) - _FILES
            lines.append(f"  … and {more} more: deepops-virtual impact {self._ref}")
        return lines


def of_run(ours: Session) -> Change | None:
    """Return the change that a run is about, None where it is about none. Raises UsageProblem."""
    settings = ours.settings
    if not settings.changed_since:
        if settings.changed_only:
            raise UsageProblem(
                "--deepops-changed-only does not say since when.",
                hint="add --deepops-changed-since REF",
            )
        return None
    source = settings.source or (ours.spec.source if ours.spec else "")
    tree = Path(source).expanduser()
    if not source or not (tree / "playbooks").is_dir():
        raise UsageProblem(
            f"--deepops-changed-since looks at a working tree, and source '{source or 'distro'}' "
            "is none.",
            hint="--deepops-source PATH of your checkout",
        )
    return Change(
        tree.absolute(),
        settings.changed_since,
        only=settings.changed_only,
        about=lambda: ours.rehearsal.chosen.parts,
        playbooks=settings.playbook,
    )


def arrange(
    config: pytest.Config,
    items: list[pytest.Item],
    ours: Session,
    change: Change,
    turn: Callable[[pytest.Item], tuple[int, int]],
) -> None:
    """Put the tests that the change asks for before the others of their turn, or leave the others
    out. Raises UsageProblem."""
    wanted = [item for item in items if runs_on_cluster(item)]
    if wanted:
        # Which parts the run is about is known by its tests.
        ours.look_at(wanted)
    asked = {item for item in items if change.asks_for(item)}
    if not change.only:
        items.sort(key=lambda item: (turn(item), item not in asked))
        return
    left_out = [item for item in items if item not in asked]
    ours.left_out = Counter(_about(item) for item in left_out)
    items[:] = [item for item in items if item in asked]
    config.hook.pytest_deselected(items=left_out)


def tell(ours: Session) -> None:
    """Let a process that collects no tests know what was left out; called by those that do, once
    they use the cluster."""
    if ours.left_out:
        ours.run_dir.mkdir(parents=True, exist_ok=True)
        (ours.run_dir / FILE).write_text(json.dumps(ours.left_out))


def left_out(ours: Session) -> dict[str, int]:
    """Return how many tests were left out, by what they are about."""
    with suppress(OSError, ValueError):
        return dict(json.loads((ours.run_dir / FILE).read_text()))
    return dict(ours.left_out)


def _about(item: pytest.Item) -> str:
    """Return what a test is about in one word, for counting."""
    named = parts.named_by([item])
    return named[0] if named else next(iter(parts.pieces_named_by(item)), "services")
