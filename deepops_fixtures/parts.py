"""Which parts of DeepOps a run deploys (``slurm``, ``kubernetes``), and which groups its tests get
to see for it.

Decided from settings, cluster and tests alone; nothing is looked at or changed here. Not for
deploying them: that is ``rehearsal``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from deepops_fixtures import facts
from deepops_fixtures.errors import UsageProblem

if TYPE_CHECKING:
    import pytest

Parts = tuple[str, ...]


def ordered(parts: Iterable[str]) -> Parts:
    """Return each part once, in the order in which they are deployed."""
    known = list(facts.PARTS)
    unique = dict.fromkeys(parts)
    return tuple(sorted(unique, key=lambda part: known.index(part) if part in known else 99))


def named_by(items: Iterable[pytest.Item]) -> Parts:
    """Return the parts that tests name, each by the marker or by the fixture of that name."""
    named: set[str] = set()
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        named |= {
            part for part in facts.PARTS if part in fixtures or item.get_closest_marker(part)
        }
    return ordered(named)


def pieces_named_by(item: pytest.Item) -> tuple[str, ...]:
    """Return the pieces of DeepOps (less than a part: ``nfs``, ``chrony``) that a test is about,
    by its fixtures and markers."""
    from deepops_fixtures.deepops.scope import FIXTURES

    fixtures = getattr(item, "fixturenames", ())
    pieces = [piece for fixture, piece in FIXTURES.items() if fixture in fixtures]
    pieces += [part for part in facts.PARTS if item.get_closest_marker(part)]
    for marker in item.iter_markers("piece"):
        pieces += marker.args
    return tuple(dict.fromkeys(pieces))


def of_run(
    cluster: str,
    carried: Collection[str],
    *,
    asked: Iterable[str] = (),
    deployed: Iterable[str] = (),
    named: Collection[str] = (),
) -> Parts:
    """Return the parts that a run is about.

    ``carried`` are those of the cluster's file; ``asked`` those of ``--deepops-parts``, which
    count most; ``deployed`` what is on a cluster that the run is attached to; ``named`` those of
    its tests, of which the cluster may carry none. Where nothing says anything it is all that the
    cluster carries. Raises UsageProblem when one is asked for that the cluster does not carry.
    """
    asked, deployed = ordered(asked), ordered(deployed)
    for part in asked:
        if part not in carried:
            has = ", ".join(ordered(carried))
            raise UsageProblem(
                f"--deepops-parts: cluster '{cluster}' carries no part '{part}'; "
                f"it carries: {has or 'none'}.",
                hint=f"--deepops-parts {has.replace(' ', '')}"
                if has
                else "choose another cluster: deepops-virtual clusters",
            )
    if asked or deployed:
        return asked or deployed
    return ordered(part for part in carried if part in named or not named)


def to_apply(wanted: Iterable[str], there: Collection[str]) -> Parts:
    """Return what has to be applied so that ``wanted`` is on a cluster: the first part that is
    missing, and from there on all that is wanted or ``there``.

    A part that was applied before an earlier one was has to be told of it: Kubernetes takes clock
    and logs from Slurm's controller where there is one.
    """
    wanted = ordered(wanted)
    everything = ordered([*wanted, *there])
    missing = [part for part in wanted if part not in there]
    return everything[everything.index(missing[0]) :] if missing else ()


def hidden_groups(parts: Collection[str], carried: Collection[str]) -> frozenset[str]:
    """Return the groups that mean nothing in a run of these parts.

    Of a cluster that carries none every group stays: who made it knows what is on it.
    """
    if not carried:
        return frozenset()
    absent = [groups for part, groups in facts.PART_GROUPS.items() if part not in parts]
    return frozenset(group for groups in absent for group in groups)


def why_hidden(parts: Collection[str], groups: Iterable[str]) -> str:
    """Return why there is no node in these groups, in words for a skipped test."""
    what = f"{' and '.join(ordered(parts))} alone" if parts else "nothing"
    return f"this run deploys {what}: no node is in group {' or '.join(groups)}"
