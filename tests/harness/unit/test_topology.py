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
        ("[slurm-master]", "[slurm-node]", "needs at least one node in group slurm-master"),
        ("cpus: 2", "cpus: [", "/mine.yml:"),
    ],
    ids=["memory", "cpus", "typo", "group", "address", "name", "box", "subnet", "node", "master",
         "yaml"],
)  # fmt: skip
def test_an_error_names_file_line_and_field(tmp_path, old, new, said):
    assert old in GOOD
    assert said in refused(tmp_path, GOOD.replace(old, new))


BOTH = """\
box: debian12
deployment: {deployment}
nodes:
  virtual-login:
    groups: [slurm-master]
    cpus: 1
    memory: 512
    disk: 8
    address: 11
  virtual-mgmt:
    groups: [kube_control_plane, etcd, kube_node, slurm-node]
    cpus: 2
    memory: 512
    disk: 8
    address: 12
"""


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("slurm", ["slurm"]),
        ("kubernetes", ["kubernetes"]),
        ("none", []),
        ("[]", []),
        ("[slurm]", ["slurm"]),
        ("[kubernetes, slurm]", ["slurm", "kubernetes"]),
    ],
)
def test_a_cluster_carries_one_part_or_several_or_none(tmp_path, written, parts):
    path = tmp_path / "mine.yml"
    path.write_text(BOTH.format(deployment=written))
    spec = topology.load(str(path))
    assert spec.deployment == parts
    assert topology.ClusterSpec.model_validate_json(spec.model_dump_json()) == spec


def test_where_no_part_is_named_it_is_slurm(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(GOOD)
    assert topology.load(str(path)).deployment == ["slurm"]


@pytest.mark.parametrize(
    ("written", "without", "said"),
    [
        ("slrum", "", "/mine.yml:2: deployment.0: 'slrum' is not a part of DeepOps; known: slurm"),
        ("[slurm, nomad]", "", "/mine.yml:2: deployment.1: 'nomad' is not a part of DeepOps"),
        ("[none]", "", "/mine.yml:2: deployment.0: 'none' is not a part of DeepOps"),
        ("7", "", "/mine.yml:2: deployment: Input should be a valid list"),
        ("[slurm, kubernetes]", "kube_control_plane, ",
         "deployment 'kubernetes' needs at least one node in group kube_control_plane"),
        ("kubernetes", "etcd, ",
         "/mine.yml:3: nodes: deployment 'kubernetes' needs at least one node in group etcd"),
        ("kubernetes", "kube_node, ",
         "/mine.yml:3: nodes: deployment 'kubernetes' needs at least one node in group kube_node"),
        ("slurm", ", slurm-node",
         "/mine.yml:3: nodes: deployment 'slurm' needs at least one node in group slurm-node"),
    ],
    ids=["typo", "second", "none", "number", "control plane", "etcd", "kube_node", "slurm-node"],
)  # fmt: skip
def test_a_part_without_its_nodes_and_an_unknown_one_are_refused(tmp_path, written, without, said):
    text = BOTH.format(deployment=written)
    assert without in text
    assert said in refused(tmp_path, text.replace(without, "", 1) if without else text)


def test_an_empty_file_is_refused(tmp_path):
    assert "a cluster file is a mapping" in refused(tmp_path, "")


def test_an_unknown_cluster_names_those_there_are():
    with pytest.raises(UsageProblem) as caught:
        topology.load("centaur")
    assert "no cluster named 'centaur'" in caught.value.message
    assert "debian" in caught.value.hint
