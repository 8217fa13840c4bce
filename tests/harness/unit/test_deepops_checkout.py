"""Finding a checkout of DeepOps, what is told of it, and what is refused."""

import os
import subprocess

import pytest

from deepops_fixtures.deepops import changes, finding, git
from deepops_fixtures.deepops.repository import url_of
from deepops_fixtures.errors import UsageProblem
from tests.harness.unit import checkouts


@pytest.fixture
def checkout(tmp_path):
    return checkouts.repository(tmp_path / "deepops")


@pytest.fixture
def find(tmp_path):
    def find(asked, **more):
        return finding.find(str(asked), cache=tmp_path / "cache", **more)

    return find


def commit(folder, ref="HEAD"):
    return checkouts.git(folder, "rev-parse", ref)


def copied(found, folder):
    found.copy(folder)
    return {
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and ".git" not in p.parts
    }


# -- a working tree


def test_a_tree_of_another_user_is_refused_with_gits_own_remedy(checkout, find, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    asked = [
        lambda: find(checkout),
        lambda: changes.since(checkout, "master"),
        lambda: changes.top_of(checkout / "roles"),
    ]
    for ask in asked:
        with pytest.raises(UsageProblem, match=f"git does not trust '{checkout}'") as refused:
            ask()
        assert refused.value.hint == f"git config --global --add safe.directory {checkout}"


def test_a_tree_with_a_broken_repository_is_taken_file_by_file(checkout, find):
    (checkout / ".git" / "HEAD").unlink()
    assert "ansible.cfg" in map(str, find(checkout).files)


def test_a_working_tree_is_taken_with_what_is_not_committed(checkout, find, tmp_path):
    (checkout / "new.txt").write_text("changed")
    (checkout / "roles" / "nfs" / "tasks" / "extra.yml").write_text("[]\n")
    (checkout / "noise.log").write_text("ignored")
    (checkout / "README.md").unlink()
    found = find(checkout)
    assert (found.commit, found.branch) == (commit(checkout), "master")
    assert found.dirty == ("README.md", "new.txt", "roles/nfs/tasks/extra.yml")
    assert found.told == f"DeepOps {commit(checkout)[:12]} (master) + 3 changed files"
    assert "changed: README.md, new.txt, roles/nfs/tasks/extra.yml" in found.provenance
    there = copied(found, tmp_path / "copy")
    assert {"new.txt", "roles/nfs/tasks/extra.yml", "ansible.cfg", ".gitignore"} <= there
    assert not {"noise.log", "README.md"} & there
    assert (tmp_path / "copy" / "new.txt").read_text() == "changed"


def test_a_copy_keeps_links_and_modes_and_is_no_part_of_the_repository_around_it(
    checkout, find, tmp_path
):
    (checkout / "link").symlink_to("ansible.cfg")
    find(checkout).copy(tmp_path / "copy")
    assert (tmp_path / "copy" / "link").is_symlink()
    assert (tmp_path / "copy" / "scripts" / "setup.sh").stat().st_mode & 0o100
    assert checkouts.git(tmp_path / "copy", "rev-parse", "--show-toplevel") == str(
        tmp_path / "copy"
    )
    # What k8s-cluster.yml does there.
    assert checkouts.git(tmp_path / "copy", "submodule", "update", "--init") == ""


def test_a_renamed_file_is_one_change(checkout, find):
    checkouts.git(checkout, "mv", "new.txt", "newer.txt")
    assert find(checkout).dirty == ("newer.txt",)


def test_the_digests_are_of_the_files_now(checkout, find):
    found = find(checkout)
    before = found.inputs()
    (checkout / "ansible.cfg").write_text("[defaults]\n")
    (checkout / "roles" / "added.yml").write_text("[]\n")
    after = found.inputs()
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == {"ansible.cfg", "roles/added.yml"}


def test_a_tree_that_git_knows_nothing_of_is_taken_as_it_is(checkout, find, tmp_path):
    subprocess.run(["rm", "-rf", checkout / ".git"], check=True)
    found = find(checkout)
    assert found.commit == ""
    assert found.told == f"DeepOps {checkout}"
    assert "in no git repository" in found.provenance
    assert "ansible.cfg" in copied(found, tmp_path / "copy")


def test_a_submodule_that_is_there_is_copied(checkout, find, tmp_path):
    other = tmp_path / "kubespray"
    other.mkdir()
    checkouts.git(other, "init", "--quiet")
    (other / "cluster.yml").write_text("- hosts: all\n")
    checkouts.git(other, "add", "--all")
    checkouts.git(other, "commit", "--quiet", "-m", "One")
    checkouts.git(checkout, "rm", "--quiet", "-r", "submodules/kubespray")
    checkouts.git(
        checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
        str(other), "submodules/kubespray",
    )  # fmt: skip
    checkouts.git(checkout, "commit", "--quiet", "-m", "Kubespray")
    assert "submodules/kubespray/cluster.yml" in copied(find(checkout), tmp_path / "copy")
    # … and one that is not there is fetched by what the commit says.
    found = find("master", repository=str(checkout))
    assert not any("cluster.yml" in str(path) for path in found.files if "submodules" in str(path))
    whole = finding.with_submodule(found, "submodules/kubespray", tmp_path / "cache")
    assert "submodules/kubespray/cluster.yml" in copied(whole, tmp_path / "copy2")
    assert "submodules/kubespray/cluster.yml" in whole.inputs()


def test_a_submodule_that_cannot_be_had_is_refused_in_one_sentence(checkout, find, tmp_path):
    with pytest.raises(UsageProblem) as refused:
        finding.with_submodule(find(checkout), "submodules/kubespray", tmp_path / "cache")
    assert "'submodules/kubespray' of DeepOps" in refused.value.message
    assert "submodule update --init submodules/kubespray" in refused.value.hint


# -- refs and URLs


@pytest.mark.parametrize("ref", ["26.05", "feature/nfs"])
def test_a_ref_is_looked_for_in_the_repository_that_is_named(checkout, find, ref):
    found = find(ref, repository=str(checkout))
    assert (found.commit, found.branch) == (commit(checkout, ref), ref)
    assert not found.has("new.txt")
    assert found.dirty == ()


def test_a_commit_needs_no_name(checkout, find):
    found = find(commit(checkout, "26.05")[:10], repository=str(checkout))
    assert found.told == f"DeepOps {commit(checkout, '26.05')[:12]} (no branch)"


def test_a_ref_is_looked_for_in_the_checkout_around(checkout, find):
    found = find("26.05", here=checkout / "roles")
    assert (found.commit, found.repository) == (commit(checkout, "26.05"), str(checkout))


def test_a_ref_elsewhere_is_one_of_deepops_own_repository(find, tmp_path, monkeypatch):
    asked = []

    def refuse(url, ref, _cache):
        asked.append((url, ref))
        raise UsageProblem("no network")

    monkeypatch.setattr(finding, "mirrored", refuse)
    with pytest.raises(UsageProblem):
        find("26.05", here=tmp_path)
    assert asked == [(finding.UPSTREAM, "26.05")]


def test_a_url_is_fetched_and_fetched_again(checkout, find, tmp_path):
    url = f"file://{checkout}"
    first = find(f"{url}@feature/nfs")
    assert (first.commit, first.repository) == (commit(checkout, "feature/nfs"), url)
    assert find(url).branch == "master", "without a ref it is what HEAD says"
    checkouts.git(checkout, "branch", "--force", "feature/nfs", "master")
    for stamp in (tmp_path / "cache" / "mirrors").glob("*.fetched"):
        os.utime(stamp, (0, 0))
    assert find(f"{url}@feature/nfs").commit == commit(checkout, "master")


def test_a_url_that_is_gone_gives_its_last_state_and_says_so(checkout, find, tmp_path):
    url = f"file://{checkout}"
    before = find(f"{url}@26.05").commit
    checkout.rename(tmp_path / "away")
    for stamp in (tmp_path / "cache" / "mirrors").glob("*.fetched"):
        os.utime(stamp, (0, 0))
    found = find(f"{url}@26.05")
    assert found.commit == before
    assert "as it was fetched last" in found.provenance


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("https://host/x.git", ("https://host/x.git", "")),
        ("https://host/x@feature/y", ("https://host/x", "feature/y")),
        ("https://me@host/x", ("https://me@host/x", "")),
        ("https://me@host/x@v1", ("https://me@host/x", "v1")),
        ("ssh://git@host:22/x.git@v1", ("ssh://git@host:22/x.git", "v1")),
        ("git@host:NVIDIA/deepops.git@v1", ("git@host:NVIDIA/deepops.git", "v1")),
        ("git@host:x", ("git@host:x", "")),
        ("file:///srv/x@v1", ("file:///srv/x", "v1")),
        ("feature/x", None),
        ("26.05", None),
        ("/srv/deepops", None),
    ],
)
def test_urls_and_their_refs(text, parts):
    assert url_of(text) == parts


