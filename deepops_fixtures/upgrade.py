"""A run that upgrades (``--deepops-upgrade-from REF``): REF is deployed and checked, then the
source is applied on top and the same checks run again.

Decides what is deployed first, which tests run in which phase, and tells what the upgrade broke.
Not for applying anything: that is ``rehearsal``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.records import CheckOutcome

if TYPE_CHECKING:
    import pytest

    from deepops_fixtures.settings import Settings

#: The fixture that a test's phase comes by.
FIXTURE = "deepops_phase"
Phase = Literal["before", "after"]
BEFORE: Phase = "before"
AFTER: Phase = "after"
#: Sources that have no refs.
_WITHOUT_REFS = ("distro", "none")


# -- before anything runs ---------------------------------------------------------------------


def refuse(settings: Settings, *, workers: bool) -> None:
    """Refuse an upgrade that cannot be rehearsed. Raises UsageProblem."""
    if not settings.upgrade_from:
        return
    why, hint = "", ""
    if settings.inventory or settings.attach:
        why = "it deploys to a cluster of its own, from the start"
        hint = "leave out --deepops-inventory and --deepops-attach"
    elif workers:
        why = "no test may run while another process upgrades the cluster under it"
        hint = "-n 0"
    if why:
        raise UsageProblem(f"--deepops-upgrade-from cannot be done here: {why}.", hint=hint)


def refuse_source(source: str, ref: str) -> None:
    """Refuse a source that has no refs. Raises UsageProblem."""
    if source in _WITHOUT_REFS:
        raise UsageProblem(
            f"--deepops-upgrade-from cannot be done here: source '{source}' has no '{ref}' to "
            "start from.",
            hint="--deepops-source PATH of a DeepOps checkout",
        )


def repository_of(source: str) -> str:
    """Return the repository that a source is in, which is that of the ref too; '' where the source
    is a ref itself."""
    return source if "/" in source or source.startswith((".", "~")) else ""


# -- which tests run when ---------------------------------------------------------------------


def twice(metafunc: pytest.Metafunc, settings: Settings, *, last: bool) -> None:
    """Run a test that looks at the deployment before and after the upgrade; one that is ``last``
    (it breaks something, or has the cluster put back) only after it."""
    if settings.upgrade_from and FIXTURE in metafunc.fixturenames:
        phases = [AFTER] if last else [BEFORE, AFTER]
        metafunc.parametrize(FIXTURE, phases, indirect=True, ids=phases, scope="session")


def turn(item: pytest.Item) -> int:
    """Return a test's place in the order: those before the upgrade first."""
    callspec = getattr(item, "callspec", None)
    return int(callspec is not None and callspec.params.get(FIXTURE) == AFTER)


# -- what came of it --------------------------------------------------------------------------


def phase_of(nodeid: str) -> tuple[str, Phase | None]:
    """Return a test's name without its phase, and the phase; None where it has none."""
    name, bracket, inside = nodeid.rstrip("]").rpartition("[")
    words = inside.split("-")
    phases: Sequence[Phase] = (BEFORE, AFTER)
    for phase in phases:
        # The phase is the last parameter or the first, by where the test's own stand.
        for place in (-1, 0) if bracket else ():
            if words[place] == phase:
                rest = "-".join(words[:-1] if place else words[1:])
                return (f"{name}[{rest}]" if rest else name), phase
    return nodeid, None


@dataclass(frozen=True)
class Comparison:
    """How the checks ended before and after the upgrade, by their names."""

    counts: dict[Phase, dict[str, int]]
    broken: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    both: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """What the upgrade did, in one sentence."""
        if not self.counts[AFTER]["passed"] + self.counts[AFTER]["failed"]:
            return "the upgrade was not checked"
        if self.broken:
            count = len(self.broken)
            return f"the upgrade breaks {count} check{'' if count == 1 else 's'}"
        also = f", and {len(self.both)} failed before it already" if self.both else ""
        return f"the upgrade breaks nothing{also}"


def compare(outcomes: Iterable[CheckOutcome]) -> Comparison:
    """Compare how each check ended before and after."""
    ended: dict[Phase, dict[str, CheckOutcome]] = {BEFORE: {}, AFTER: {}}
    for outcome in outcomes:
        name, phase = phase_of(outcome.nodeid)
        # A check that passes and then fails in its teardown has failed.
        if phase and not (name in ended[phase] and ended[phase][name].bad):
            ended[phase][name] = outcome
    counts: dict[Phase, dict[str, int]] = {}
    for phase, found in ended.items():
        counts[phase] = {
            word: sum(
                one.bad if word == "failed" else one.outcome == word for one in found.values()
            )
            for word in ("passed", "failed", "skipped")
        }
    first, second = ended[BEFORE], ended[AFTER]
    return Comparison(
        counts,
        broken=[n for n, o in second.items() if o.bad and not (n in first and first[n].bad)],
        mended=[
            n for n, o in first.items() if o.bad and n in second and second[n].outcome == "passed"
        ],
        both=[n for n, o in second.items() if o.bad and n in first and first[n].bad],
    )
