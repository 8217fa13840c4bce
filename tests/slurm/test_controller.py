"""slurmctld, slurmdbd and the configuration that all nodes share."""

import re

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import remote
from deepops_fixtures.checks.remote import odd_ones_out

pytestmark = pytest.mark.slurm


@pytest.fixture
def control(services, requires):
    """The node that controls Slurm, if nothing that Slurm stands on is broken there."""
    node = services.nodes.slurm_controller
    requires("ssh", "munge", "trust", "slurmctld", on=node)
    return node


@pytest.fixture
def answering(control, requires):
    """… and if slurmctld answers."""
    requires("controller", on=control)
    return control


@pytest.fixture(scope="module")
def configuration(services, basis):
    """SHA-256 of each node's slurm.conf and cgroup.conf, and the release of its Slurm."""
    files = " ".join(f"{facts.SLURM_CONFIG_DIR}/{name}.conf" for name in ("slurm", "cgroup"))
    silent = {one.node for one in basis.all if one.subject == "ssh"}
    return remote.everywhere(
        [one for one in services.nodes.group("slurm-cluster") if one.name not in silent],
        lambda node: remote.ask(
            node,
            {"files": f"sha256sum {files} | cut -c1-12 | xargs", "version": "scontrol --version"},
        ),
    )


def test_slurm_controller_answers(slurm, control):
    said = slurm.command("timeout 30 scontrol ping")
    assert re.search(rf"\bat {control.name} is UP\b", said.text), (
        f"slurmctld on '{control.name}' does not answer: {said.text}\n"
        + slurm.log("SlurmctldLogFile")
    )


def test_accounting_knows_the_cluster(slurm, answering, requires):
    requires("slurmdbd", "mariadb", on=answering)
    said = slurm.check(
        "timeout 30 sacctmgr --noheader --parsable2 show cluster"
        " format=cluster,controlhost,controlport"
    )
    clusters = {line.split("|")[0]: line.split("|") for line in said.splitlines()}
    name = slurm.config["ClusterName"]
    assert name in clusters, f"slurmdbd has no cluster '{name}', only: {said}"
    assert clusters[name][2] == slurm.config["SlurmctldPort"], (
        f"Cluster '{name}' is not registered in slurmdbd by a running slurmctld: {said}"
    )


def test_user_may_submit_jobs_on_an_account(slurm, answering, requires):
    requires("slurmdbd", "mariadb", on=answering)
    user = slurm.check("id -un", user="")
    said = slurm.check(
        f"timeout 30 sacctmgr --noheader --parsable2 show assoc where user={user} format=account"
    )
    assert said.split(), f"User '{user}' has no account in Slurm's accounting."


def test_cluster_and_ports_are_deepops(slurm, answering):
    config = {key: slurm.config[key] for key in ("ClusterName", "SlurmctldPort", "SlurmdPort")}
    assert config == {
        "ClusterName": facts.CLUSTER_NAME,
        "SlurmctldPort": str(facts.SLURMCTLD_PORT),
        "SlurmdPort": str(facts.SLURMD_PORT),
    }


def test_partition_batch_is_up_by_default_and_has_every_compute_node(slurm, answering):
    partition = slurm.partition(facts.PARTITION)
    assert partition.state == "UP", f"Partition '{partition.name}' is {partition.state}."
    assert partition.default, f"Partition '{partition.name}' is not the default."
    missing = {node.name for node in slurm.nodes.slurm_nodes} - set(partition.nodes)
    assert not missing, f"Partition '{partition.name}' lacks {sorted(missing)}."


@pytest.mark.nodes("slurm-cluster")
def test_node_has_the_slurm_configuration_of_the_others(node, configuration, services):
    files = {name: said["files"].text for name, said in configuration.items()}
    odd = odd_ones_out(files, prefer=services.nodes.slurm_controller.name)
    assert node.name not in odd, f"slurm.conf and cgroup.conf differ (SHA-256 begins): {files}."


@pytest.mark.nodes("slurm-cluster")
def test_node_has_the_slurm_release_of_the_others(node, configuration, services):
    releases = {name: said["version"].text for name, said in configuration.items()}
    odd = odd_ones_out(releases, prefer=services.nodes.slurm_controller.name)
    assert node.name not in odd, f"Slurm's releases differ: {releases}."


def test_slurmdbd_configuration_is_readable_by_slurm_alone(services, requires):
    node = services.nodes.slurm_controller
    requires("ssh", on=node)
    said = remote.run(node, f"stat --format='%U %a' {facts.SLURM_CONFIG_DIR}/slurmdbd.conf").text
    assert said.split() == ["slurm", "600"], f"slurmdbd.conf on '{node.name}' is: {said}"


def test_srun_offers_pmix(slurm, services, requires):
    requires("ssh", on=services.nodes.login)
    offered = slurm.command("srun --mpi=list").text
    assert "pmix" in offered, f"srun on '{services.nodes.login.name}' offers no PMIx:\n{offered}"
