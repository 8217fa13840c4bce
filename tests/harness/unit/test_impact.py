"""What a branch of a DeepOps checkout has changed, and which playbooks that reaches."""

import json
import os

import pytest

from deepops_fixtures.deepops import changes, finding, impact
from deepops_fixtures.errors import UsageProblem
from tests.harness.unit import checkouts
from tests.harness.unit.branches import Branch

SLURM = "playbooks/slurm-cluster.yml"
TOOLS = "playbooks/tools.yml"


@pytest.fixture
def branch(tmp_path):
    return Branch(tmp_path / "deepops")


def reached(branch: Branch) -> dict[str, impact.Reached]:
    """Return what each file that was changed reaches."""
    found = impact.of(changes.since(branch.tree, "main"))
    return {item.path: item for item in found.files}


# -- what has changed -----------------------------------------------------------------------


def test_commits_of_the_branch_uncommitted_and_new_files_count(branch):
    branch.touch("ansible.cfg")
    branch.git("mv", "docs/readme.md", "docs/new.md")
    branch.commit()
    branch.touch("roles/own/tasks/main.yml")
    branch.git("add", "-A")
    branch.touch("roles/nfs/tasks/main.yml")
    branch.write("roles/new/tasks/main.yml", "- debug:\n")
    branch.write(".gitignore", "*.log\n")
    branch.write("a.log", "")
    (branch.tree / "scripts/k8s/by_hand.sh").unlink()
    assert changes.since(branch.tree, "main").files == {
        ".gitignore": "untracked",
        "ansible.cfg": "committed",
        "docs/new.md": "committed",
        "docs/readme.md": "deleted",
        "roles/own/tasks/main.yml": "uncommitted",
        "roles/new/tasks/main.yml": "untracked",
        "roles/nfs/tasks/main.yml": "uncommitted",
        "scripts/k8s/by_hand.sh": "deleted",
    }


def test_what_others_changed_on_main_meanwhile_does_not_count(branch):
    branch.touch("roles/own/tasks/main.yml")
    branch.commit()
    branch.git("checkout", "-q", "main")
    branch.touch("roles/nfs/tasks/main.yml")
    branch.commit()
    branch.git("checkout", "-q", "feature")
    assert list(changes.since(branch.tree, "main").files) == ["roles/own/tasks/main.yml"]


def test_looking_changes_nothing_in_the_checkout(branch):
    branch.touch("ansible.cfg")
    before = {p: p.stat().st_mtime_ns for p in branch.tree.rglob("*")}
    impact.of(changes.since(branch.tree, "main"))
    assert {p: p.stat().st_mtime_ns for p in branch.tree.rglob("*")} == before


@pytest.mark.parametrize("ref", ["mian", "--output=x", "-h"])
def test_a_ref_that_is_not_there_is_refused(branch, ref):
    with pytest.raises(UsageProblem) as refused:
        changes.since(branch.tree, ref)
    assert f"There is no branch, tag or commit '{ref}' in" in refused.value.message
    if ref == "mian":
        assert refused.value.hint == "did you mean main?"
    assert not (branch.tree / "x").exists()


def test_a_folder_that_is_no_checkouts_top_is_refused(branch, tmp_path):
    for folder in (tmp_path, branch.tree / "roles"):
        with pytest.raises(UsageProblem, match="not the top of a git checkout"):
            changes.since(folder, "main")


def test_histories_without_a_common_commit_are_refused(branch):
    branch.git("checkout", "-q", "--orphan", "other")
    branch.touch("ansible.cfg")
    branch.commit()
    with pytest.raises(UsageProblem, match="have no commit in common"):
        changes.since(branch.tree, "main")


