"""The public fixtures. Each is a few lines: asking for one is what brings the cluster that far.

``virtual_cluster`` is up, ``deepops`` is deployed; the rest stand on ``deepops``. The work is in
``rehearsal``, ``cluster.running`` and ``checks``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from deepops_fixtures import changed, checks, facts, upgrade
from deepops_fixtures.errors import DeepopsError, StageFailed
from deepops_fixtures.parts import why_hidden
from deepops_fixtures.session import Session, session_of
from deepops_fixtures.simulation import (  # noqa: F401
    gpu_pods,
    gpu_supply,
    gpu_turn,
    simulated_gpus,
)

if TYPE_CHECKING:
    import testinfra.host

    from deepops_fixtures.cluster.running import Node, Nodes, RunningCluster


@pytest.fixture(scope="session")
def deepops_session(pytestconfig: pytest.Config) -> Session:
    """The run: its settings, folder, journal and cluster."""
    return session_of(pytestconfig)


def _reach(stage: Callable[[], RunningCluster]) -> RunningCluster:
    """Return what a stage gives. The first test that meets a failure errors with its message, the
    rest skip with the reason."""
    try:
        return stage()
    except StageFailed as error:
        raise pytest.skip.Exception(str(error)) from None
    except DeepopsError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def virtual_cluster(deepops_session: Session) -> Nodes:
    """The nodes of the running cluster, by name and by group; nothing is deployed on their
    account."""
    rehearsal = deepops_session.rehearsal
    changed.tell(deepops_session)
    # What one worker deploys must not change under another's test.
    shared = deepops_session.worker and rehearsal.target == "deployed"
    running = _reach(rehearsal.ensure_deployed if shared else rehearsal.ensure_up)
    if rehearsal.goes_back:
        rehearsal.remember_baseline()
    return deepops_session.nodes(running)


@pytest.fixture(scope="session")
def deepops_phase(request: pytest.FixtureRequest) -> str:
    """'before' or 'after' the upgrade, in a run with ``--deepops-upgrade-from``; '' in others."""
    return str(getattr(request, "param", ""))


@pytest.fixture(scope="session")
def deepops(virtual_cluster: Nodes, deepops_session: Session, deepops_phase: str) -> Nodes:
    """The nodes of the running cluster, with DeepOps applied to them."""
    rehearsal = deepops_session.rehearsal
    upgraded = deepops_phase == upgrade.AFTER
    _reach(rehearsal.ensure_upgraded if upgraded else rehearsal.ensure_deployed)
    if rehearsal.goes_back:
        rehearsal.remember_baseline()
    return virtual_cluster


@pytest.fixture
def pristine_cluster(deepops: Nodes, deepops_session: Session) -> Nodes:
    """The nodes of the cluster as it was after its deployment: what earlier tests did is undone
    first, and no other test runs meanwhile."""
    if not deepops_session.rehearsal.disposable:
        pytest.skip("these hosts are not ours to put back")
    return deepops


@pytest.fixture(scope="session")
def slurm(deepops: Nodes) -> checks.Slurm:
    """The cluster's Slurm: nodes, partitions, jobs, accounting."""
    if not deepops.group("slurm-master"):
        pytest.skip("the cluster has no node in group slurm-master")
    return checks.Slurm(deepops)


@pytest.fixture(scope="session")
def kubernetes(deepops: Nodes, deepops_session: Session) -> Iterator[checks.Kubernetes]:
    """The cluster's Kubernetes: nodes, pods, jobs, events; what a test makes there is deleted at
    the end of the run."""
    if not deepops.group("kube_control_plane"):
        pytest.skip("the cluster has no node in group kube_control_plane")
    found = checks.Kubernetes(deepops, deepops_session.run_dir)
    yield found
    found.close()


@pytest.fixture(scope="session")
def deepops_kubernetes(kubernetes: checks.Kubernetes) -> checks.DeepopsKubernetes:
    """The parts that DeepOps puts on Kubernetes: GPU operator, ingress, registry, monitoring, …"""
    return checks.DeepopsKubernetes(kubernetes)


@pytest.fixture(scope="session")
def login_host(deepops: Nodes) -> testinfra.host.Host:
    """The testinfra host that users log in to: slurm-login[0], else the Slurm controller."""
    return deepops.login.host


@pytest.fixture(scope="session")
def mgmt_host(deepops: Nodes) -> testinfra.host.Host:
    """The testinfra host of the management node: the first control plane node, else
    virtual-mgmt."""
    return deepops.management.host


