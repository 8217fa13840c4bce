"""What counts as a change of what a stage is made from, and how it is told."""

import shutil
import subprocess

import pytest

from deepops_fixtures import inputs


@pytest.fixture
def tree(tmp_path):
    """A folder of playbooks."""
    folder = tmp_path / "playbooks"
    tasks = folder / "roles" / "munge" / "tasks" / "main.yml"
    tasks.parent.mkdir(parents=True)
    tasks.write_text("- name: Run munge\n")
    script = folder / "check.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o644)
    return folder


def difference(before, folder) -> list[str]:
    return inputs.changes({"playbooks": before}, {"playbooks": inputs.of_tree(folder)})


def test_files_are_named_by_their_path_below_the_folder(tree):
    assert list(inputs.of_tree(tree)) == ["check.sh", "roles/munge/tasks/main.yml"]


def test_equal_trees_in_two_folders_are_equal(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "elsewhere" / "copy")
    assert inputs.of_tree(tmp_path / "elsewhere" / "copy") == inputs.of_tree(tree)


def test_an_edited_file_counts_and_so_does_an_added_and_a_removed_one(tree):
    before = inputs.of_tree(tree)
    (tree / "roles" / "munge" / "tasks" / "main.yml").write_text("- name: Run another\n")
    (tree / "roles" / "more.yml").touch()
    (tree / "check.sh").unlink()
    assert difference(before, tree) == [
        "playbooks: check.sh is gone, roles/more.yml is new, roles/munge/tasks/main.yml changed"
    ]


def test_a_file_that_git_does_not_know_or_was_told_to_ignore_counts(tree):
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", tree, *command], check=True)
    before = inputs.of_tree(tree)
    (tree / ".gitignore").write_text("secrets.yml\n")
    (tree / "secrets.yml").write_text("munge_key: other\n")
    assert difference(before, tree) == ["playbooks: .gitignore is new, secrets.yml is new"]


def test_whether_a_script_may_be_executed_counts(tree):
    before = inputs.of_tree(tree)
    (tree / "check.sh").chmod(0o755)
    assert difference(before, tree) == ["playbooks: check.sh changed"]


def test_who_may_read_or_write_a_file_does_not_count(tree):
    before = inputs.of_tree(tree)
    (tree / "check.sh").chmod(0o600)
    assert difference(before, tree) == []


@pytest.mark.parametrize("folder", ["__pycache__", ".git", "roles/munge/__pycache__"])
def test_what_python_and_git_put_there_does_not_count(tree, folder):
    before = inputs.of_tree(tree)
    (tree / folder).mkdir(parents=True)
    (tree / folder / "index").write_text("anything")
    assert difference(before, tree) == []


def test_chosen_files_are_read_and_no_others(tree):
    assert list(inputs.of_files(tree.parent, [tree / "check.sh"])) == ["playbooks/check.sh"]


def test_nested_data_becomes_dotted_names():
    data = {
        "name": "tiny",
        "nodes": {"virtual-login": {"memory": 1024, "groups": ["slurm-master", "slurm-nfs"]}},
        "key": "x" * 41,
    }
    found = inputs.of_data(data)
    assert found.pop("key").startswith("sha256:")
    assert found == {
        "name": "tiny",
        "nodes.virtual-login.memory": "1024",
        "nodes.virtual-login.groups": '["slurm-master", "slurm-nfs"]',
    }


def test_the_key_depends_on_content_and_not_on_order():
    one = {"a": {"x": "1", "y": "2"}, "b": {"z": "3"}}
    other = {"b": {"z": "3"}, "a": {"y": "2", "x": "1"}}
    assert inputs.key(one) == inputs.key(other)
    assert inputs.key(one) != inputs.key({"a": {"x": "1", "y": "2", "z": "3"}, "b": {}})


def test_what_is_equal_has_no_changes():
    assert inputs.changes({"box": {"debian12": "2.0.1"}}, {"box": {"debian12": "2.0.1"}}) == []


def test_a_changed_value_is_told_with_the_one_it_was():
    then = {"cluster": inputs.of_data({"nodes": {"virtual-login": {"memory": 1024}}})}
    now = {"cluster": inputs.of_data({"nodes": {"virtual-login": {"memory": 2048}}})}
    assert inputs.changes(then, now) == ["cluster: nodes.virtual-login.memory is 2048, was 1024"]


def test_a_long_value_is_told_as_changed():
    then, now = ({"variables": inputs.of_data({"motd": letter * 50})} for letter in "ab")
    assert inputs.changes(then, now) == ["variables: motd changed"]


def test_each_kind_has_a_phrase_of_its_own_and_a_whole_kind_may_come_or_go():
    then = {"box": {"debian12": "1"}, "gone": {"x": "1"}}
    now = {"box": {"debian12": "2"}, "deploy tools": {"mitogen": "0.3"}}
    assert inputs.changes(then, now) == [
        "box: debian12 is 2, was 1",
        "deploy tools: mitogen is new",
        "gone: x is gone",
    ]


def test_many_changes_are_counted_and_not_listed():
    then, now = ({"playbooks": {f"{n}.yml": digit for n in range(7)}} for digit in "12")
    (said,) = inputs.changes(then, now)
    assert said.startswith("playbooks: 0.yml is 2, was 1, 1.yml is 2, was 1, ")
    assert said.endswith(", 3.yml is 2, was 1 and 3 more")
