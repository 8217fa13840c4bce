"""How a rehearsal puts the parts of DeepOps on a cluster: from which checkpoint, with which
playbooks, what is kept after each, what its ledger says. Machines and Ansible are fakes."""

import json

import pytest

from deepops_fixtures import applying, rehearsal, reuse, subject, upgrade
from deepops_fixtures.cluster import restoring, taking
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.deploy import sources
from deepops_fixtures.errors import DeployError, StageFailed, UsageProblem
from tests.harness.unit.rehearsals import Host, Machines
from tests.harness.unit.runs import BOTH, KUBERNETES, SLURM


@pytest.fixture
def host(book, ledger, keep, tmp_path, monkeypatch):
    host = Host(book, ledger, keep, tmp_path)
    playbooks = tmp_path / "playbooks"
    playbooks.mkdir()
    for name in ("slurm-cluster.yml", "k8s-cluster.yml"):
        (playbooks / name).write_text("- hosts: all\n")
    machines = type("FakeMachines", (Machines,), {"host": host})
    monkeypatch.setattr(sources.resources, "playbooks", lambda: playbooks)
    monkeypatch.setattr(rehearsal, "VagrantProvider", machines)
    monkeypatch.setattr(rehearsal.doctor, "preflight", lambda *_: [])
    monkeypatch.setattr(rehearsal.doctor, "refuse_unready", lambda *_: None)
    monkeypatch.setattr(applying, "Deployment", host.deployment)
    monkeypatch.setattr(applying, "Artifact", host.artifact)
    monkeypatch.setattr(taking, "take", host.take)
    monkeypatch.setattr(restoring, "restore", host.restore)
    monkeypatch.setattr(restoring, "obstacle", lambda *_: "")
    monkeypatch.setattr(reuse.os, "sync", lambda: None)
    return host


def kept(made) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.stage, tuple(item.parts)) for item in made.store.all()]


# -- from the box ---------------------------------------------------------------------------


def test_the_parts_are_applied_one_after_the_other_and_each_is_kept(host):
    made = host.rehearse()
    made.ensure_deployed()
    assert host.applied == [("slurm", ["slurm"]), ("kubernetes", ["slurm", "kubernetes"])]
    assert kept(made) == [("up", ()), ("deployed", SLURM), ("deployed", BOTH)]
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])
    assert made.ensure_baseline().parts == ["slurm", "kubernetes"]


def test_what_a_playbook_brings_along_is_made_before_the_machines_are(host):
    host.rehearse(["kubernetes"]).ensure_deployed()
    assert host.order[:3] == ["kubernetes-debian12", "images-debian12", "up"]
    assert host.given["kubernetes"]["deepops_kubernetes_artifact"] == "/made/kubernetes-debian12"


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["kubernetes_archive=/vendor.tar.gz"], ["images-debian12"]),
        (['{"kubernetes_image_archives": ["/mine.tar"]}'], ["kubernetes-debian12"]),
    ],
)
def test_what_a_user_brings_along_is_not_made(host, words, made):
    host.rehearse(["kubernetes"], extra_vars=words).ensure_deployed()
    assert host.order[: len(made) + 1] == [*made, "up"]
    given = host.given["kubernetes"]
    assert given["deepops_parts"] == ["kubernetes"]
    assert {"kubernetes_archive", "kubernetes_image_archives"} & set(given)


def test_slurm_alone_brings_nothing_along(host):
    host.rehearse(["slurm"]).ensure_deployed()
    assert host.order == ["up"]
    assert set(host.given["slurm"]) == {"deepops_parts"}


def test_an_airgapped_cluster_is_brought_its_packages_too(host):
    host.rehearse(airgap=True).ensure_deployed()
    made = ["kubernetes-debian12", "images-debian12", "packages-debian12"]
    assert host.order[:4] == [*made, "up"]
    for part in BOTH:
        assert host.given[part]["deepops_packages_artifact"] == "/made/packages-debian12"
    assert "deepops_kubernetes_artifact" not in host.given["slurm"]


def test_only_the_part_that_the_tests_name_is_applied(host):
    made = host.rehearse(["kubernetes"])
    made.ensure_deployed()
    assert host.applied == [("kubernetes", ["kubernetes"])]
    assert kept(made) == [("up", ()), ("deployed", KUBERNETES)]
    assert host.parts() == ("deployed", ["kubernetes"])


def test_a_part_that_is_asked_for_counts_more_than_what_tests_name(host):
    host.rehearse(["kubernetes"], parts="slurm").ensure_deployed()
    assert host.applied == [("slurm", ["slurm"])]


