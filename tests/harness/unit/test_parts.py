"""Which parts a run is about, what has to be applied for them, which groups its tests see."""

import pytest

from deepops_fixtures import facts, parts
from deepops_fixtures.cluster.running import with_parent_groups
from deepops_fixtures.deploy import sources
from deepops_fixtures.errors import UsageProblem

BOTH = ("slurm", "kubernetes")


class Item:
    """A test, as far as its markers and its fixtures count."""

    def __init__(self, *fixtures, markers=()):
        self.fixturenames = fixtures
        self._markers = markers

    def get_closest_marker(self, name):
        return self if name in self._markers else None


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ([], ()),
        ([Item("deepops", markers=["services"])], ()),
        ([Item("deepops", "slurm")], ("slurm",)),
        ([Item("host", markers=["kubernetes"])], ("kubernetes",)),
        ([Item("host", markers=["kubernetes"]), Item("deepops", "slurm"), Item("host")], BOTH),
    ],
    ids=["no test", "neither", "fixture", "marker", "both"],
)
def test_a_test_names_a_part_by_its_marker_or_its_fixture(items, named):
    assert parts.named_by(items) == named


@pytest.mark.parametrize(
    ("carried", "given", "run"),
    [
        (BOTH, {}, BOTH),
        (BOTH, {"named": ["kubernetes"]}, ("kubernetes",)),
        (["slurm"], {"named": BOTH}, ("slurm",)),
        (["slurm"], {"named": ["kubernetes"]}, ()),
        ([], {"named": BOTH}, ()),
        (BOTH, {"asked": ["slurm"], "named": ["kubernetes"], "deployed": BOTH}, ("slurm",)),
        (BOTH, {"asked": ["kubernetes", "slurm"]}, BOTH),
        (BOTH, {"deployed": ["slurm"], "named": ["kubernetes"]}, ("slurm",)),
        (BOTH, {"deployed": [], "named": ["kubernetes"]}, ("kubernetes",)),
    ],
    ids=["nothing says anything", "tests", "tests want more", "tests want another",
         "nothing carried", "asked for", "asked for in another order", "attached",
         "attached, nothing deployed"],
)  # fmt: skip
def test_the_parts_of_a_run(carried, given, run):
    assert parts.of_run("mine", carried, **given) == run


@pytest.mark.parametrize(
    ("carried", "asked", "said", "hint"),
    [
        (BOTH, "slrum", "carries no part 'slrum'; it carries: slurm, kubernetes.",
         "--deepops-parts slurm,kubernetes"),
        (["slurm"], "kubernetes", "cluster 'mine' carries no part 'kubernetes'; it carries: slurm",
         "--deepops-parts slurm"),
        ([], "slurm", "it carries: none.", "deepops-virtual clusters"),
    ],
    ids=["unknown", "not carried", "nothing carried"],
)  # fmt: skip
def test_a_part_that_the_cluster_does_not_carry_is_refused(carried, asked, said, hint):
    with pytest.raises(UsageProblem) as caught:
        parts.of_run("mine", carried, asked=[asked])
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "there", "applied"),
    [
        (BOTH, (), BOTH),
        (BOTH, ("slurm",), ("kubernetes",)),
        (BOTH, BOTH, ()),
        (("slurm",), BOTH, ()),
        (("kubernetes",), ("slurm",), ("kubernetes",)),
        # Kubernetes has to be told that there is a Slurm controller now.
        (("slurm",), ("kubernetes",), BOTH),
        ((), ("slurm",), ()),
    ],
)
def test_what_is_missing_is_applied_and_what_comes_after_it(wanted, there, applied):
    assert parts.to_apply(wanted, there) == applied


def test_the_groups_of_absent_parts_are_hidden():
    hidden = parts.hidden_groups(["kubernetes"], BOTH)
    assert hidden == set(facts.PART_GROUPS["slurm"])
    assert parts.hidden_groups(BOTH, BOTH) == frozenset()
    assert parts.hidden_groups([], ["slurm"]) == set(facts.GROUPS)


