"""Which tests run, on which nodes, in which order: decided from the tests and the cluster's plan.

Nothing is up by then. Not for who may use the cluster while tests run: that is ``isolation``.
"""

from __future__ import annotations

import pytest

from deepops_fixtures import changed, isolation, parts, simulation, upgrade
from deepops_fixtures.errors import DeepopsError, of_system
from deepops_fixtures.session import Session, needs_cluster, session_of
from deepops_fixtures.settings import Settings


def parametrise(metafunc: pytest.Metafunc) -> None:
    """Run a test as often as its markers and the run say.

    What cannot be (there is no such cluster) is remembered for ``refuse``: pytest would show it
    here once for each file of tests, with a trace, as an error in that file.
    """
    ours = session_of(metafunc.config)
    if ours.refused:
        return
    try:
        once_for_each_node(metafunc)
        simulation.once_with_simulated(metafunc)
        before_and_after_an_upgrade(metafunc)
    except DeepopsError as error:
        ours.refused = error
    except OSError as error:
        ours.refused = of_system(error)


def refuse(items: list[pytest.Item], ours: Session) -> None:
    """Refuse a run whose tests could not be told apart, unless none of those is left that ask for
    the cluster. Raises DeepopsError."""
    if ours.refused and any(needs_cluster(item) for item in items):
        raise ours.refused


def once_for_each_node(metafunc: pytest.Metafunc) -> None:
    """Parametrise a test marked ``nodes(...)`` with the nodes of these groups; a cluster without
    any skips it. Raises UsageProblem."""
    marker = metafunc.definition.get_closest_marker("nodes")
    if marker is None or "node" not in metafunc.fixturenames:
        return
    nodes = session_of(metafunc.config).rehearsal.planned_nodes()
    names = [node.name for node in nodes if not marker.args or set(marker.args) & set(node.groups)]
    if names:
        metafunc.parametrize("node", names, indirect=True, ids=names)
        return
    groups = " or ".join(marker.args) or "any group"
    skip = pytest.mark.skip(reason=f"the cluster has no node in group {groups}")
    metafunc.parametrize("node", [pytest.param("", marks=skip, id="no-node")], indirect=True)


def skip_gpus_that_will_not_be_there(
    items: list[pytest.Item], ours: Session, expression: str
) -> None:
    """Skip tests of GPUs where the virtual machines will have none, with the reason.

    ``expression`` is that of ``-m``. Raises UsageProblem.
    """
    about_gpus = [
        item
        for item in items
        if item.get_closest_marker("gpu") and needs_cluster(item) and not simulation.uses(item)
    ]
    reason = ours.why_no_gpus(expression) if about_gpus else ""
    for item in about_gpus if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason))


def skip_destruction_of_what_is_not_ours(items: list[pytest.Item], ours: Session) -> None:
    """Skip destructive tests on hosts that we did not make. Raises UsageProblem."""
    destructive = [item for item in items if isolation.breaks(item)]
    if destructive and not ours.rehearsal.disposable:
        skip = pytest.mark.skip(reason="destructive, and these hosts are not ours to break")
        for item in destructive:
            item.add_marker(skip)


def before_and_after_an_upgrade(metafunc: pytest.Metafunc) -> None:
    """Run what looks at the deployment twice where the run upgrades it."""
    test = metafunc.definition
    last = isolation.breaks(test) or isolation.wants_pristine(test)
    upgrade.twice(metafunc, session_of(metafunc.config).settings, last=last)


def why_not_deployed(item: pytest.Item) -> str:
    """Return why a test is about something that no playbook of this run deploys, '' where it is
    not. Asked when the tests are known: they decide which parts are deployed."""
    chosen = session_of(item.config).rehearsal.chosen
    try:
        scope = chosen.scope_then if upgrade.turn(item) else chosen.scope
    except DeepopsError:
        # Told by the stage that meets it, once.
        return ""
    return scope.why_not(parts.pieces_named_by(item))


def refuse_upgrade(config: pytest.Config, settings: Settings) -> None:
    """Refuse an upgrade that cannot be rehearsed. Raises UsageProblem."""
    upgrade.refuse(settings, workers=config.getoption("dist", "no") != "no")


def arrange(config: pytest.Config, items: list[pytest.Item], ours: Session) -> None:
    """Put the tests in their order; in a run about a change, those first that it asks for, or
    those alone. Raises UsageProblem."""
    items.sort(key=turn)
    if ours.change:
        changed.arrange(config, items, ours, ours.change, turn)


def turn(item: pytest.Item) -> tuple[int, int]:
    """Return a test's place in the order: what is checked before an upgrade comes before it."""
    return upgrade.turn(item), _turn(item)


def _turn(item: pytest.Item) -> int:
    """Return a test's place otherwise: destructive tests last, before them those that have the
    cluster put back, since what other tests have running on it would be lost."""
    if isolation.breaks(item):
        return 3
    if isolation.wants_pristine(item):
        return 2
    return 1 if item.get_closest_marker("late") else 0
