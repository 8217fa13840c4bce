"""What a command on a node says of itself when a check wanted it to succeed."""

import pytest

from deepops_fixtures.cluster.running import Node, NodeData
from deepops_fixtures.records import CommandRecord


@pytest.fixture
def records() -> list[CommandRecord]:
    return []


@pytest.fixture
def node(records: list[CommandRecord]) -> Node:
    data = NodeData(name="virtual-mgmt", groups=[], connection="local")
    return Node(data, None, records.append)


def test_a_command_that_had_to_succeed_says_where_it_failed_and_what_came_back(node: Node):
    with pytest.raises(AssertionError) as said:
        node.user_host.check_output("echo half; echo 'Read-only file system' >&2; exit 3")
    assert str(said.value).splitlines()[0] == (
        "Unexpected exit code 3 for 'echo half; echo 'Read-only file system' >&2; exit 3' "
        "on virtual-mgmt: Read-only file system"
    )
    with pytest.raises(AssertionError, match="on virtual-mgmt: no output"):
        node.user_host.run_expect([0], "false")


def test_a_result_is_what_testinfra_makes_of_it(node: Node, records: list[CommandRecord]):
    done = node.user_host.run("printf %s; printf b >&2; exit 4", "a")
    assert (done.rc, done.stdout, done.stderr, done.failed) == (4, "a", "b", True)
    assert [(record.node, record.exit_status) for record in records] == [("virtual-mgmt", 4)]
