"""Slurm itself: its daemons answer, and they know the hardware they manage."""

import re

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Slurm
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.slurm


def test_slurmctld_answers(slurm: Slurm):
    assert slurm.controller_answers, (
        f"slurmctld on {slurm.controller.name} does not answer 'scontrol ping'\n"
        + slurm.log(slurm.controller)
    )


def test_the_cluster_is_registered_in_accounting(slurm: Slurm):
    columns = "cluster,controlhost,controlport"
    command = f"timeout 30 sacctmgr --noheader --parsable2 show cluster format={columns}"
    done = slurm.controller.host.run(command)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    known = {row[0]: row for row in rows}
    assert facts.CLUSTER_NAME in known, f"slurmdbd knows {sorted(known)}: {done.stderr.strip()}"
    assert known[facts.CLUSTER_NAME][2] != "0", f"slurmctld has not registered: {rows}"


def test_partition_batch_is_up_and_default_and_has_every_compute_node(slurm: Slurm):
    partition = slurm.partitions.get(facts.PARTITION)
    assert partition, f"there is no partition '{facts.PARTITION}', only {sorted(slurm.partitions)}"
    assert partition.state == "UP", f"partition '{partition.name}' is {partition.state}"
    assert partition.default, f"partition '{partition.name}' is not the default"
    names = {node.name for node in slurm.cluster.slurm_nodes}
    assert set(slurm.nodes) >= names, f"slurmctld does not know {sorted(names - set(slurm.nodes))}"
    assert partition.total_nodes == len(names), f"{partition} does not span {sorted(names)}"


@pytest.mark.nodes("slurm-node")
def test_the_compute_node_is_ready_for_jobs(node: Node, slurm: Slurm):
    # slurmctld learns late that a node's services are gone, so that the node itself is asked
    # first.
    obstacles = slurm.obstacles(node)
    assert not obstacles, "; ".join(obstacles)
    seen = slurm.nodes[node.name]
    assert seen.ready, f"{node.name} is {seen.state}, reason: {seen.reason or 'none given'}"


@pytest.mark.nodes("slurm-node")
def test_slurm_knows_the_cpus_the_node_has(node: Node, slurm: Slurm):
    real = int(node.host.check_output("nproc --all"))
    seen = slurm.nodes[node.name].cpus
    assert seen == real, f"{node.name} has {real} CPUs, slurm.conf says {seen}"


@pytest.mark.nodes("slurm-node")
def test_slurm_knows_the_memory_the_node_has(node: Node, slurm: Slurm):
    text = node.host.check_output("cat /proc/meminfo")
    match = re.search(r"MemTotal:\s+(\d+) kB", text)
    assert match, f"{node.name}: no MemTotal in /proc/meminfo"
    real, seen = int(match[1]) // 1024, slurm.nodes[node.name].real_memory
    # More than there is drains the node; far less leaves memory unused.
    assert 0.75 * real <= seen <= real, f"{node.name} has {real} MiB, slurm.conf says {seen} MiB"


def odd_ones(file: str, nodes: list[Node], reference: Node) -> list[str]:
    """Return the nodes on which a file of Slurm is not the reference's."""
    command = f"sha256sum < {facts.SLURM_CONFIG_DIR}/{file}"
    wanted = reference.host.check_output(command)
    return sorted(node.name for node in nodes if node.host.run(command).stdout.strip() != wanted)


def test_every_node_has_the_same_slurm_configuration(deepops: Nodes):
    odd = odd_ones("slurm.conf", deepops.group("slurm-cluster"), deepops.slurm_controller)
    assert not odd, f"slurm.conf differs from the controller's on {', '.join(odd)}"
    # Only slurmd reads it (cgroup.conf(5)); DeepOps puts it on compute nodes alone.
    compute = deepops.group("slurm-node")
    odd = odd_ones("cgroup.conf", compute, compute[0])
    assert not odd, f"cgroup.conf differs from {compute[0].name}'s on {', '.join(odd)}"


def test_every_node_has_the_same_slurm_version(slurm: Slurm, deepops: Nodes):
    versions = {
        node.name: node.host.check_output("sinfo --version").split()[-1]
        for node in deepops.group("slurm-cluster")
    }
    assert set(versions.values()) == {slurm.version}, f"versions differ: {versions}"


def test_the_accounting_configuration_is_private_to_slurm(slurm: Slurm):
    file = slurm.controller.host.file(f"{facts.SLURM_CONFIG_DIR}/slurmdbd.conf")
    assert (file.user, file.mode) == ("slurm", 0o600), (
        f"slurmdbd.conf is {file.user} {file.mode:o}"
    )


def test_pmix_is_offered_to_jobs(slurm: Slurm):
    done = slurm.login.user_host.run("srun --mpi=list 2>&1")
    assert re.search(r"\bpmix", done.stdout), f"srun offers no PMIx:\n{done.stdout}"
