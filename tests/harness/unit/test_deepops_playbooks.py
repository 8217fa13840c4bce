"""What is read of playbooks without running them."""

from pathlib import Path

import pytest

from deepops_fixtures.deepops.playbooks import Playbooks
from deepops_fixtures.deepops.yaml_lines import UnreadableYaml

SLURM = Path("playbooks/slurm-cluster.yml")


@pytest.fixture
def tree(project) -> Playbooks:
    return Playbooks(project / "tests" / "harness" / "deepops_tree")


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_plays_come_in_the_order_of_their_running_with_their_place(tree):
    plays = tree.plays(SLURM)
    assert [(play.file.name, play.line, play.hosts) for play in plays[:2]] == [
        ("bootstrap-python.yml", 2, "all"),
        ("hosts.yml", 2, "all"),
    ]
    assert [play.file.name for play in plays].count("slurm.yml") == 3
    assert plays[-1].hosts == "{{ hostlist | default('all') }}"


def test_a_play_knows_the_conditions_and_tags_of_the_imports_that_lead_to_it(tree):
    by_file = {play.file.name: play for play in tree.plays(SLURM)}
    assert by_file["nfs-client.yml"].when == ("slurm_enable_nfs_client_nodes",)
    assert by_file["nfs-client.yml"].all_tags == {"nfs_client"}
    assert by_file["hosts.yml"].all_tags == {"set-etc-hosts"}
    assert by_file["slurm.yml"].when == ()


def test_variables_behind_an_imports_name_are_no_part_of_it(tree):
    (found,) = tree.imports(Path("playbooks/ngc-ready-server.yml"))
    assert (found.text, found.target.name) == ("slurm-cluster/lmod.yml", "lmod.yml")
    assert (found.line, found.dropped) == (4, (("hostlist", "slurm-node"),))


def test_an_import_knows_the_variables_that_it_gives(tree):
    found = {each.text: each for each in tree.imports(SLURM)}
    given = dict(found["generic/nfs-client.yml"].given)
    assert given == {"hostlist": "{{ nfs_client_group | default('slurm-nfs-client') }}"}


def test_an_import_of_what_is_not_there_is_kept(tree):
    (missing,) = tree.imports(Path("playbooks/k8s-cluster.yml"))
    assert missing.text == "../submodules/kubespray/cluster.yml"
    assert missing.target is None
    assert tree.plays(Path("playbooks/k8s-cluster.yml")) == []


def test_roles_are_found_however_they_are_used(tree):
    uses = {(use.name, use.via, use.within): use for use in tree.roles_of(SLURM)}
    assert ("nfs", "roles", "") in uses
    assert ("deepops_hosts", "include_role", "") in uses
    assert ("deepops_chrony", "include_role", "") in uses, "within a block"
    assert ("rsyslog_client", "dependency", "slurm") in uses
    use = uses["example.absent_role", "include_role", ""]
    assert use.where.endswith("playbooks/generic/ntp-client.yml:5")
    assert tree.role("example.absent_role") is None


def test_a_use_knows_what_the_role_is_given(tree):
    (server,) = tree.roles_of(Path("playbooks/generic/nfs-server.yml"))
    assert "nfs_is_server" in server.given
    assert "nfs_is_client" not in server.given


def test_the_files_of_a_playbook_are_its_imports_and_roles(tree):
    names = {str(path.relative_to(tree.root)) for path in tree.files_of(SLURM)}
    assert {
        "playbooks/slurm-cluster.yml",
        "playbooks/generic/hosts.yml",
        "roles/slurm/meta/main.yml",
        "roles/rsyslog_client/tasks/main.yml",
    } <= names
    assert "roles/restless/tasks/main.yml" not in names


def test_included_tasks_and_variables_are_files_of_the_playbook(write, tmp_path):
    write("playbooks/tasks/deep.yml", "- debug:\n    msg: hi\n")
    write("playbooks/tasks/one.yml", "- include_tasks: deep.yml\n")
    write("playbooks/vars.yml", "a: 1\n")
    write(
        "playbooks/a.yml",
        "- hosts: all\n  vars_files: [vars.yml]\n  tasks:\n"
        "    - import_tasks:\n        file: tasks/one.yml\n",
    )
    found = Playbooks(tmp_path).files_of(Path("playbooks/a.yml"))
    assert [path.name for path in found] == ["a.yml", "deep.yml", "one.yml", "vars.yml"]


def test_roles_that_need_each_other_come_to_an_end(write, tmp_path):
    write("playbooks/a.yml", "- hosts: all\n  roles: [one]\n")
    write("roles/one/meta/main.yml", "dependencies: [two]\n")
    write("roles/two/meta/main.yml", "dependencies:\n  - role: one\n")
    found = Playbooks(tmp_path).roles_of(Path("playbooks/a.yml"))
    assert [use.name for use in found] == ["one", "two", "one"]


def test_playbooks_that_import_each_other_come_to_an_end(write, tmp_path):
    write("playbooks/a.yml", "- import_playbook: b.yml\n")
    write("playbooks/b.yml", "- import_playbook: a.yml\n- hosts: all\n")
    assert [play.file.name for play in Playbooks(tmp_path).plays(Path("playbooks/a.yml"))] == [
        "b.yml"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [("- hosts: [\n", ":2:1: not YAML"), ("hosts: all\n", ":1: a playbook is a list of plays")],
)
def test_what_is_no_playbook_is_refused_with_its_place(write, tmp_path, text, said):
    path = write("playbooks/a.yml", text)
    with pytest.raises(UnreadableYaml) as refused:
        Playbooks(tmp_path).plays(Path("playbooks/a.yml"))
    assert f"{path}{said}" in refused.value.message


def test_all_playbooks_are_those_in_no_folder_of_tasks(tree):
    names = {path.name for path in tree.all()}
    assert {"slurm-cluster.yml", "hosts.yml"} <= names
    assert "main.yml" not in names