def test_where_the_second_part_fails_the_first_is_kept_and_known(host):
    host.fails.add("kubernetes")
    made = host.rehearse()
    with pytest.raises(DeployError):
        made.ensure_deployed()
    assert kept(made) == [("up", ()), ("deployed", SLURM)]
    assert host.parts() == ("deployed", ["slurm"])
    with pytest.raises(StageFailed, match="The cluster could not be deployed: It failed"):
        made.ensure_deployed()


def test_nobody_goes_back_to_a_cluster_without_the_last_part(host, monkeypatch):
    made = host.rehearse()
    take = host.take

    def none_of_both(*arguments):
        if arguments[-1] == BOTH:
            raise DeployError("No room.")
        return take(*arguments)

    monkeypatch.setattr(taking, "take", none_of_both)
    made.ensure_deployed()
    assert made.ensure_baseline().stage == "here"


def test_what_is_edited_under_the_first_part_is_in_no_checkpoint(host, monkeypatch):
    made = host.rehearse()
    deployment = host.deployment

    def edits(running, source, *rest, **more):
        playbook = host.folder / "playbooks" / "slurm-cluster.yml"
        playbook.write_text("- hosts: all\n  become: true\n")
        return deployment(running, source, *rest, **more)

    monkeypatch.setattr(applying, "Deployment", edits)
    made.ensure_deployed()
    assert kept(made) == [("up", ())]
    assert [part for part, _ in host.applied] == ["slurm", "kubernetes"]


def test_none_is_kept_where_none_is_wanted(host):
    made = host.rehearse(reuse="never")
    made.ensure_deployed()
    assert kept(made) == []
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])


# -- what this host cannot bring along ------------------------------------------------------


@pytest.fixture
def rocky(host):
    """The cluster's file, with another box in it."""
    path = host.folder / "mine.yml"
    path.write_text(path.read_text().replace("debian12", "generic/rocky9"))
    return host


@pytest.mark.parametrize(
    ("named", "settings", "said"),
    [
        (["slurm"], {"airgap": True}, "No store of packages can be made for box 'generic/rocky9'"),
        (["kubernetes"], {}, "There are no Kubernetes binaries for box 'generic/rocky9'"),
        (["kubernetes"], {"airgap": True}, "No store of packages can be made for box 'generic/r"),
    ],
    ids=["packages", "binaries", "both"],
)
def test_a_box_that_nothing_can_be_brought_to_is_refused_before_anything_is_made(
    rocky, named, settings, said
):
    with pytest.raises(UsageProblem, match=said) as told:
        rocky.rehearse(named, **settings).ensure_deployed()
    assert "box is 'debian12'" in told.value.hint
    assert rocky.order == []


@pytest.mark.parametrize(
    ("named", "settings"),
    [(["slurm"], {}), (["slurm"], {"airgap": True, "source": "none"})],
    ids=["Slurm", "nothing is deployed"],
)
def test_where_nothing_needs_to_be_brought_any_box_will_do(rocky, named, settings):
    rocky.rehearse(named, **settings).ensure_deployed()
    assert rocky.order == ["up"]


def test_playbooks_of_deepops_itself_are_refused_with_what_would_have_to_be_mirrored(tmp_path):
    checkout = sources.PlaybookSource(name="deepops", playbook=tmp_path / "slurm-cluster.yml")
    applying.refuse_unprovided("debian12", [checkout], airgap=False)
    with pytest.raises(UsageProblem, match=r"would need mirrors.*Helm charts") as told:
        applying.refuse_unprovided("debian12", [checkout], airgap=True)
    assert told.value.hint.startswith("--deepops-source distro")


def test_kubernetes_of_an_archive_needs_no_binaries_of_this_host(tmp_path):
    source = sources.PlaybookSource(
        name="distro",
        playbook=tmp_path / "k8s-cluster.yml",
        extra_vars={"kubernetes_archive": "/srv/kubernetes-server-linux-amd64.tar.gz"},
        part="kubernetes",
    )
    applying.refuse_unprovided("generic/rocky9", [source], airgap=False)


# -- from a checkpoint ----------------------------------------------------------------------


@pytest.fixture
def earlier(host):
    """Return a function that lets a run for these parts have been."""

    def run(*named):
        host.rehearse(named).ensure_deployed()
        host.gone()
        host.applied.clear()

    return run


def test_a_run_for_both_starts_from_both_and_applies_nothing(host, earlier):
    earlier()
    made = host.rehearse()
    made.ensure_deployed()
    assert (host.restored, host.applied) == (["mine-3-deployed-slurm-kubernetes"], [])
    assert made.origin.startswith("restored from checkpoint 'mine-3-deployed-slurm-kubernetes'")
    assert "(stage 'deployed: slurm, kubernetes', " in made.origin


