"""The compute nodes as Slurm sees them, against what they are."""

import re

import pytest

from deepops_fixtures.checks import remote

pytestmark = [pytest.mark.slurm, pytest.mark.nodes("slurm-node")]


@pytest.fixture
def control(services, requires):
    """The node that controls Slurm, if it does."""
    node = services.nodes.slurm_controller
    requires("ssh", "munge", "trust", "slurmctld", "controller", on=node)
    return node


def test_compute_node_accepts_jobs(node, slurm, control, requires):
    requires("munge", "trust", "slurmd", on=node)
    seen = slurm.node(node.name)
    assert seen.accepts_jobs, (
        f"Node {seen}.\n"
        + slurm.log("SlurmctldLogFile", node.name)
        + "\n"
        + slurm.slurmd_log(node.name)
    )


def test_slurm_offers_the_cpus_and_memory_that_the_node_has(node, slurm, control):
    seen = slurm.node(node.name)
    said = remote.ask(
        node,
        {"cpus": "nproc --all", "memory": "grep MemTotal /proc/meminfo", "slurmd": "slurmd -C"},
    )
    cpus = int(said["cpus"].text)
    memory = int(said["memory"].text.split()[1]) // 1024
    assert seen.cpus == cpus, f"Slurm has {seen.cpus} CPUs for '{node.name}', which has {cpus}."
    # A cluster may keep some memory back; it may not promise what is not there.
    assert 0.8 * memory <= seen.real_memory <= memory, (
        f"Slurm has {seen.real_memory} MiB for '{node.name}', which has {memory} MiB."
    )
    hardware = dict(re.findall(r"(\w+)=(\S+)", said["slurmd"].text))
    assert int(hardware["CPUs"]) == seen.cpus, f"slurmd -C on '{node.name}': {said['slurmd'].text}"


def test_slurm_knows_the_node_by_its_address_in_the_cluster_network(node, slurm, control):
    seen = slurm.node(node.name)
    assert seen.address in (node.name, node.address), (
        f"slurmctld talks to '{node.name}' at {seen.address}, not at {node.address}."
    )
