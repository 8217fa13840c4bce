"""What a run is about: refused where our own playbooks would make nothing of the cluster."""

import pytest

from deepops_fixtures import subject
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.settings import Settings


def chosen(tmp_path, **given) -> subject.Chosen:
    settings = Settings.load({"reports": tmp_path, **given})
    return subject.Chosen(settings, subject.cluster(settings), tmp_path)


@pytest.mark.parametrize(
    ("cluster", "parts", "said"),
    [
        ("ubuntu-22.04-full", "kubernetes", "one node in group kube_control_plane; cluster"),
        ("ubuntu-24.04-large-slurm", "slurm", "'slurm' wants one node in group slurm-master"),
        ("centos", "slurm", "installs packages of Debian, which cluster 'centos' does not run"),
    ],
)
def test_a_cluster_that_our_playbooks_cannot_make_is_refused(tmp_path, cluster, parts, said):
    with pytest.raises(UsageProblem, match=said):
        chosen(tmp_path, cluster=cluster, parts=parts).refuse_unfit()
    chosen(tmp_path, cluster=cluster, parts=parts, source="none").refuse_unfit()


@pytest.mark.parametrize(
    ("cluster", "parts"),
    [("debian", ""), ("tiny", ""), ("ubuntu-22.04", ""), ("ubuntu-22.04-full", "slurm")],
)
def test_a_cluster_that_they_can_make_is_not(tmp_path, cluster, parts):
    chosen(tmp_path, cluster=cluster, parts=parts).refuse_unfit()


def test_another_box_is_that_of_every_node(tmp_path):
    settings = Settings.load({"cluster": "centos", "box": "almalinux/9"})
    spec = subject.cluster(settings)
    assert spec is not None
    assert (spec.name, spec.box) == ("centos", "almalinux/9")