def test_a_run_for_both_puts_kubernetes_on_the_slurm_of_a_run_for_slurm_alone(host, earlier):
    earlier("slurm")
    made = host.rehearse()
    made.ensure_deployed()
    assert host.restored == ["mine-2-deployed-slurm"]
    assert host.applied == [("kubernetes", ["slurm", "kubernetes"])]
    assert kept(made)[-1] == ("deployed", BOTH)
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])


def test_a_run_for_slurm_starts_from_the_slurm_of_a_run_for_both(host, earlier):
    earlier()
    host.rehearse(["slurm"]).ensure_deployed()
    assert (host.restored, host.applied) == (["mine-2-deployed-slurm"], [])
    assert host.parts() == ("deployed", ["slurm"])


def test_a_run_for_kubernetes_starts_from_the_machines_and_not_from_slurm(host, earlier):
    earlier("slurm")
    host.rehearse(["kubernetes"]).ensure_deployed()
    assert host.restored == ["mine-1-up"]
    assert host.applied == [("kubernetes", ["kubernetes"])]


def test_what_is_missing_in_the_checkpoint_is_made_before_its_machines_come_back(
    host, earlier, monkeypatch
):
    earlier("slurm")
    restore = host.restore
    monkeypatch.setattr(
        restoring,
        "restore",
        lambda *given, **more: host.order.append("back") or restore(*given, **more),
    )
    host.order.clear()
    host.rehearse().ensure_deployed()
    assert host.order[:3] == ["kubernetes-debian12", "images-debian12", "back"]
    host.gone()
    host.order.clear()
    host.rehearse().ensure_deployed()
    assert host.order == ["back"]


def test_a_run_that_wants_the_machines_alone_gets_them(host, earlier):
    earlier()
    made = host.rehearse(target="up")
    made.ensure_up()
    assert host.restored == ["mine-1-up"]
    assert made.stages.outcome("deployed") is None


def test_required_is_all_that_is_wanted(host, earlier):
    earlier("slurm")
    host.rehearse(["slurm"], reuse="require").preflight()
    with pytest.raises(UsageProblem, match=r"No checkpoint of stage 'deployed' \(slurm, kuber"):
        host.rehearse(reuse="require").preflight()


def test_an_attached_cluster_is_airgapped_or_not_by_its_ledger(host):
    host.attach()
    made = host.rehearse(["slurm"], attach="mine", airgap=True)
    with pytest.raises(UsageProblem, match="'mine' is not airgapped: its network has a way out"):
        made.preflight()
    host.book.update("mine", airgap=True)
    host.rehearse(["slurm"], attach="mine").ensure_deployed()
    assert host.given["slurm"]["deepops_packages_artifact"] == "/made/packages-debian12"


# -- twice ----------------------------------------------------------------------------------


def test_every_part_is_applied_twice_where_that_is_asked(host, earlier):
    host.rehearse(idempotence=True).ensure_deployed()
    assert host.checked == ["slurm", "kubernetes"]
    host.gone()
    host.rehearse(idempotence=True).ensure_deployed()
    assert host.checked == ["slurm", "kubernetes"] * 2
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])


def test_a_part_that_changes_something_again_is_not_counted_as_deployed(host):
    host.restless.add("kubernetes")
    with pytest.raises(DeployError):
        host.rehearse(idempotence=True).ensure_deployed()
    assert host.parts() == ("up", [])


# -- a cluster that was there before --------------------------------------------------------


def test_on_an_attached_cluster_what_is_missing_is_applied(host):
    host.attach("slurm")
    made = host.rehearse(attach="mine", parts="slurm,kubernetes")
    made.ensure_deployed()
    assert host.applied == [("kubernetes", ["slurm", "kubernetes"])]
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])
    assert kept(made) == []


def test_an_attached_cluster_is_what_its_ledger_says(host):
    host.attach("slurm")
    made = host.rehearse(["kubernetes"], attach="mine")
    made.ensure_deployed()
    assert (made.chosen.parts, host.applied) == (("slurm",), [])


def test_on_an_attached_cluster_without_anything_what_the_tests_name_is_applied(host):
    host.attach()
    host.rehearse(["kubernetes"], attach="mine").ensure_deployed()
    assert host.applied == [("kubernetes", ["kubernetes"])]
    assert host.parts() == ("deployed", ["kubernetes"])


def test_kubernetes_is_applied_again_where_slurm_comes_under_it(host):
    host.attach("kubernetes")
    host.rehearse(attach="mine", parts="slurm").ensure_deployed()
    assert [part for part, _ in host.applied] == ["slurm", "kubernetes"]
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])