# -- what that reaches ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "role", "playbooks", "entries"),
    [
        ("roles/nfs/tasks/main.yml", "nfs",
         {"playbooks/generic/nfs-client.yml", "playbooks/generic/nfs-server.yml", SLURM}, {SLURM}),
        # By the dependencies of role slurm too.
        ("roles/rsyslog_client/tasks/main.yml", "rsyslog_client",
         {"playbooks/generic/rsyslog-client.yml", "playbooks/slurm-cluster/slurm.yml", SLURM},
         {SLURM}),
        ("roles/own/templates/own.sh", "own", {"playbooks/tools/own.yml", TOOLS}, {TOOLS}),
        ("roles/restless/tasks/main.yml", "restless", {"playbooks/generic/restless.yml"},
         {"playbooks/generic/restless.yml"}),
        ("playbooks/generic/hosts.yml", "", {"playbooks/generic/hosts.yml", SLURM}, {SLURM}),
        (SLURM, "", {SLURM}, {SLURM}),
        # Named by a playbook, and by a script that a playbook names.
        ("scripts/k8s/install_helm.sh", "", {"playbooks/utilities/helm.yml"},
         {"playbooks/utilities/helm.yml"}),
        ("scripts/deepops/paths.sh", "", {"playbooks/utilities/helm.yml"},
         {"playbooks/utilities/helm.yml"}),
        ("config.example/nvidia-mig-config.yml", "", {"playbooks/utilities/helm.yml"},
         {"playbooks/utilities/helm.yml"}),
    ],
)  # fmt: skip
def test_a_file_reaches_the_playbooks_that_use_it(branch, path, role, playbooks, entries):
    branch.touch(path)
    found = reached(branch)[path]
    assert (found.role, set(found.playbooks), set(found.entries)) == (role, playbooks, entries)
    assert not found.everything
    assert not found.nothing


@pytest.mark.parametrize(
    ("path", "why", "part"),
    [
        ("ansible.cfg", "Ansible's settings for every playbook", ""),
        ("scripts/setup.sh", "it says which Ansible runs the playbooks", ""),
        ("roles/requirements.yml", "Galaxy's roles and collections for every playbook", ""),
        ("config.example/group_vars/all.yml", "variables of every host", ""),
        ("config.example/group_vars/slurm-cluster.yml", "variables of group slurm-cluster",
         "slurm"),
        ("playbooks/filter_plugins/x.py", "Ansible's own additions, for every playbook", ""),
        ("playbooks/group_vars/all.yml", "variables of every playbook", ""),
        # Ansible looks beside the playbook that is run, and has more kinds of additions.
        ("playbooks/generic/library/x.py", "Ansible's own additions, for every playbook", ""),
        ("vars_plugins/x.py", "Ansible's own additions, for every playbook", ""),
        ("playbooks/generic/host_vars/gpu01.yml", "variables of every playbook", ""),
        ("collections/ansible_collections/a/b/plugins/modules/x.py",
         "collections for every playbook", ""),
        ("config.example/inventory/hosts", "groups and variables of every host", ""),
        (".gitmodules", "it says where submodules come from", ""),
        ("virtual/vars_files/virt_slurm.yml",
         "variables that DeepOps' virtual scripts give slurm", "slurm"),
        ("virtual/vars_files/virt_k8s.yml",
         "variables that DeepOps' virtual scripts give kubernetes", "kubernetes"),
        # The group's name in old releases; a group that no part knows; a folder of files.
        ("config.example/group_vars/k8s-cluster.yml", "variables of group k8s-cluster",
         "kubernetes"),
        ("config.example/group_vars/racks.yml", "variables of group racks", ""),
        ("config.example/group_vars/slurm-node/gpus.yml", "variables of group slurm-node",
         "slurm"),
    ],
)  # fmt: skip
def test_a_file_that_is_everybodys_reaches_everything(branch, path, why, part):
    if path.startswith("config.example/inventory/"):
        (branch.tree / "config.example/inventory").unlink()
    branch.write(path, "changed\n")
    found = reached(branch)[path]
    assert (found.everything, found.part) == (why, part)
    assert found.told == f"everything{f' of {part}' if part else ''}: {why}"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("docs/readme.md", "no playbook reaches it"),
        ("scripts/k8s/by_hand.sh", "no playbook reaches it"),
        ("config.example/helm/monitoring.yml", "no playbook reaches it"),
        ("roles/unused/tasks/main.yml", "no playbook uses role 'unused'"),
        ("roles/own/README.md", "of role 'own', and no playbook runs it"),
        ("roles/own/molecule/default/converge.yml", "of role 'own', and no playbook runs it"),
    ],
)
def test_a_file_that_nothing_reaches_is_said_to_be_so(branch, path, told):
    branch.write(path, "- hosts: all\n")
    found = reached(branch)[path]
    assert found.nothing
    assert found.told == told


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("roles/own/files/.bashrc", "umask 2\n"),
        ("roles/own/templates/motd.md", "Welcome\n"),
        ("roles/own/files/tests/run.sh", "true\n"),
    ],
)
def test_a_file_that_a_role_puts_on_the_nodes_is_not_one_for_people(branch, path, text):
    branch.write(path, text)
    assert reached(branch)[path].entries == (TOOLS,)


