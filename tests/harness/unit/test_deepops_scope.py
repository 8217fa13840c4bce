"""Which pieces of DeepOps a run deploys, read from its playbooks."""

import pytest

from deepops_fixtures.deepops import driving, finding
from deepops_fixtures.deepops.driving import Wish
from deepops_fixtures.deepops.scope import Conditions, Scope
from tests.harness.unit import checkouts


@pytest.fixture
def pieces(tmp_path):
    checkout = checkouts.repository(tmp_path / "deepops")

    def pieces(*playbooks, **wish):
        found = finding.find(str(checkout), cache=tmp_path / "cache")
        (made,) = driving.drivings(
            found, Wish(playbooks=playbooks, **wish), ["slurm"], ["slurm"], tmp_path / "cache"
        )
        return set(made.scope.pieces)

    return pieces


def test_single_playbooks_deploy_what_their_roles_do(pieces):
    assert pieces("generic/hosts.yml") == {"hosts"}
    assert pieces("generic/restless.yml") == set()
    assert pieces("generic/nfs-server.yml") == {"nfs-server"}
    assert pieces("slurm-cluster/slurm.yml") == {"slurm", "munge", "rsyslog-client"}


def test_nfs_and_logs_are_there_when_both_ends_are(pieces):
    assert "nfs" in pieces("generic/nfs-server.yml", "generic/nfs-client.yml")
    assert "rsyslog" in pieces("generic/rsyslog-server.yml", "generic/rsyslog-client.yml")


def test_a_switch_that_is_off_deploys_nothing(pieces):
    assert {"nfs", "slurm", "hosts", "chrony", "rsyslog"} <= pieces()
    assert "lmod" not in pieces(), "slurm_install_lmod is false in config.example"
    assert "lmod" in pieces(variables={"slurm_install_lmod": True})
    assert "nfs" not in pieces(variables={"slurm_enable_nfs_client_nodes": "no"})
    assert "chrony" not in pieces(variables={"chrony_install": False})


def test_with_tags_only_what_carries_one(pieces):
    assert pieces(tags="nfs_server") == {"nfs-server"}
    assert pieces(tags="set-etc-hosts") == {"hosts"}
    # A tag within the role's tasks.
    assert "slurm" in pieces(tags="undrain")
    assert pieces(tags="no-such-tag") == set()


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("yes_please", True),
        ("no_thanks", False),
        ("not no_thanks", True),
        ("'no' | bool", False),
        ("no_thanks | default(true)", False),
        ("unheard_of | default(false)", False),
        ("unheard_of | default(true)", True),
        ("{{ no_thanks | default(true) }}", False),
        ("unheard_of", True),
        ("ansible_distribution == 'Ubuntu'", True),
        ("templated", True),
        ("a is something_of_ansible", True),
        ("word", False),
    ],
)
def test_what_can_be_known_of_a_condition(condition, holds):
    known = Conditions(
        {"yes_please": True, "no_thanks": False, "templated": "{{ other }}", "word": "no"}
    )
    assert known.may_hold([condition]) is holds


def test_a_reason_names_what_is_absent():
    scope = Scope(frozenset({"hosts"}))
    assert scope.why_not(["hosts"]) == ""
    assert scope.why_not(["nfs"]) == "NFS: no playbook of this run deploys it"
    assert Scope().why_not(["nfs", "anything"]) == ""


def test_units_are_those_of_what_is_there():
    scope = Scope(frozenset({"chrony", "nfs-server"}))
    assert scope.brings("chrony.service")
    assert scope.brings("nfs-server.service")
    assert scope.brings("ssh.service"), "no piece brings it, so it is there anyway"
    assert not scope.brings("slurmd.service")


def test_scopes_join():
    ends = Scope(frozenset({"nfs-server"})).joined(Scope(frozenset({"nfs-client"})))
    assert ends.has("nfs")
    assert Scope(frozenset()).joined(Scope()).has("anything")
