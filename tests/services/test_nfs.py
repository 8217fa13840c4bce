"""/home and /sw: exported by one node, the same on all."""

import secrets

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import Nfs
from deepops_fixtures.cluster.running import Node, Nodes

pytestmark = pytest.mark.services


@pytest.mark.piece("nfs-server")
def test_home_and_sw_are_exported(nfs: Nfs):
    missing = sorted(set(facts.NFS_EXPORTS) - nfs.exported())
    assert not missing, f"{nfs.nodes.nfs_server.name} does not export {', '.join(missing)}"


@pytest.mark.piece("nfs")
@pytest.mark.nodes("slurm-cluster")
def test_home_and_sw_are_mounted_from_the_server(node: Node, nfs: Nfs):
    if node.name == nfs.nodes.nfs_server.name:
        pytest.skip("this node is the server")
    mounted = nfs.mounted(node)
    expected = {path: f"{nfs.nodes.nfs_server.name}:{path}" for path in facts.NFS_EXPORTS}
    wrong = {
        path: mounted.get(path, "nothing")
        for path in expected
        if mounted.get(path) != expected[path]
    }
    assert not wrong, f"{node.name} has mounted {wrong}, expected {expected}"


@pytest.mark.piece("nfs")
def test_a_file_written_on_one_node_is_read_on_every_other(nfs: Nfs, deepops: Nodes):
    blind = [
        text
        for folder in facts.NFS_EXPORTS
        for writer in deepops.group("slurm-cluster")
        for text in nfs.unseen(writer, folder)
    ]
    assert not blind, "\n".join(blind)


@pytest.mark.piece("nfs")
@pytest.mark.destructive
def test_files_survive_a_restart_of_the_nfs_server(deepops: Nodes, nfs: Nfs):
    word = secrets.token_hex(8)
    path = f"/home/.deepops-check-{word}"
    writer = nfs.clients[0]
    writer.host.run_expect([0], "printf %%s %s > %s && sync %s", word, path, path)
    nfs.nodes.nfs_server.host.run_expect([0], "systemctl restart nfs-server")
    try:
        for client in nfs.clients:
            read = client.host.run("timeout 90 cat -- %s", path)
            assert read.stdout == word, f"{client.name} lost {path}: {read.stderr.strip()}"
    finally:
        writer.host.run("timeout 90 rm -f -- %s", path)
