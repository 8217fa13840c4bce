"""A checkout laid out as DeepOps is, applied to this host by a real Ansible."""

import json
import os
from pathlib import Path

import pytest

from deepops_fixtures.deepops import driving, finding
from deepops_fixtures.deepops.driving import Wish
from deepops_fixtures.deploy import sources
from deepops_fixtures.deploy.runner import Deployment
from deepops_fixtures.errors import DeployError, UsageProblem
from deepops_fixtures.journal import Journal
from tests.harness.unit import checkouts

CARRIED = ("slurm", "kubernetes")


@pytest.fixture
def checkout(tmp_path):
    return checkouts.repository(tmp_path / "deepops")


@pytest.fixture
def deploy(tmp_path, checkout, monkeypatch):
    """Return a function that makes the deployment of some playbooks of the checkout."""
    checkouts.OwnAnsible(monkeypatch)
    # What this user has must not be touched; a test sees to that below.
    monkeypatch.setenv("HOME", str(tmp_path / "user"))

    def deploy(*playbooks, **wish):
        found = finding.find(str(checkout), cache=tmp_path / "cache")
        (made,) = driving.drivings(
            found, Wish(playbooks=playbooks, **wish), ["slurm"], CARRIED, tmp_path / "cache"
        )
        (source,) = sources.of_checkout([made])
        run_dir = tmp_path / "run"
        run_dir.mkdir(exist_ok=True)
        return Deployment(
            checkouts.this_host(tmp_path), source, run_dir, Journal(run_dir / "events.jsonl"),
            scratch=tmp_path / "scratch",
        )  # fmt: skip

    return deploy


def ran(result) -> dict[str, set[str]]:
    return {task.role or task.task: set(task.hosts) for task in result.tasks}


def test_playbooks_run_in_the_order_given_each_on_the_hosts_it_is_for(deploy, tmp_path):
    result = deploy("generic/hosts.yml", "playbooks/generic/nfs-server.yml").apply(120)
    assert result.finished
    assert result.playbook == "playbooks/generic/hosts.yml, playbooks/generic/nfs-server.yml"
    # The cluster's own playbook has 'hostlist' for it, and the example says which.
    assert ran(result)["nfs"] == {"one"}
    assert ran(result)["deepops_hosts"] == {"one", "two"}
    kept = [
        json.loads(path.read_text())
        for path in sorted((tmp_path / "run/deploy").glob("*/result.json"))
    ]
    assert [each["playbook"] for each in kept] == result.playbook.split(", ")