def test_on_a_cluster_that_carries_no_part_no_group_is_hidden():
    assert parts.hidden_groups([], []) == frozenset()


def test_every_group_belongs_to_one_part():
    groups = [group for part in facts.PARTS for group in facts.PART_GROUPS[part]]
    assert sorted(groups) == sorted(facts.GROUPS)


@pytest.mark.parametrize(
    ("groups", "whole"),
    [
        (["slurm-node"], ["slurm-node", "slurm-cluster"]),
        (["kube_node"], ["kube_node", "k8s_cluster"]),
        (["kube_control_plane", "slurm-login"],
         ["kube_control_plane", "slurm-login", "slurm-cluster", "k8s_cluster"]),
        (["etcd"], ["etcd"]),
        (["kube_node", "k8s_cluster"], ["kube_node", "k8s_cluster"]),
    ],
    ids=str,
)  # fmt: skip
def test_parent_groups_are_those_of_deepops(groups, whole):
    assert with_parent_groups(groups) == whole


def test_why_a_test_has_no_node_is_told():
    assert parts.why_hidden(["kubernetes"], ["slurm-node"]) == (
        "this run deploys kubernetes alone: no node is in group slurm-node"
    )
    assert parts.why_hidden([], ["slurm-node", "kube_node"]) == (
        "this run deploys nothing: no node is in group slurm-node or kube_node"
    )


# -- their playbooks ------------------------------------------------------------------------


@pytest.fixture
def playbooks(tmp_path, monkeypatch):
    """A folder of playbooks in the place of the project's own."""
    for name in facts.PARTS.values():
        (tmp_path / name).write_text("- hosts: all\n")
    monkeypatch.setattr(sources.resources, "playbooks", lambda: tmp_path)
    return tmp_path


def told(found) -> list[tuple[str, list[str]]]:
    return [(source.playbook.name, source.extra_vars["deepops_parts"]) for source in found]


def test_each_playbook_is_told_what_is_on_the_cluster_when_it_is_done(playbooks):
    assert told(sources.find("distro", ["kubernetes", "slurm"])) == [
        ("slurm-cluster.yml", ["slurm"]),
        ("k8s-cluster.yml", ["slurm", "kubernetes"]),
    ]
    assert told(sources.find("distro", ["kubernetes"])) == [("k8s-cluster.yml", ["kubernetes"])]
    assert told(sources.find("distro", ["kubernetes"], ["slurm"])) == [
        ("k8s-cluster.yml", ["slurm", "kubernetes"])
    ]


def test_slurm_is_made_from_the_same_whatever_is_put_on_top(playbooks):
    both, alone = sources.find("distro", BOTH), sources.find("distro", ["slurm"])
    assert sources.inputs_of(both[:1]) == sources.inputs_of(alone)
    assert sources.inputs_of(both)["deploy source"] == {
        "slurm": "slurm-cluster.yml of distro",
        "kubernetes": "k8s-cluster.yml of distro",
    }


def test_kubernetes_on_top_of_slurm_is_made_from_other_things_than_alone(playbooks):
    both, alone = sources.find("distro", BOTH), sources.find("distro", ["kubernetes"])
    on_top, by_itself = sources.inputs_of(both[1:]), sources.inputs_of(alone)
    assert on_top["deploy variables"] != by_itself["deploy variables"]


def test_nothing_is_deployed_where_there_is_no_source_or_no_part(playbooks):
    assert sources.find("none", BOTH) == sources.find("distro", []) == ()
    assert sources.told(()) == ""


def test_a_playbook_that_is_not_there_is_refused(playbooks):
    (playbooks / "k8s-cluster.yml").unlink()
    with pytest.raises(UsageProblem, match="no playbook for part 'kubernetes' from source 'dist"):
        sources.find("distro", BOTH)
