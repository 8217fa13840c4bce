"""The ledger: whole or not at all, and never trusted when it is not."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from deepops_fixtures.cluster.ledger import LedgerBook, Owner, Snapshot
from deepops_fixtures.errors import UsageProblem


@pytest.fixture
def book(tmp_path):
    return LedgerBook(tmp_path)


def test_what_is_written_is_read_back(ledger, book):
    book.write(ledger("one", before=Snapshot(domains=frozenset({"other"}))))
    seen = book.get("one")
    assert seen.name == "one"
    assert seen.before.domains == {"other"}
    assert [item.name for item in book.all()] == ["one"]
    assert book.update("one", state="up").state == book.get("one").state == "up"


@pytest.mark.parametrize(("state", "parts"), [("deployed", ["slurm"]), ("up", [])])
def test_one_from_before_there_were_parts_has_the_one_of_its_cluster(ledger, book, state, parts):
    book.write(ledger("one", state=state))
    for path in book.path("one").glob("ledger*.json"):
        old = json.loads(path.read_text())
        del old["parts"]
        old["spec"]["deployment"] = "slurm"
        old["spec"]["nodes"]["virtual-login"]["groups"] = ["slurm-master", "slurm-node"]
        path.write_text(json.dumps(old))
    seen = book.get("one")
    assert (seen.parts, seen.spec.deployment, book.rejected) == (parts, ["slurm"], [])


def test_its_folder_is_private(ledger, book):
    book.write(ledger("one"))
    assert book.path("one").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "two", "../one", "one/.."])
def test_an_unknown_name_is_refused_and_the_known_ones_named(ledger, book, name):
    book.write(ledger("one"))
    with pytest.raises(UsageProblem, match="there are: one"):
        book.get(name)


BROKEN = ["", "{", '{"name": "one"}', "\x00\x00", '{"name": "two"}']


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_ledger_is_read_from_its_copy(ledger, book, text):
    book.write(ledger("one", state="up"))
    (book.path("one") / "ledger.json").write_text(text)
    assert book.get("one").state == "up"
    assert not book.rejected


def test_the_ledger_of_another_instance_is_not_trusted(ledger, book):
    book.write(ledger("one"))
    book.write(ledger("two"))
    for name in ("ledger.json", "ledger-copy.json"):
        shutil.copy(book.path("two") / name, book.path("one") / name)
    assert [item.name for item in book.all()] == ["two"]
    assert "it is the ledger of 'two'" in book.rejected[0]


@pytest.mark.parametrize("text", BROKEN)
def test_a_ledger_broken_twice_is_set_aside_and_told_and_the_others_are_read(ledger, book, text):
    book.write(ledger("one"))
    book.write(ledger("other"))
    for name in ("ledger.json", "ledger-copy.json"):
        (book.path("one") / name).write_text(text)
    assert [item.name for item in book.all()] == ["other"]
    assert "The ledger of cluster 'one' cannot be read" in book.rejected[0]
    assert not book.path("one").exists()
    kept = list((book.folder.parent / "set-aside").glob("cluster-one-*/ledger.json"))
    assert [path.read_text() for path in kept] == [text]


def test_a_half_written_ledger_is_not_seen(ledger, book):
    book.write(ledger("one", state="up"))
    (book.path("one") / ".ledger.json-1234").write_text("{")
    assert book.get("one").state == "up"


def test_an_instance_is_an_orphan_when_its_owner_is_gone_and_nobody_meant_to_keep_it(ledger, book):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    import psutil

    owner = Owner(pid=child.pid, started=psutil.Process(child.pid).create_time(), user="me")
    book.write(ledger("dead", owner=owner))
    book.write(ledger("kept", owner=owner, kept=True, state="up"))
    book.write(ledger("half-made", owner=owner, kept=True, state="creating"))
    book.write(ledger("mine"))
    assert book.orphans() == []
    child.communicate(b"\n")
    assert [item.name for item in book.orphans()] == ["dead", "half-made"]


def test_a_later_process_of_the_same_number_is_not_the_owner():
    assert not Owner(pid=os.getpid(), started=12345.0, user="me").alive


def test_a_snapshot_tells_what_has_come():
    before = Snapshot(domains=frozenset({"a"}), volumes=frozenset({"default/x"}))
    now = Snapshot(domains=frozenset({"a", "b"}), networks=frozenset({"n"}))
    assert now.minus(before) == ["domain b", "network n"]
