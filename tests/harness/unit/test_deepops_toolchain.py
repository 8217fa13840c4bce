"""The Ansible of a checkout and what it wants of Galaxy; nothing is installed here."""

import json
import sys
from pathlib import Path

import pytest

from deepops_fixtures.deepops import finding, galaxy, toolchain
from deepops_fixtures.deepops.galaxy import Galaxy, Wanted
from deepops_fixtures.deepops.toolchain import Toolchain
from deepops_fixtures.errors import ArtifactError
from deepops_fixtures.journal import Journal
from tests.harness.unit import checkouts


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "events.jsonl")


@pytest.fixture
def calls(monkeypatch):
    """What would have been run; a command fails when its words are in ``calls.failing``."""

    class Calls(list):
        failing = ""

    made = Calls()

    def run(command, *, log, **_more):
        words = [str(word) for word in command]
        made.append(words)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as sink:
            if made.failing and made.failing in " ".join(words):
                sink.write(f"$ {words}\nERROR: No matching distribution found for ansible\n")
                return 1
            if words[1:3] == ["-m", "venv"]:
                Path(words[3]).mkdir()
            if words[1] == "-c":
                sink.write(json.dumps({"ansible": "10.7.0", "ansible-core": "2.17.14"}) + "\n")
        return 0

    monkeypatch.setattr(toolchain, "run_logged", run)
    monkeypatch.setattr(galaxy, "run_logged", run)
    return made


def test_an_environment_is_made_once(calls, journal, tmp_path):
    tools = Toolchain(("ansible==10.7.0", "netaddr"), tmp_path / "env")
    assert not tools.ready
    assert tools.ensure(journal) == tools.folder / "bin"
    assert calls[0][1:4] == ["-m", "venv", str(tools.folder)]
    assert calls[1][-2:] == ["ansible==10.7.0", "netaddr"]
    assert tools.told == "ansible 10.7.0, ansible-core 2.17.14"
    tools.ensure(journal)
    assert len(calls) == 3


def test_other_packages_are_another_environment(tmp_path, monkeypatch):
    one = Toolchain(("ansible==10.7.0", "netaddr"), tmp_path)
    assert one.folder != Toolchain(("ansible==10.7.0",), tmp_path).folder
    before = one.folder
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert one.folder != before


def test_a_pin_that_cannot_be_installed_is_told_in_pips_words(calls, journal, tmp_path):
    calls.failing = "install"
    tools = Toolchain(("ansible==99.0",), tmp_path / "env")
    with pytest.raises(ArtifactError) as failed:
        tools.ensure(journal)
    assert "cannot be installed: ansible==99.0" in failed.value.message
    assert "No matching distribution found" in failed.value.detail
    assert not tools.ready
    calls.failing = ""
    tools.ensure(journal)
    assert tools.ready, "what was begun is made anew"


# -- Galaxy


@pytest.fixture
def checkout(tmp_path):
    return finding.find(str(checkouts.repository(tmp_path / "deepops")), cache=tmp_path / "cache")


@pytest.fixture
def content(checkout, tmp_path):
    tools = Toolchain(("ansible==10.7.0",), tmp_path / "env")
    # ansible.posix comes with pip's package.
    (tools.collections / "ansible" / "posix").mkdir(parents=True)
    return Galaxy(checkout, tools, tmp_path / "cache")


ABSENT = Wanted(("example.absent_role",), ("example.absent_collection",))


def test_what_comes_with_ansible_counts_as_there(content):
    assert content.missing() == ABSENT


def test_what_the_user_has_counts_as_there(content, checkout):
    (checkout.tree / "roles" / "galaxy" / "example.absent_role").mkdir(parents=True)
    place = checkout.tree / "collections" / "ansible_collections" / "example" / "absent_collection"
    place.mkdir(parents=True)
    assert content.missing().empty


def test_galaxy_is_asked_for_what_is_needed_alone_and_once_an_hour(content, calls, journal):
    assert content.ensure(Wanted(), journal) == ABSENT
    assert calls == []
    assert content.ensure(Wanted(("example.absent_role",)), journal) == ABSENT
    assert [words[1:3] for words in calls] == [["role", "install"], ["collection", "install"]]
    content.ensure(Wanted(("example.absent_role",)), journal)
    assert len(calls) == 2


def test_what_galaxy_gave_is_linked_into_the_copy(content, tmp_path):
    (content.folder / "roles" / "example.absent_role" / "tasks").mkdir(parents=True)
    posix = (
        content.folder / "collections" / "ansible_collections" / "example" / "absent_collection"
    )
    posix.mkdir(parents=True)
    assert content.missing().empty
    copy = tmp_path / "copy"
    (copy / "roles").mkdir(parents=True)
    content.link_into(copy)
    assert (copy / "roles" / "galaxy" / "example.absent_role" / "tasks").is_dir()
    assert (copy / "collections/ansible_collections/example/absent_collection").is_dir()


def test_the_older_form_of_requirements_lists_roles(checkout):
    (checkout.tree / "roles" / "requirements.yml").write_text("- src: one.role\n- two.role\n")
    assert galaxy.wanted(checkout) == Wanted(("one.role", "two.role"), ())


def test_a_collection_is_needed_where_a_file_names_something_of_it(checkout, tmp_path):
    file = tmp_path / "tasks.yml"
    file.write_text("- example.absent_collection.module:\n")
    listed = galaxy.wanted(checkout)
    assert galaxy.needed([], [file], listed).collections == ("example.absent_collection",)
    file.write_text("- example.absent_collections: no\n")
    assert galaxy.needed([], [file], listed).empty