@pytest.fixture(scope="session")
def gpu_hosts(deepops: Nodes) -> list[testinfra.host.Host]:
    """The testinfra hosts that carry GPUs by their name (…gpu…)."""
    hosts = [node.host for node in deepops if facts.is_gpu_node(node.name)]
    if not hosts:
        pytest.skip("the cluster has no GPU node")
    return hosts


@pytest.fixture
def node(request: pytest.FixtureRequest, deepops: Nodes, deepops_session: Session) -> Node:
    """One node; ``@pytest.mark.nodes("slurm-node")`` runs the test on each node of the group."""
    name = getattr(request, "param", None)
    found = deepops[name] if name else deepops.login
    marker = request.node.get_closest_marker("nodes")
    groups = marker.args if marker and name else ()
    if groups and not set(groups) & set(found.groups):
        # The tests were made for each node before it was known which parts the run deploys.
        chosen = deepops_session.rehearsal.chosen
        gone = [group for group in groups if group in chosen.hidden_groups]
        if gone:
            pytest.skip(why_hidden(chosen.parts, gone))
    return found


@pytest.fixture
def host(node: Node) -> testinfra.host.Host:
    """The testinfra host of ``node``, as root."""
    return node.host


@pytest.fixture(scope="session")
def gpus_seen(deepops: Nodes) -> dict[str, checks.Gpus]:
    """What was seen of each node's GPUs, by the node's name: each is looked at once."""
    return {}


@pytest.fixture
def gpus(node: Node, gpus_seen: dict[str, checks.Gpus]) -> checks.Gpus:
    """The GPUs of ``node``; skips where it has none, and says why."""
    seen = gpus_seen.setdefault(node.name, checks.Gpus(node))
    if seen.absent:
        pytest.skip(seen.absent)
    return seen


@pytest.fixture
def nvidia_smi(gpus: checks.Gpus) -> checks.NvidiaSmi:
    """What nvidia-smi says on ``node``."""
    return gpus.smi


@pytest.fixture(scope="session")
def gpu_census(deepops: Nodes) -> checks.GpuCensus:
    """How many GPUs Slurm and Kubernetes count on each node."""
    return checks.GpuCensus(deepops)


@pytest.fixture
def settle() -> Callable[[checks.Verdict], None]:
    """A function that fails with what a verdict complains of, and skips where nothing could be
    judged: what was not seen does not pass. Remarks become warnings (VerdictWarning), in pytest's
    summary of them."""

    def settled(verdict: checks.Verdict) -> None:
        __tracebackhide__ = True
        print(*verdict.unjudged, sep="\n")
        with warnings.catch_warnings():
            if verdict.faults:
                # A warning that is made an error would come in their place.
                warnings.simplefilter("default", checks.VerdictWarning)
            for text in verdict.remarks:
                warnings.warn(f"{verdict.node}: {text}", checks.VerdictWarning, stacklevel=2)
        assert not verdict.faults, str(verdict)
        if not verdict.judged:
            pytest.skip(str(verdict))

    return settled


@pytest.fixture(scope="session")
def units(deepops: Nodes, deepops_session: Session) -> checks.Units:
    """The systemd units that each node's groups ask for, of what this run deploys."""
    return checks.Units(deepops_session.rehearsal.chosen.scope.brings)


@pytest.fixture(scope="session")
def munge(deepops: Nodes) -> checks.Munge:
    """munge credentials between the nodes."""
    if not deepops.group("slurm-cluster"):
        pytest.skip("the cluster has no Slurm, and so no munge")
    return checks.Munge(deepops)


@pytest.fixture(scope="session")
def clocks(deepops: Nodes) -> checks.Clocks:
    """The nodes' clocks."""
    return checks.Clocks(deepops)


@pytest.fixture(scope="session")
def nfs(deepops: Nodes) -> checks.Nfs:
    """The shared file systems."""
    if not deepops.group("slurm-cluster"):
        pytest.skip("the cluster has no Slurm, and so no shared file systems of its own")
    return checks.Nfs(deepops)


@pytest.fixture(scope="session")
def rsyslog(deepops: Nodes) -> checks.Rsyslog:
    """The way of a log line to the server."""
    if not deepops.group("slurm-master") and not deepops.group("kube_control_plane"):
        pytest.skip("the cluster has neither a Slurm controller nor a control plane for its logs")
    return checks.Rsyslog(deepops)


@pytest.fixture(scope="session")
def access(deepops: Nodes) -> checks.Access:
    """Who may log in to a compute node."""
    return checks.Access(deepops)
