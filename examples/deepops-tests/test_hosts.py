"""What this checkout promises of its hosts."""

import pytest


@pytest.mark.nodes("slurm-cluster")
def test_every_host_has_a_temporary_folder_for_everybody(node, host):
    folder = host.file("/tmp")
    assert folder.is_directory and folder.mode == 0o1777, f"{node.name}: {oct(folder.mode)}"


def test_the_cluster_has_a_controller_and_compute_nodes(deepops):
    assert len(deepops.group("slurm-master")) == 1
    assert deepops.group("slurm-node")


def test_users_log_in_where_the_controller_is(login_host, slurm):
    assert login_host.check_output("uname -n") == slurm.controller.host.check_output("uname -n")
