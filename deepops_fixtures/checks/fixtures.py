"""The pytest side of the checks: what a check requires, who may disturb whom, and Slurm fit for
jobs.

The plugin registers this module; its fixtures stand on ``deepops`` and ``slurm`` of the public
fixtures. Not for the classes themselves, which know nothing of pytest.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import pytest

from deepops_fixtures.checks.basis import REPORTERS, Basis, Problem
from deepops_fixtures.checks.services import Services
from deepops_fixtures.checks.slurm import Slurm
from deepops_fixtures.cluster.running import Node, Nodes

Requires = Callable[..., None]
_MARKS = ("slurm", "services")


@pytest.fixture(scope="session")
def services(deepops: Nodes) -> Services:
    """Munge, NFS, rsyslog, clocks, network and access of the cluster, and the units of each node.
    """
    return Services(deepops)


@pytest.fixture(scope="session")
def basis(deepops: Nodes) -> Basis:
    """What the checks stand on, looked at once in a session (again after a destructive check)."""
    return Basis(deepops)


@pytest.fixture
def requires(request: pytest.FixtureRequest, basis: Basis) -> Requires:
    """Give up at once, with the cause, where what this check stands on is broken.

    >>> requires("slurmd", "munge", on=node)

    It skips if the check that reports the cause is part of this run. If it was deselected, it
    fails: a broken cluster never passes because of what was selected.
    """

    def require(*subjects: str, on: Node | Iterable[Node]) -> None:
        __tracebackhide__ = True
        names = [on.name] if isinstance(on, Node) else [node.name for node in on]
        problems = basis.problems(subjects, names)
        if problems:
            give_up(request, problems)

    return require


def give_up(request: pytest.FixtureRequest, problems: list[Problem]) -> NoReturn:
    """Skip for a problem that another check of this run reports, or fail if none does."""
    __tracebackhide__ = True
    selected = {item.nodeid.rpartition("::")[2] for item in request.session.items}
    for problem in problems:
        if problem.reporter not in selected:
            pytest.fail(f"This check cannot run: {problem.sentence}.", pytrace=False)
    first = problems[0]
    pytest.skip(f"{first.sentence} ({first.reporter} reports it)")


@pytest.fixture
def working_slurm(request: pytest.FixtureRequest, slurm: Slurm, basis: Basis) -> Slurm:
    """Slurm, kept away from nodes that cannot run jobs; gives up where it cannot run any."""
    if problems := basis.against_slurm():
        give_up(request, problems)
    unfit = basis.against_jobs()
    if len(unfit) >= len(slurm.nodes.slurm_nodes):
        give_up(request, list(unfit.values()))
    return slurm.avoiding(unfit)


@pytest.fixture
def fit_nodes(working_slurm: Slurm) -> list[Node]:
    """The compute nodes that can run jobs, at least one."""
    return [
        node for node in working_slurm.nodes.slurm_nodes if node.name not in working_slurm.avoided
    ]


@pytest.fixture
def two_fit_nodes(
    request: pytest.FixtureRequest, working_slurm: Slurm, fit_nodes: list[Node], basis: Basis
) -> list[Node]:
    """All compute nodes, for a check that spans them; gives up if one is unfit or there is only
    one.
    """
    if working_slurm.avoided:
        give_up(request, list(basis.against_jobs().values()))
    if len(fit_nodes) < 2:
        pytest.skip("the cluster has one compute node, and this check spans two")
    return fit_nodes


@pytest.fixture
def fit_node(
    request: pytest.FixtureRequest, node: Node, working_slurm: Slurm, basis: Basis
) -> Node:
    """The node that the check is parametrised with, if jobs can run on it."""
    unfit = basis.against_jobs()
    if node.name in unfit:
        give_up(request, [unfit[node.name]])
    return node


@pytest.fixture(autouse=True)
def _node_answers(request: pytest.FixtureRequest) -> None:
    """Spare the checks of a node that is gone their own ssh timeout."""
    name = getattr(getattr(request.node, "callspec", None), "params", {}).get("node")
    reports = getattr(request.node, "originalname", "") == REPORTERS["ssh"]
    if name and not reports and any(request.node.get_closest_marker(mark) for mark in _MARKS):
        problems = request.getfixturevalue("basis").problems(["ssh"], [str(name)])
        if problems:
            give_up(request, problems)


@pytest.fixture(autouse=True)
def _cluster_turn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Let a destructive check have the cluster to itself while xdist's other workers wait."""
    if not any(request.node.get_closest_marker(mark) for mark in _MARKS):
        yield
        return
    destructive = request.node.get_closest_marker("destructive") is not None
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
    else:
        # The folder above a worker's own is shared by the workers of one run.
        with (tmp_path_factory.getbasetemp().parent / "deepops-cluster.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if destructive else fcntl.LOCK_SH)
            yield
    if destructive and "basis" in request.fixturenames:
        request.getfixturevalue("basis").forget()
