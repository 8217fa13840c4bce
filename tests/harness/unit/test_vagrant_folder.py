"""Machines of a user's own Vagrantfile: which there are, what they are, how they are reached."""

import pytest

from deepops_fixtures.cluster import node_names, ssh
from deepops_fixtures.cluster.providers import vagrant_folder
from deepops_fixtures.cluster.providers.vagrant_folder import VagrantFolderProvider
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal

VAGRANT = """\
echo "$PWD $VAGRANT_VAGRANTFILE: $*" >>{calls}
case $1 in
  status)
    for node in {nodes}; do
      echo "1700000000,$node,metadata,provider,libvirt"
      echo "1700000000,$node,state,{state}"
      echo "1700000000,$node,state-human-long,The machine is up%!(VAGRANT_COMMA) it says"
    done ;;
  ssh-config)
    for node in {nodes}; do
      echo "Host $node"
      echo "  HostName 192.168.121.7"
      echo "  User vagrant"
      echo "  StrictHostKeyChecking no"
    done ;;
esac
"""


@pytest.fixture
def folder(tmp_path, programs, monkeypatch):
    """A folder with a Vagrantfile, and a Vagrant that knows these nodes."""
    file = tmp_path / "mine" / "Vagrantfile-own"
    file.parent.mkdir()
    file.write_text("# Vagrant.configure …")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    monkeypatch.setattr(ssh, "answers", lambda *_: True)
    monkeypatch.setattr(ssh, "wait_until_answering", lambda *_: None)
    monkeypatch.setenv("VAGRANT_CWD", "/somewhere/else")

    def make(*nodes: str, state: str = "running", inventory=None, text: str = VAGRANT):
        names = " ".join(nodes)
        programs(vagrant=text.format(calls=tmp_path / "calls", nodes=names, state=state))
        journal = Journal(run_dir / "events.jsonl")
        return VagrantFolderProvider(file, inventory, journal, run_dir)

    return make


def test_the_names_say_what_the_machines_are(folder, tmp_path):
    made = folder("virtual-login", "virtual-mgmt", "virtual-gpu01")
    made.preflight()
    running = made.up()
    assert {node.name: node.groups for node in running.nodes} == {
        "virtual-login": ["slurm-master", "slurm-nfs", "slurm-cluster"],
        "virtual-mgmt": ["kube_control_plane", "etcd", "kube_node", "k8s_cluster"],
        "virtual-gpu01": ["slurm-node", "kube_node", "slurm-cluster", "k8s_cluster"],
    }
    assert (running.name, running.disposable) == ("mine", False)
    config = running.ssh_config.read_text()
    assert "Host virtual-gpu01\n  HostName 192.168.121.7\n  User vagrant\n" in config
    assert "  StrictHostKeyChecking no\nHost *\n" in config
    assert "virtual-login deepops_address=192.168.121.7" in running.inventory.read_text()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        f"{tmp_path}/mine Vagrantfile-own: status --machine-readable",
        f"{tmp_path}/mine Vagrantfile-own: ssh-config",
    ]


def test_in_the_large_cluster_login_nodes_run_no_controller():
    names = ["virtual-wm01", "virtual-login01-3", "virtual-gpu01", "virtual-nfs01"]
    assert node_names.groups_by_names(names) == {
        "virtual-wm01": ["slurm-master"],
        "virtual-login01-3": ["slurm-login"],
        "virtual-gpu01": ["slurm-node"],
        "virtual-nfs01": ["slurm-nfs"],
    }


def test_an_inventory_beside_it_says_the_groups(folder, tmp_path, monkeypatch):
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[slurm-master]\nhead\n[slurm-node]\nworker\n")
    monkeypatch.setattr(
        vagrant_folder.InventoryProvider,
        "_read",
        lambda _self: {
            "_meta": {"hostvars": {"head": {}, "worker": {}}},
            "slurm-master": {"hosts": ["head"]},
            "slurm-node": {"hosts": ["worker"]},
        },
    )
    running = folder("head", "worker", inventory=inventory).up()
    assert [node.groups[0] for node in running.nodes] == ["slurm-master", "slurm-node"]
    assert running.inventory == inventory
    with pytest.raises(UsageProblem, match=r"names worker, which Vagrantfile .* does not define"):
        folder("head", inventory=inventory).nodes()


def test_a_name_that_says_nothing_is_refused(folder):
    with pytest.raises(UsageProblem, match="What web of Vagrantfile") as caught:
        folder("virtual-login", "web").nodes()
    assert "--deepops-inventory FILE" in caught.value.hint


def test_machines_that_are_down_are_refused_with_the_command(folder, tmp_path):
    made = folder("virtual-login", "virtual-gpu01", state="not_created")
    assert len(made.nodes()) == 2
    with pytest.raises(UsageProblem) as caught:
        made.preflight()
    assert "are up: virtual-login (not created), virtual-gpu01 (not created)." in str(caught.value)
    assert caught.value.hint.startswith(
        f"cd {tmp_path}/mine && VAGRANT_VAGRANTFILE=Vagrantfile-own vagrant up"
    )


def test_what_vagrant_refuses_is_told_in_its_words(folder):
    text = "echo 'There is a syntax error in the following Vagrantfile' >&2; exit 1"
    with pytest.raises(UsageProblem) as caught:
        folder("x", text=text).nodes()
    assert "syntax error" in caught.value.detail


def test_a_file_that_is_not_there_is_refused(folder):
    made = folder("virtual-login")
    made.file.unlink()
    with pytest.raises(UsageProblem, match=r"Vagrantfile '.*Vagrantfile-own' not found"):
        made.nodes()