@pytest.mark.parametrize(
    ("files", "changed", "reaches"),
    [
        # A role that only an included file of tasks uses, there in a file that includes itself.
        ({"playbooks/tools/own.yml": "- hosts: all\n  tasks: [{include_tasks: more/first.yml}]\n",
          "playbooks/tools/more/first.yml":
          "- include_tasks: second.yml\n- include_tasks: first.yml\n",
          "playbooks/tools/more/second.yml": "- include_role: {name: unused}\n"},
         "roles/unused/tasks/main.yml", TOOLS),
        # Ansible looks for an included file beside the playbook too.
        ({"playbooks/tools/own.yml": "- hosts: all\n  tasks: [{include_tasks: more/first.yml}]\n",
          "playbooks/tools/more/first.yml": "- include_tasks: more/second.yml\n",
          "playbooks/tools/more/second.yml": "- debug:\n"},
         "playbooks/tools/more/second.yml", TOOLS),
        ({"playbooks/tools/own.yml": "- hosts: all\n  vars_files: [../../extra/x.yml]\n",
          "extra/x.yml": "a: 1\n"}, "extra/x.yml", TOOLS),
        ({"playbooks/tools/own.yml": "- hosts: all\n  vars_files: [[none.yml, x.yml]]\n",
          "playbooks/tools/x.yml": "- a: 1\n"}, "playbooks/tools/x.yml", TOOLS),
        # A role by its path, by a template, as a link, by a file that another one takes.
        ({"playbooks/tools/own.yml": "- hosts: all\n  roles: [../../roles/unused]\n"},
         "roles/unused/tasks/main.yml", TOOLS),
        ({"playbooks/tools/own.yml":
          "- hosts: all\n  tasks: [{include_role: {name: 'un{{ what }}'}}]\n"},
         "roles/unused/tasks/main.yml", TOOLS),
        ({"roles/own/tasks/main.yml":
          "- template: {src: ../../unused/templates/x.j2, dest: /etc/x}\n"},
         "roles/unused/templates/x.j2", TOOLS),
        # Beside the playbook, under a name that several files have.
        ({"playbooks/tools/own.yml": "- hosts: all\n  tasks: [{copy: {src: main, dest: /x}}]\n",
          "playbooks/generic/files/main": ""}, "playbooks/tools/files/main", TOOLS),
    ],
)  # fmt: skip
def test_a_way_that_ansible_goes_is_followed(branch, files, changed, reaches):
    for name, text in files.items():
        branch.write(name, text)
    branch.commit()
    branch.git("branch", "-f", "main", "feature")
    branch.write(changed, "- debug:\n# changed\n")
    found = reached(branch)[changed]
    assert found.entries == (reaches,), found.told


def test_a_role_that_is_a_link_is_found_by_where_it_really_is(branch):
    (branch.tree / "roles/own").rename(branch.tree / "shared-own")
    (branch.tree / "roles/own").symlink_to("../shared-own")
    branch.commit()
    branch.git("branch", "-f", "main", "feature")
    branch.touch("shared-own/tasks/main.yml")
    assert reached(branch)["shared-own/tasks/main.yml"].entries == (TOOLS,)
    (branch.tree / "roles/own").unlink()
    (branch.tree / "roles/own").symlink_to("../elsewhere")
    assert reached(branch)["roles/own"].entries == (TOOLS,)


def test_a_file_that_the_configuration_names_reaches_whose_variables_they_are(branch):
    branch.write("config.example/group_vars/slurm-cluster.yml", "conf: ../src/slurm.j2\n")
    branch.write("config.example/group_vars/all.yml", "# see src/notes.txt\na: 1\n")
    branch.commit()
    branch.git("branch", "-f", "main", "feature")
    branch.write("src/slurm.j2", "x")
    branch.write("src/notes.txt", "x")
    found = reached(branch)
    assert found["src/slurm.j2"].part == "slurm"
    assert found["src/slurm.j2"].everything.startswith("variables of group slurm-cluster, in ")
    assert found["src/notes.txt"].nothing


def test_a_playbook_that_was_deleted_reaches_who_still_imports_it(branch):
    branch.git("rm", "-q", "playbooks/tools/own.yml")
    branch.write("playbooks/tools.yml", "- import_playbook: tools/own.yml\n- hosts: all\n")
    assert reached(branch)["playbooks/tools/own.yml"].entries == (TOOLS,)
    branch.write("playbooks/tools/both.yml", "- import_playbook: own.yml\n")
    found = reached(branch)["playbooks/tools/own.yml"]
    assert set(found.playbooks) == {TOOLS, "playbooks/tools/both.yml"}