def test_the_checkout_and_the_user_are_left_as_they_were(deploy, checkout, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*")}
    deploy("generic/hosts.yml").apply(120)
    assert {path: path.stat().st_mtime_ns for path in checkout.rglob("*")} == before
    assert not (tmp_path / "user").exists()
    assert not Path("/var/tmp/deepops_tree_cache_that_nobody_may_write").exists()


def test_it_runs_in_the_copy_with_its_own_configuration(deploy, checkout, tmp_path):
    (checkout / "playbooks" / "where.yml").write_text(
        "- hosts: slurm-master\n  gather_facts: false\n  tasks:\n"
        "    - name: where\n      command: pwd\n      register: here\n"
        "    - debug:\n        msg: >-\n"
        "          {{ here.stdout }} {{ lookup('env', 'HOME') }} {{ slurm_version }}\n"
    )
    deploy("where.yml").apply(120)
    text = (tmp_path / "run" / "deploy" / "1" / "stdout.log").read_text()
    assert f"{tmp_path}/run/deepops/slurm/playbooks {tmp_path}/scratch/home 25.11.1" in text


def test_tags_and_a_limit_are_kept(deploy):
    assert set(ran(deploy("slurm-cluster/slurm.yml", tags="undrain").apply(120))) == {"slurm"}
    assert ran(deploy("generic/hosts.yml", limit="two").apply(120)) == {
        "set /etc/hosts": {"two"},
        "deepops_hosts": {"two"},
    }


def test_a_play_that_no_host_is_in_is_an_error_that_names_it(deploy):
    with pytest.raises(DeployError) as failed:
        deploy("generic/nobody.yml").apply(120)
    assert "No host was in 1 play of playbooks/generic/nobody.yml" in failed.value.message
    assert "'nobody is in this group'" in failed.value.message


def test_whoever_limits_a_run_may_leave_a_play_without_hosts(deploy):
    assert deploy("generic/nobody.yml", limit="one").apply(120).without_hosts


def test_tags_that_nothing_has_are_an_error(deploy):
    with pytest.raises(DeployError) as failed:
        deploy("generic/hosts.yml", tags="no-such-tag").apply(120)
    assert "did nothing: no task reached any host" in failed.value.message
    assert "no-such-tag" in failed.value.hint


def test_a_node_that_is_lost_half_way_is_named_with_play_and_task(deploy, checkout):
    connection = "{{ 'ssh' if inventory_hostname == 'two' else 'local' }}"
    (checkout / "playbooks" / "lost.yml").write_text(
        "- name: the play\n  hosts: slurm-cluster\n  gather_facts: false\n  tasks:\n"
        "    - name: first\n      debug:\n        msg: hi\n"
        "    - name: it goes away\n      ping:\n"
        f'      vars:\n        ansible_connection: "{connection}"\n'
        "        ansible_host: 127.0.0.1\n        ansible_port: 1\n"
    )
    with pytest.raises(DeployError) as failed:
        deploy("lost.yml").apply(120)
    assert "Deploying lost 'two' in task 'it goes away' of play 'the play'" in failed.value.message


def test_a_second_run_that_changes_something_is_told_by_task(deploy):
    deployment = deploy("generic/restless.yml", "generic/hosts.yml")
    deployment.apply(120)
    with pytest.raises(DeployError) as failed:
        deployment.assert_idempotent(120)
    assert "restless : change something each time: one, two" in failed.value.detail


def test_a_role_of_galaxy_that_is_needed_is_refused_before_anything_runs(deploy, tmp_path):
    source = deploy("generic/ntp-client.yml").source
    with pytest.raises(UsageProblem) as refused:
        source.driving.prepare(Journal(tmp_path / "j.jsonl"))
    assert "example.absent_role of Ansible Galaxy" in refused.value.message
    assert "playbooks/generic/ntp-client.yml:5" in refused.value.detail


def test_a_role_that_the_user_has_from_galaxy_is_used(deploy, checkout, tmp_path):
    tasks = checkout / "roles" / "galaxy" / "example.absent_role" / "tasks" / "main.yml"
    tasks.parent.mkdir(parents=True)
    tasks.write_text("- name: mine\n  debug:\n    msg: mine\n")
    deployment = deploy("generic/ntp-client.yml")
    deployment.source.driving.prepare(Journal(tmp_path / "j.jsonl"))
    assert "example.absent_role" in ran(deployment.apply(120))


def test_the_whole_cluster_is_deployed_and_undrained(deploy, tmp_path):
    deployment = deploy()
    deployment.source.driving.prepare(Journal(tmp_path / "j.jsonl"))
    result = deployment.apply(120)
    assert result.playbook == (
        "playbooks/slurm-cluster.yml, playbooks/slurm-cluster/slurm.yml (tags undrain)"
    )
    assert ran(result)["nfs"] == {"two"}, "the clients come last"
    said = (tmp_path / "j.jsonl").read_text()
    assert "not here and not needed: role example.absent_role" in said


def test_what_of_ansible_the_caller_has_set_decides_nothing(deploy, monkeypatch):
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", "/nowhere")
    monkeypatch.setitem(os.environ, "ANSIBLE_LIMIT", "nobody")
    assert deploy("generic/hosts.yml").apply(120).finished
