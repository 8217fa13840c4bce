"""Cluster files that extend others: what comes of it, and where an error is said to be."""

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.errors import UsageProblem

BASE = """\
name: base
description: Two guests
box: debian12
nodes:
  virtual-login:
    groups: [slurm-master]
    cpus: 1
    memory: 512
    disk: 8
    address: 11
  virtual-gpu01:
    groups: [slurm-node]
    cpus: 2
    memory: 512
    disk: 8
    address: 12
"""


@pytest.fixture
def load(tmp_path):
    """Write the base, and a file on top of it; load the latter."""
    (tmp_path / "base.yml").write_text(BASE)

    def load(text: str, **given) -> topology.ClusterSpec:
        (tmp_path / "mine.yml").write_text(text)
        return topology.load(str(tmp_path / "mine.yml"), **given)

    return load


def refused(load, text: str, tmp_path) -> str:
    with pytest.raises(UsageProblem) as caught:
        load(text)
    return caught.value.message.replace(f"{tmp_path}/", "")


def test_what_a_file_does_not_say_is_the_others(load):
    spec = load("extends: ./base.yml\nbox: almalinux/9\n")
    base = load("extends: ./base.yml\n")
    assert (spec.name, spec.box, spec.description) == ("mine", "almalinux/9", "Two guests")
    assert spec.nodes == base.nodes


def test_nodes_are_joined_field_by_field(load):
    spec = load("extends: base.yml\nnodes:\n  virtual-gpu01: {memory: 4096}\n")
    assert (spec.nodes["virtual-gpu01"].memory, spec.nodes["virtual-gpu01"].cpus) == (4096, 2)
    assert spec.nodes["virtual-login"].memory == 512


def test_a_node_can_be_added_or_left_out(load):
    added = load(
        "extends: base.yml\nnodes:\n  virtual-gpu01:\n  virtual-gpu02:\n"
        "    {groups: [slurm-node], cpus: 1, memory: 512, disk: 8, address: 13}\n"
    )
    assert list(added.nodes) == ["virtual-login", "virtual-gpu02"]


def test_a_file_may_extend_one_that_extends_another(load, tmp_path):
    (tmp_path / "middle.yml").write_text("extends: base.yml\ndescription: Middle\n")
    spec = load("extends: middle.yml\nsubnet: 10.20.30.0/24\n")
    assert (spec.name, spec.description, spec.subnet) == ("mine", "Middle", "10.20.30.0/24")


def test_a_cluster_of_the_project_is_extended_by_its_name(load):
    spec = load("extends: debian\nnodes:\n  virtual-gpu01: {memory: 4096}\n")
    assert spec.nodes["virtual-gpu01"].memory == 4096
    assert spec.deployment == ["slurm", "kubernetes"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("box: x\nextends: nobody\n", "mine.yml:2: extends: There is no cluster named 'nobody'."),
        ("extends: ./other.yml\n", "mine.yml:1: extends: File 'other.yml' not found."),
        ("extends: [base.yml]\n", "mine.yml:1: extends: '['base.yml']' is not the name"),
        ("extends: ''\n", "mine.yml:1: extends: '' is not the name"),
        ("extends: mine.yml\n", "mine.yml:1: extends: 'mine.yml' leads back to 'mine.yml'."),
        ("extends: base.yml\nnodes:\n  virtual-gpu01: {cpus: 0}\n",
         "mine.yml:3: nodes.virtual-gpu01.cpus: "),
        ("extends: base.yml\nnodes:\n  virtual-gpu01: {address: 11}\n",
         "'virtual-gpu01' has the address of 'virtual-login': 11"),
        ("extends: base.yml\nnodes:\n  virtual-new: {cpus: 1}\n",
         "mine.yml:3: nodes.virtual-new.memory: Field required"),
        ("extends: base.yml\nnodes:\n  virtual-gpu01:\n", "needs at least one node in group"),
    ],
    ids=["unknown", "no file", "list", "empty", "itself", "value", "address", "missing",
         "left out"],
)  # fmt: skip
def test_an_error_is_where_it_was_written(load, tmp_path, text, said):
    assert said in refused(load, text, tmp_path)


def test_an_error_in_the_extended_file_names_that_file(load, tmp_path):
    (tmp_path / "base.yml").write_text(BASE.replace("cpus: 2", "cpus: 0"))
    said = refused(load, "extends: base.yml\nnodes:\n  virtual-gpu01: {memory: 1024}\n", tmp_path)
    assert said.startswith("base.yml:13: nodes.virtual-gpu01.cpus: ")


def test_two_files_that_extend_one_another_are_refused(load, tmp_path):
    (tmp_path / "base.yml").write_text("extends: mine.yml\n")
    said = refused(load, "extends: base.yml\n", tmp_path)
    assert said == "base.yml:1: extends: 'mine.yml' leads back to 'mine.yml'."


def test_a_vagrantfile_lies_in_the_project_or_beside_the_clusters_file(load, tmp_path):
    own = tmp_path / "Vagrantfile-own"
    own.write_text("# reads DEEPOPS_INSTANCE\n")
    (tmp_path / "base.yml").write_text(f"vagrantfile: ./Vagrantfile-own\n{BASE}")
    assert load("extends: base.yml\n").vagrantfile == str(own)
    spec = load("extends: base.yml\nvagrantfile: Vagrantfile-centos\n")
    assert spec.vagrantfile == "Vagrantfile-centos"
    said = refused(load, "extends: base.yml\nvagrantfile: ./Vagrantfile-none\n", tmp_path)
    assert said == "mine.yml:2: vagrantfile: 'Vagrantfile-none' not found."


def test_another_box_counts_over_the_files(load):
    assert load("extends: base.yml\nbox: generic/rocky9\n", box="almalinux/9").box == "almalinux/9"


@pytest.mark.parametrize("system", ["ubuntu-22.04", "ubuntu-24.04", "centos"])
def test_deepops_has_its_three_clusters_on_each_system(system):
    small, full, large = (
        topology.load(f"{system}{kind}") for kind in ("", "-full", "-large-slurm")
    )
    assert list(small.nodes) == ["virtual-login", "virtual-mgmt", "virtual-gpu01"]
    assert len(full.members("kube_control_plane")) == 3
    assert full.gpu_nodes == large.gpu_nodes == ["virtual-gpu01", "virtual-gpu02"]
    assert large.members("slurm-master") == ["virtual-wm01", "virtual-wm02"]
    assert large.deployment == ["slurm"]
    assert len({spec.box for spec in (small, full, large)}) == 1
    assert small.vagrantfile == f"Vagrantfile-{system.partition('-')[0]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("day: 2020-13-45\n", "mine.yml: not YAML: month must be in 1..12."),
        ("a: " + "[" * 5000 + "\n", "mine.yml: too deeply nested to be read."),
        ("a: [1\n", "mine.yml:2:1: not YAML: "),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_in_one_sentence(load, tmp_path, text, said):
    assert refused(load, text, tmp_path).startswith(said)


def test_a_folder_is_no_cluster_file(tmp_path):
    with pytest.raises(UsageProblem, match="' is a folder"):
        topology.load(f"{tmp_path}/", "")