def test_a_playbook_that_goes_outside_the_checkout_is_no_obstacle(branch, tmp_path):
    (tmp_path / "x.yml").write_text("- hosts: all\n")
    branch.write("playbooks/out.yml", "- import_playbook: ../../x.yml\n")
    branch.touch("roles/own/tasks/main.yml")
    assert reached(branch)["roles/own/tasks/main.yml"].entries == (TOOLS,)


def test_a_submodule_counts_whatever_git_was_told_of_submodules(branch, tmp_path):
    inner = checkouts.git
    (tmp_path / "sub").mkdir()
    inner(tmp_path / "sub", "init", "-q")
    inner(tmp_path / "sub", "commit", "-q", "--allow-empty", "-m", "x")
    branch.git("clone", "-q", str(tmp_path / "sub"), "submodules/other")
    branch.commit()
    branch.git("branch", "-f", "main", "feature")
    inner(branch.tree / "submodules/other", "commit", "-q", "--allow-empty", "-m", "y")
    branch.git("config", "diff.ignoreSubmodules", "all")
    assert list(changes.since(branch.tree, "main").files) == ["submodules/other"]


def test_a_role_that_was_deleted_reaches_who_still_uses_it(branch):
    branch.git("rm", "-q", "-r", "roles/own")
    found = reached(branch)
    assert found["roles/own/tasks/main.yml"].entries == (TOOLS,)
    assert found["roles/own/tasks/main.yml"].state == "deleted"


def test_where_a_playbook_cannot_be_read_what_playbooks_are_made_of_reaches_everything(branch):
    branch.write("playbooks/generic/hosts.yml", "- hosts: [\n")
    branch.touch("roles/own/tasks/main.yml", "docs/readme.md")
    found = reached(branch)
    branch.touch("config.example/helm/monitoring.yml")
    found = reached(branch)
    files = ("playbooks/generic/hosts.yml", "roles/own/tasks/main.yml")
    for path in (*files, "config.example/helm/monitoring.yml"):
        assert found[path].everything.startswith("playbooks/generic/hosts.yml:2:1: not YAML")
    assert found["docs/readme.md"].nothing


def test_the_whole_names_roles_playbooks_and_what_nothing_reaches(branch):
    branch.touch("roles/nfs/tasks/main.yml", "docs/readme.md", "roles/own/README.md")
    found = impact.of(changes.since(branch.tree, "main"))
    assert found.roles == ("nfs",)
    assert SLURM in found.playbooks
    assert [item.path for item in found.unreached] == ["docs/readme.md", "roles/own/README.md"]
    assert found.shared == ()


# -- the command ----------------------------------------------------------------------------


def test_the_command_tells_each_file_and_where_it_leads(branch, deepops, monkeypatch):
    branch.touch("roles/own/tasks/main.yml")
    branch.commit()
    branch.touch("docs/readme.md")
    monkeypatch.chdir(branch.tree / "roles")
    status, out, _ = deepops("impact", "main")
    base = branch.git("rev-parse", "--short=12", "main")
    assert status == 0
    assert out.splitlines() == [
        f"2 files changed since main ({base}):",
        "  docs/readme.md            -> no playbook reaches it (uncommitted)",
        f"  roles/own/tasks/main.yml  -> role 'own': {TOOLS}",
        "roles: own",
        f"playbooks: {TOOLS}, playbooks/tools/own.yml",
    ]


def test_the_command_gives_a_script_the_same(branch, deepops):
    branch.touch("roles/own/tasks/main.yml")
    data = json.loads(deepops("impact", "main", "--json", "--source", str(branch.tree))[1])
    assert data["files"][0]["role"] == "own"
    assert data["files"][0]["entries"] == [TOOLS]
    branch.git("checkout", "-q", ".")
    out = deepops("impact", "main", "--source", str(branch.tree))[1]
    assert out.startswith("Nothing has changed since main (")


def test_a_name_that_is_no_text_is_told_with_escapes(branch, deepops):
    (branch.tree / os.fsdecode(b"roles/own/templates/\xff.j2")).write_text("x")
    branch.write("docs/a\nb", "x")
    words = ("impact", "main", "--source", str(branch.tree))
    assert {item["path"] for item in json.loads(deepops(*words, "--json")[1])["files"]} == {
        "docs/a\\x0ab",
        "roles/own/templates/\\xff.j2",
    }
    assert "  roles/own/templates/\\xff.j2  -> role 'own'" in deepops(*words)[1]
    found = finding.find(str(branch.tree), cache=branch.tree)
    found.provenance.encode()
    " ".join(found.inputs()).encode()


def test_the_command_refuses_what_is_no_checkout(deepops, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = deepops("impact", "main")
    assert status == 2
    assert "is no DeepOps checkout" in err