@pytest.mark.parametrize(
    ("asked", "applied"),
    [("", ["slurm", "kubernetes"]), ("slurm", ["slurm"]), ("kubernetes", ["kubernetes"])],
    ids=["all", "slurm", "kubernetes"],
)
def test_deploying_again_applies_all_or_what_is_asked_for(host, asked, applied):
    host.attach("slurm", "kubernetes")
    host.rehearse(attach="mine", parts=asked).deploy_again()
    assert [part for part, _ in host.applied] == applied
    assert host.parts() == ("deployed", ["slurm", "kubernetes"])


# -- what tests see -------------------------------------------------------------------------


def groups(running) -> dict[str, list[str]]:
    return {node.name: node.groups for node in running.nodes}


def test_the_groups_of_a_part_that_is_not_deployed_are_hidden_from_the_tests(host):
    made = host.rehearse(["slurm"])
    expected = {
        "virtual-login": ["slurm-master", "slurm-cluster"],
        "virtual-mgmt": ["slurm-node", "slurm-cluster"],
    }
    assert groups(made.ensure_deployed()) == expected
    seen = RunningCluster.model_validate_json((made.run_dir / "cluster.json").read_text())
    assert groups(seen) == expected
    assert made.planned_nodes()[1].groups == groups(host.running)["virtual-mgmt"]


def test_a_later_run_sees_the_groups_that_the_checkpoints_run_hid(host, earlier):
    earlier("slurm")
    assert groups(host.rehearse().ensure_deployed()) == groups(host.running)


def test_on_an_attached_cluster_they_are_hidden_too_and_on_its_disk_they_stay(host):
    host.attach("kubernetes")
    made = host.rehearse(attach="mine")
    assert groups(made.ensure_up())["virtual-login"] == []
    kept_there = json.loads((host.book.path("mine") / "cluster.json").read_text())
    assert kept_there["nodes"][0]["groups"] == ["slurm-master", "slurm-cluster"]


def test_hosts_that_are_checked_as_they_are_hide_nothing(host):
    made = host.rehearse(["slurm"], source="none")
    assert groups(made.ensure_deployed()) == groups(host.running)
    assert host.applied == []


def test_a_process_that_knows_no_tests_reads_the_parts_from_the_runs_folder(host):
    made = host.rehearse(["kubernetes"])
    controller = rehearsal.Rehearsal(made.settings, made.run_dir).chosen
    assert (controller.parts, controller.known) == (BOTH, False)
    made.ensure_up()
    assert (controller.parts, controller.known) == (KUBERNETES, True)


# -- upgrades -------------------------------------------------------------------------------


@pytest.fixture
def upgrading(host, monkeypatch):
    """Return a run that upgrades; both of its sources are the distribution's playbooks."""
    monkeypatch.setattr(subject.Chosen, "source", "distro")
    monkeypatch.setattr(upgrade, "refuse_source", lambda *_: None)
    return lambda **settings: host.rehearse(["slurm"], upgrade_from="26.05", **settings)


def test_an_upgrade_is_applied_on_top_and_never_kept_as_a_checkpoint(host, upgrading):
    made = upgrading()
    made.ensure_deployed()
    before = kept(made)
    made.ensure_upgraded()
    made.ensure_upgraded()
    assert [part for part, _ in host.applied] == ["slurm", "slurm"]
    assert host.onto == [[], ["slurm of 26.05"]]
    assert kept(made) == before == [("up", ()), ("deployed", SLURM)]
    # What the cluster is put back to from now on is the upgraded one.
    assert made.ensure_baseline().stage == "here"


def test_an_upgrade_starts_from_a_checkpoint_of_what_comes_first(host, upgrading):
    upgrading().ensure_deployed()
    host.gone()
    made = upgrading()
    made.ensure_upgraded()
    assert host.restored
    assert [part for part, _ in host.applied] == ["slurm", "slurm"]


def test_idempotence_is_asked_of_what_the_upgrade_ends_with(host, upgrading):
    made = upgrading(idempotence=True)
    made.ensure_deployed()
    assert host.checked == []
    made.ensure_upgraded()
    assert host.checked == ["slurm"]


def test_an_upgrade_that_fails_breaks_the_cluster_with_its_reason(host, upgrading):
    made = upgrading()
    made.ensure_deployed()
    host.fails.add("slurm")
    with pytest.raises(DeployError):
        made.ensure_upgraded()
    with pytest.raises(StageFailed):
        made.ensure_upgraded()
    assert made.stages.failure_reason() == "The cluster could not be upgraded: It failed."
