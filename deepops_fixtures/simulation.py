"""SIMULATED GPUs of Kubernetes: a number that is written into a node's status, so that the checks
of GPU scheduling can be tried on a cluster without GPUs.

They exist only where ``--deepops-simulated-gpus`` asks for them, for as long as one check; a
check that uses them has SIMULATED in its name, and the run's verdict says so. No device stands
behind them: what looks into a pod is skipped. Source: Kubernetes' documentation, Advertise
Extended Resources for a Node.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from deepops_fixtures import facts
from deepops_fixtures.session import Session, session_of
from deepops_fixtures.settings import option

if TYPE_CHECKING:
    from deepops_fixtures.checks import GpuPods, Kubernetes
    from deepops_fixtures.checks.kube_data import KubeNode

WORD = "SIMULATED"
#: GPUs of a simulated node, and how many nodes have some: two, for a job over several.
COUNT, NODES = 2, 2
_PARAMETER = "gpu_supply"


# -- what is said of them -------------------------------------------------------------------


def once_with_simulated(metafunc: pytest.Metafunc) -> None:
    """Name a test SIMULATED that gets its GPUs from ``gpu_pods``, where that is asked for."""
    if _PARAMETER in metafunc.fixturenames and asked_for(session_of(metafunc.config)):
        metafunc.parametrize(_PARAMETER, [WORD], indirect=True, ids=[WORD])


def asked_for(ours: Session) -> bool:
    """Return whether the user asks for simulated GPUs."""
    return ours.settings.simulated_gpus


def uses(item: pytest.Item) -> bool:
    """Return whether a test runs with simulated GPUs, so that it needs no real ones."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get(_PARAMETER) == WORD


def note(ours: Session) -> str:
    """Return what a run has to say of simulated GPUs, '' when no check used any."""
    ended = [each for each in ours.outcomes if WORD in each.nodeid and each.outcome != "skipped"]
    if not ended:
        return ""
    checks = f"{len(ended)} check{'' if len(ended) == 1 else 's'}"
    return f"GPUs of Kubernetes: {WORD} in {checks}, asked for by {option('simulated_gpus')}."


# -- the patch ------------------------------------------------------------------------------


def candidates(nodes: dict[str, KubeNode]) -> tuple[list[str], str]:
    """Return the nodes that get simulated GPUs, GPU nodes by their name first, and why there are
    none ('' when there are)."""
    from deepops_fixtures.checks import kube_gpus

    real = [
        name
        for name, node in nodes.items()
        if kube_gpus.resources(node) and kube_gpus.SIMULATED not in node.labels
    ]
    if real:
        return [], f"Kubernetes has GPUs of its own on {', '.join(real)}: none are simulated"
    able = [name for name, node in nodes.items() if node.ready and node.schedulable]
    if not able:
        return [], "no node takes pods: no GPU can be simulated on any"
    return sorted(able, key=lambda name: not facts.is_gpu_node(name))[:NODES], ""


@contextmanager
def simulated(kubernetes: Kubernetes, names: list[str]) -> Iterator[dict[str, int]]:
    """Give these nodes GPUs that are not there, and take them away at the end; gives node →
    count."""
    with ExitStack() as undo:
        for name in names:
            # First: a request that got no answer may have been carried out.
            undo.callback(_write, kubernetes, name, None)
            _write(kubernetes, name, str(COUNT))
        yield dict.fromkeys(names, COUNT)


def _write(kubernetes: Kubernetes, name: str, count: str | None) -> None:
    """Write the count into a node's status; None takes it out. The label tells everybody that it
    is not real, also when this process does not come to take it out."""
    from deepops_fixtures.checks import kube_gpus

    resource = {facts.GPU_RESOURCE: count}
    body = {
        "metadata": {"labels": {kube_gpus.SIMULATED: count}},
        # The kubelet makes allocatable from capacity, some seconds later.
        "status": {"capacity": resource, "allocatable": resource},
    }
    kubernetes.api.patch(f"/api/v1/nodes/{name}/status", body)


# -- fixtures -------------------------------------------------------------------------------


@pytest.fixture
def gpu_supply(request: pytest.FixtureRequest) -> str:
    """Whose GPUs a test uses: 'SIMULATED', or 'real'."""
    return str(getattr(request, "param", "real"))


@pytest.fixture
def gpu_turn(deepops_session: Session, kubernetes: Kubernetes) -> Iterator[None]:
    """The turn to have all GPUs: one test of a run at a time, or they would keep one another
    waiting."""
    from filelock import FileLock

    _first = kubernetes
    with FileLock(deepops_session.run_dir / "gpus.lock"):
        yield


@pytest.fixture
def simulated_gpus(
    gpu_supply: str, gpu_turn: None, kubernetes: Kubernetes, deepops_session: Session
) -> Iterator[dict[str, int]]:
    """Node → GPUs that are SIMULATED on it while the test runs; skips where they are not asked
    for, where the hosts are not ours, and where Kubernetes has real ones."""
    if not asked_for(deepops_session):
        pytest.skip(f"no GPUs are simulated: {option('simulated_gpus')} asks for them")
    if not deepops_session.rehearsal.disposable:
        pytest.skip("these hosts are not ours: no GPUs are simulated on them")
    names, reason = candidates(kubernetes.nodes)
    if reason:
        pytest.skip(reason)
    with simulated(kubernetes, names) as supply:
        yield supply


@pytest.fixture
def gpu_pods(
    gpu_supply: str, gpu_turn: None, kubernetes: Kubernetes, request: pytest.FixtureRequest
) -> GpuPods:
    """Pods with GPUs; skips where Kubernetes has no GPU to give, and says why."""
    from deepops_fixtures.checks import GpuPods, kube_gpu_pods

    if gpu_supply == WORD:
        supply = request.getfixturevalue("simulated_gpus")
        return GpuPods(kubernetes, supply, simulated=True)
    supply = kube_gpu_pods.real_supply(kubernetes)
    if not supply:
        pytest.skip(f"Kubernetes has no {facts.GPU_RESOURCE} on any node")
    if not any(supply.values()):
        pytest.skip("the GPUs of Kubernetes are all taken by other pods")
    return GpuPods(kubernetes, supply)
