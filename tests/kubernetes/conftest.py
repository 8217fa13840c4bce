"""What the checks of Kubernetes stand on."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import KubeNode, Kubernetes, WebServers, kube_obstacles
from deepops_fixtures.cluster.running import Node
from deepops_fixtures.errors import CheckFailed
from deepops_fixtures.session import Session


@pytest.fixture(scope="session")
def look_again(deepops_session: Session) -> Callable[[str, Callable[[], list[str]]], list[str]]:
    """A function that gives what a look at the cluster gave, and looks again whenever a test has
    failed since: what breaks half-way costs one test its patience and not every test."""
    seen: dict[str, tuple[int, list[str]]] = {}

    def look(name: str, how: Callable[[], list[str]]) -> list[str]:
        if name not in seen or seen[name][0] != deepops_session.failures:
            seen[name] = (deepops_session.failures, how())
        return seen[name][1]

    return look


@pytest.fixture
def answering_kubernetes(kubernetes: Kubernetes, look_again: Callable) -> Kubernetes:
    """Kubernetes, its API server answering; one that does not has a check of its own that is red
    then."""
    found = look_again("api", lambda: [kube_obstacles.api_obstacle(kubernetes)])
    if found != [""]:
        pytest.skip(f"the API cannot be asked: {found[0]}")
    return kubernetes


@pytest.fixture
def working_kubernetes(answering_kubernetes: Kubernetes, look_again: Callable) -> Kubernetes:
    """Kubernetes, with every node fit for pods; anything else has a check of its own that is red
    then."""
    found = look_again("pods", lambda: kube_obstacles.all_obstacles(answering_kubernetes))
    if found:
        pytest.skip("no pod can be expected to run: " + "; ".join(found))
    return answering_kubernetes


@pytest.fixture
def resolving_kubernetes(working_kubernetes: Kubernetes, look_again: Callable) -> Kubernetes:
    """Kubernetes whose DNS pods run; where none does, a check of its own is red."""
    found = look_again("dns", lambda: kube_obstacles.dns_obstacles(working_kubernetes))
    if found:
        pytest.skip("no name can be expected to resolve: " + "; ".join(found))
    return working_kubernetes


@pytest.fixture
def kube_node(node: Node, answering_kubernetes: Kubernetes) -> KubeNode:
    """``node`` as the API knows it; one that it does not know has a check of its own."""
    seen = answering_kubernetes.nodes.get(node.name)
    if seen is None:
        pytest.skip(f"the API does not know {node.name}")
    return seen


@pytest.fixture(scope="session")
def web_once() -> dict[str, WebServers | str]:
    """The web servers of this process, or why there are none."""
    return {}


@pytest.fixture
def web(working_kubernetes: Kubernetes, web_once: dict[str, WebServers | str]) -> WebServers:
    """A web server on every node that takes pods. The test that meets a failure to start them
    fails with the evidence, the rest skip with the reason."""
    if "web" not in web_once:
        nodes = [
            node.name
            for node in working_kubernetes.nodes.values()
            if node.ready and not node.cordoned and not node.foreign_taints
        ]
        try:
            servers = WebServers(working_kubernetes, nodes)
            servers.wait()
        except CheckFailed as error:
            web_once["web"] = str(error).splitlines()[0]
            raise
        web_once["web"] = servers
    found = web_once["web"]
    if isinstance(found, str):
        pytest.skip(f"the web servers of the checks did not start: {found}")
    return found
