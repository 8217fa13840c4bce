"""Cluster files: what is accepted, and where an error is said to be."""

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.errors import UsageProblem

GOOD = """\
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


def refused(tmp_path, text: str) -> str:
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(UsageProblem) as caught:
        topology.load(str(path))
    return caught.value.message.replace(str(tmp_path), "")


def test_a_cluster_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(GOOD)
    spec = topology.load(str(path))
    assert (spec.name, list(spec.nodes), spec.memory) == (
        "mine",
        ["virtual-login", "virtual-gpu01"],
        1024,
    )
    assert spec.members("slurm-node") == ["virtual-gpu01"]


@pytest.mark.parametrize("name", topology.available())
def test_every_cluster_of_the_project_is_valid(name):
    assert topology.load(name).nodes


def test_debian_has_the_three_nodes_of_deepops_virtual():
    names = list(topology.load("debian").nodes)
    assert names == ["virtual-login", "virtual-mgmt", "virtual-gpu01"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("memory: 512\n    disk: 8\n    address: 12", "memory: lots\n    disk: 8\n    address: 12",
         "/mine.yml:12: nodes.virtual-gpu01.memory: "),
        ("cpus: 2", "cpus: 0", "/mine.yml:11: nodes.virtual-gpu01.cpus: "),
        ("cpus: 2", "cpu: 2", "/mine.yml:11: nodes.virtual-gpu01.cpu: Extra inputs"),
        ("[slurm-node]", "[slurm-nod]", "/mine.yml:10: nodes.virtual-gpu01.groups.0: 'slurm-nod'"),
        ("address: 12", "address: 11", "has the address of 'virtual-login': 11"),
        ("virtual-gpu01", "virtual_gpu01", "'virtual_gpu01' is not a host name"),
        ("box: debian12\n", "", "box: Field required"),
        ("nodes:", "subnet: 8.8.8.0/24\nnodes:", "/mine.yml:2: subnet: a private IPv4 network"),
        ("[slurm-node]", "[]", "needs at least one node in group slurm-node"),
        ("[slurm-master]", "[slurm-node]", "needs one node in group slurm-master, not 0"),
        ("cpus: 2", "cpus: [", "/mine.yml:"),
    ],
    ids=["memory", "cpus", "typo", "group", "address", "name", "box", "subnet", "node", "master",
         "yaml"],
)  # fmt: skip
def test_an_error_names_file_line_and_field(tmp_path, old, new, said):
    assert old in GOOD
    assert said in refused(tmp_path, GOOD.replace(old, new))


def test_an_empty_file_is_refused(tmp_path):
    assert "a cluster file is a mapping" in refused(tmp_path, "")


def test_an_unknown_cluster_names_those_there_are():
    with pytest.raises(UsageProblem) as caught:
        topology.load("centaur")
    assert "no cluster named 'centaur'" in caught.value.message
    assert "debian" in caught.value.hint
