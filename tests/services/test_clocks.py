"""Munge refuses credentials, and logs lie, where clocks disagree."""

import pytest

pytestmark = pytest.mark.services

#: Seconds. Munge allows 300; more than one makes logs of two nodes hard to read side by side.
APART = 1.0


@pytest.mark.nodes("slurm-node")
def test_clock_agrees_with_the_controllers(node, services):
    apart = services.clocks.apart(services.nodes.slurm_controller, node)
    assert apart <= APART, (
        f"The clock of '{node.name}' is {apart:.1f} s off that of "
        f"'{services.nodes.slurm_controller.name}'."
    )


@pytest.mark.nodes("slurm-cluster")
def test_chrony_follows_a_source(node, services, requires):
    requires("chrony", on=node)
    tracking = services.clocks.tracking(node)
    assert tracking.synchronised, f"chrony on '{node.name}' follows nothing: {tracking}."
