"""A rehearsal whose playbooks are a checkout's: what is prepared when, what its ledger says of
single playbooks, what a checkpoint of it is good for. Machines and Ansible are fakes."""

import pytest

from deepops_fixtures import applying, rehearsal, reuse
from deepops_fixtures.applying import history
from deepops_fixtures.cluster import restoring, taking
from deepops_fixtures.deepops.driving import Driving
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.settings import option
from tests.harness.unit import checkouts
from tests.harness.unit.rehearsals import Host, Machines

SLURM = ("slurm",)
HOSTS = ("generic/hosts.yml",)


@pytest.fixture
def host(book, ledger, keep, tmp_path, monkeypatch):
    host = Host(book, ledger, keep, tmp_path)
    host.checkout = checkouts.repository(tmp_path / "deepops")
    machines = type("FakeMachines", (Machines,), {"host": host})
    monkeypatch.setattr(rehearsal, "VagrantProvider", machines)
    monkeypatch.setattr(rehearsal.doctor, "preflight", lambda *_: [])
    monkeypatch.setattr(rehearsal.doctor, "refuse_unready", lambda *_: None)
    monkeypatch.setattr(applying, "Deployment", host.deployment)
    monkeypatch.setattr(applying, "Artifact", host.artifact)
    monkeypatch.setattr(applying.readying, "ready", lambda *_: host.order.append("ready"))
    monkeypatch.setattr(taking, "take", host.take)
    monkeypatch.setattr(restoring, "restore", host.restore)
    monkeypatch.setattr(restoring, "obstacle", lambda *_: "")
    monkeypatch.setattr(reuse.os, "sync", lambda: None)
    monkeypatch.setattr(Driving, "prepare", lambda _self, _journal: host.order.append("ansible"))
    return host


@pytest.fixture
def rehearse(host, tmp_path):
    def rehearse(*playbook, **settings):
        settings.setdefault("source", str(host.checkout))
        return host.rehearse(SLURM, playbook=playbook, cache_dir=tmp_path / "cache", **settings)

    return rehearse


def pieces(host):
    return host.book.get("mine").pieces


def test_its_ansible_is_there_before_the_machines_are(host, rehearse):
    rehearse().ensure_deployed()
    assert host.order.index("ansible") < host.order.index("up") < host.order.index("ready")


def test_what_cannot_be_had_is_refused_before_anything_is_created(host, rehearse, monkeypatch):
    def refuse(*_):
        raise UsageProblem("Galaxy cannot be had.")

    monkeypatch.setattr(Driving, "prepare", refuse)
    with pytest.raises(UsageProblem, match="Galaxy"):
        rehearse().ensure_deployed()
    assert "up" not in host.order


def test_the_ledger_says_which_pieces_single_playbooks_have_put_there(host, rehearse):
    made = rehearse(*HOSTS)
    made.ensure_deployed()
    assert host.parts() == ("deployed", ["slurm"])
    assert pieces(host) == {"slurm": ["hosts"]}
    assert made.chosen.scope.why_not(["nfs"]) == "NFS: no playbook of this run deploys it"
    assert made.chosen.scope.why_not(["hosts"]) == ""


def test_a_run_attached_to_it_knows_them_too(host, rehearse):
    host.attach("slurm")
    host.book.update("mine", pieces={"slurm": ["hosts"]})
    scope = host.rehearse(SLURM, attach="mine").chosen.scope
    assert scope.why_not(["slurm"]) == "Slurm: no playbook of this run deploys it"
    host.book.update("mine", pieces={})
    assert host.rehearse(SLURM, attach="mine").chosen.scope.why_not(["slurm"]) == ""


def test_playbooks_applied_one_after_the_other_add_up(host, rehearse):
    host.attach()
    for playbook in ("generic/nfs-server.yml", "generic/nfs-client.yml"):
        rehearse(playbook, attach="mine").deploy_again()
    assert pieces(host) == {"slurm": ["nfs", "nfs-client", "nfs-server"]}


def test_the_history_names_what_was_applied_and_a_run_attached_later_knows_it(host, rehearse):
    host.attach()
    for playbook in ("generic/nfs-server.yml", "generic/nfs-client.yml"):
        run = rehearse(playbook, attach="mine")
        run.deploy_again()
    told = history(run.settings, run.run_dir)
    assert [line.split(" (")[0] for line in told] == [
        "playbooks/generic/nfs-server.yml",
        "playbooks/generic/nfs-client.yml",
    ]
    later = host.rehearse(SLURM, attach="mine")
    assert history(later.settings, later.run_dir / "of-another-run") == told
    assert history(host.rehearse(SLURM).settings, later.run_dir / "of-another-run") == []
    host.book.update("mine", applied=[])
    assert history(later.settings, later.run_dir / "none") == ["slurm (by what, is not noted)"]


def test_a_single_playbook_on_top_of_a_whole_part_leaves_it_whole(host, rehearse):
    host.attach("slurm")
    rehearse(*HOSTS, attach="mine").deploy_again()
    assert host.applied
    assert pieces(host) == {}


def test_a_checkpoint_of_it_is_used_until_the_checkout_changes(host, rehearse):
    rehearse(*HOSTS).ensure_deployed()
    host.gone()
    rehearse(*HOSTS).ensure_deployed()
    assert [name for name in host.restored if "deployed" in name]
    assert len(host.applied) == 1
    assert pieces(host) == {"slurm": ["hosts"]}
    host.gone()
    (host.checkout / "roles" / "deepops_hosts" / "tasks" / "main.yml").write_text("[]\n")
    rehearse(*HOSTS).ensure_deployed()
    assert len(host.applied) == 2


def test_the_clusters_file_may_name_the_source_and_the_option_counts_more(host, rehearse):
    mine = host.folder / "mine.yml"
    mine.write_text(f"source: {host.checkout}\n{mine.read_text()}")
    (source,) = rehearse(source="").sources()
    assert source.driving.checkout.tree == host.checkout
    assert rehearse(source="none").sources() == ()


@pytest.mark.parametrize("wish", [{"playbook": ("x",)}, {"tags": "x"}, {"limit": "x"}])
def test_what_only_a_checkout_can_be_asked_for_is_refused_elsewhere(host, wish):
    with pytest.raises(UsageProblem, match="is for a checkout of DeepOps") as refused:
        host.rehearse(SLURM, source="distro", **wish)
    assert option(*wish) in refused.value.message


def test_a_limit_that_names_nobody_is_refused(rehearse):
    with pytest.raises(UsageProblem, match="no node and no group 'virtual-gpu07'"):
        rehearse(limit="virtual-gpu07")