# -- what is refused


def test_a_folder_that_is_no_deepops_tree_is_refused_by_what_it_lacks(find, checkout):
    (checkout / "ansible.cfg").unlink()
    subprocess.run(["rm", "-r", checkout / "config.example"], check=True)
    with pytest.raises(UsageProblem) as refused:
        find(checkout)
    assert "is no DeepOps tree: it has no ansible.cfg, config.example/" in refused.value.message


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "~/nothing-of-that-name"])
def test_a_path_that_is_not_there_is_refused(find, path):
    with pytest.raises(UsageProblem, match="is not there"):
        find(path)


def test_a_file_is_no_checkout(find, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageProblem, match="is no folder"):
        find(tmp_path / "file")


def test_an_unknown_ref_is_refused_with_those_like_it(find, checkout):
    with pytest.raises(UsageProblem) as refused:
        find("feature/nfss", repository=str(checkout))
    assert "there is no ref 'feature/nfss'" in refused.value.message
    assert "near it: feature/nfs" in refused.value.message
    assert "ls-remote" in refused.value.hint


def test_a_ref_cannot_be_an_option_of_git(find, checkout):
    with pytest.raises(UsageProblem, match="there is no ref '--all'"):
        find("--all", repository=str(checkout))


def test_a_url_that_does_not_answer_is_refused_in_gits_words(find):
    with pytest.raises(UsageProblem) as refused:
        find("file:///no/such/repository.git@main")
    assert "cannot be fetched: repository '/no/such/repository.git'" in refused.value.message
    assert "git ls-remote file:///no/such/repository.git" in refused.value.hint


def test_a_repository_that_is_none_is_refused(find, tmp_path):
    with pytest.raises(UsageProblem, match="is no git repository"):
        find("main", repository=str(tmp_path))


def test_without_git_it_is_said(find, monkeypatch):
    monkeypatch.setattr(git.shutil, "which", lambda _name: None)
    with pytest.raises(UsageProblem, match="git is not installed"):
        find("26.05")


def test_git_asks_nobody_and_looks_at_no_other_repository(monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    environment = git._environment()
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    assert "BatchMode=yes" in environment["GIT_SSH_COMMAND"]
    assert "GIT_DIR" not in environment
