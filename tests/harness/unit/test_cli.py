"""deepops-virtual: what it says and with which status it ends; libvirt is one in memory."""

import json
import threading
import time
from pathlib import Path

import pytest


@pytest.fixture
def spoil(book):
    """Return a function after which neither the ledger of an instance nor its copy can be read."""

    def spoil(name: str) -> None:
        book.path(name).mkdir(parents=True, exist_ok=True)
        for file in ("ledger.json", "ledger-copy.json"):
            (book.path(name) / file).write_text("{")

    return spoil


# -- checkpoint list ------------------------------------------------------------------------


def test_without_checkpoints_it_is_told_how_to_come_by_one(deepops):
    status, out, _ = deepops("checkpoint", "list")
    assert (status, out) == (
        0,
        "No checkpoints. A run with --deepops-reuse auto (the default) takes them.\n",
    )
    assert json.loads(deepops("checkpoint", "list", "--json")[1]) == {
        "checkpoints": [],
        "bytes": 0,
        "budget_bytes": 20 * 1024**3,
        "set_aside": [],
    }


def test_a_script_reads_everything_about_each_checkpoint(
    deepops, keep, book, ledger, store, connection
):
    ready = keep("a-up", "1.img", instance="a", created=1000.0)
    keep("b-up", "2.img", instance="b", created=2000.0)
    keep("c-up", "3.img", instance="c", created=3000.0)
    keep("bad", "4.img")
    (store.path("bad") / "manifest.json").write_text("{")
    book.write(ledger("b"))
    del connection.pool.volumes["3.img"]
    status, out, _ = deepops("checkpoint", "list", "--json")
    data = json.loads(out)
    first, second, third = data["checkpoints"]
    assert status == 0
    assert first.pop("age_seconds") == pytest.approx(ready.age, abs=60)
    assert first == {
        "id": "a-up", "cluster": "tiny", "instance": "a", "stage": "up", "parts": [],
        "kind": "ram", "nodes": ["virtual-login"], "used_at": 1000, "bytes": 2000,
        "key": ready.key, "used_by": "", "flaw": "",
    }  # fmt: skip
    assert (second["id"], second["used_by"]) == ("b-up", "b")
    assert (third["id"], third["flaw"]) == ("c-up", "volume '3.img' is gone")
    assert data["bytes"] == 5000
    (aside,) = data["set_aside"]
    assert aside["id"] == "bad"
    assert aside["why"].startswith("its manifest cannot be read")


def test_the_list_shows_state_and_sum(deepops, keep, book, ledger, connection):
    keep("one-up-123456", "1.img", instance="one")
    keep("two-up-123456", "2.img", instance="two")
    book.write(ledger("two"))
    out = deepops("checkpoint", "list")[1]
    lines = {line.split()[0]: line for line in out.splitlines() if "-123456" in line}
    assert "ready" in lines["one-up-123456"]
    assert "in use" in lines["two-up-123456"]
    assert "3.9 KiB of 20.0 GiB in all." in out


# -- checkpoint drop and gc -----------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--all", "a")])
def test_either_names_or_all_are_dropped(deepops, keep, store, words):
    keep("a", "a.img")
    status, out, err = deepops("checkpoint", "drop", *words)
    assert (status, out) == (2, "")
    assert "Give names, or --all." in err
    assert len(store.all()) == 1


def test_an_unknown_one_is_refused_and_no_other_dropped(deepops, keep, store):
    keep("a", "a.img")
    status, _, err = deepops("checkpoint", "drop", "a", "nope")
    assert status == 2
    assert "There is no checkpoint 'nope'; there are: a." in err
    assert len(store.all()) == 1


def test_one_in_use_is_refused_by_name_and_passed_over_by_all(deepops, keep, store, book, ledger):
    keep("a", "a.img", instance="a")
    keep("b", "b.img", instance="b")
    book.write(ledger("b"))
    status, _, err = deepops("checkpoint", "drop", "b")
    assert status == 2
    assert "Checkpoint 'b' is in use by cluster 'b'" in err
    assert deepops("checkpoint", "drop", "--all")[:2] == (0, "Removed: a.\n")
    assert [item.id for item in store.all()] == ["b"]
    assert deepops("checkpoint", "drop", "--all")[1] == "Nothing to remove.\n"


def test_a_volume_that_stays_is_an_error(deepops, keep, connection):
    keep("a", "a.img")
    connection.pool.volumes["a.ram"].stuck = True
    status, out, err = deepops("checkpoint", "drop", "a")
    assert status == 1
    assert "volume default/a.ram: cannot unlink file" in err
    assert "Removed" in out


def test_gc_removes_what_is_unfit_unfinished_old_or_too_much(deepops, keep, store, connection):
    now = time.time()
    keep("unfit", "unfit.img", instance="unfit")
    connection.pool.volumes["unfit.ram"].modified = "later"
    store.announce("half", "default", ["half.ram"])
    connection.pool.add("half.ram")
    keep("old", "old.img", instance="old", created=now - 3 * 86400)
    keep("young", "young.img", instance="young", created=now)
    status, out, _ = deepops("checkpoint", "gc", "--older-than", "2", "--json")
    said = json.loads(out)
    assert (status, said["left"]) == (0, [])
    assert {name.split("-")[0] for name in said["removed"]} == {"unfit", "half", "old"}
    assert set(connection.pool.volumes) == {"box.img", "young.img", "young.ram"}
    assert deepops("checkpoint", "gc", "--checkpoint-budget", "0")[1] == "Removed: young.\n"
    assert set(connection.pool.volumes) == {"box.img"}


# -- status and clean -----------------------------------------------------------------------


def test_status_tells_a_script_what_each_cluster_takes_and_whose_it_is(
    deepops, book, ledger, ended, connection
):
    connection.pool.add("one.img", 700)
    connection.pool.add("layer.img", 30)
    book.write(ledger("one", volumes=["one.img"], layers=["layer.img"], owner=ended))
    status, out, _ = deepops("status", "--json")
    data = json.loads(out)
    (one,) = data["instances"]
    assert (status, data["unreadable"]) == (0, [])
    assert (one["memory_bytes"], one["disk_bytes"]) == (0, 730)
    assert (one["abandoned"], one["owner"]["alive"]) == (True, False)
    assert one["nodes"] == {"virtual-login": {"state": "absent", "address": "", "devices": []}}


def test_status_shows_the_parts_that_are_deployed(deepops, book, ledger):
    book.write(ledger("one", state="deployed", parts=["slurm", "kubernetes"]))
    book.write(ledger("two", state="up"))
    lines = deepops("status")[1].splitlines()
    assert any(line.startswith("one: deployed (slurm, kubernetes), process ") for line in lines)
    assert any(line.startswith("two: up, process ") for line in lines)
    parts = {item["name"]: item["parts"] for item in json.loads(deepops("status", "--json")[1])[
        "instances"]}  # fmt: skip
    assert parts == {"one": ["slurm", "kubernetes"], "two": []}


def test_the_list_of_checkpoints_shows_the_parts(deepops, keep):
    keep("one-deployed-123456", "1.img", stage="deployed", parts=["slurm"])
    out = deepops("checkpoint", "list")[1]
    assert "deployed: slurm" in next(line for line in out.splitlines() if "-123456" in line)


def test_a_checkpoints_disks_are_not_counted_as_the_clusters(
    deepops, book, ledger, keep, connection
):
    keep("one-up", "layer.img")
    connection.pool.add("one.img", 700)
    book.write(ledger("one", volumes=["one.img"], layers=["layer.img"]))
    (one,) = json.loads(deepops("status", "--json")[1])["instances"]
    assert (one["disk_bytes"], one["abandoned"]) == (700, False)


def test_a_ledger_that_cannot_be_read_is_a_warning(deepops, book, ledger, spoil):
    book.write(ledger("good"))
    spoil("bad")
    status, out, err = deepops("status")
    assert status == 0
    assert "good" in out
    assert "warning: The ledger of cluster 'bad' cannot be read" in err
    spoil("worse")
    (text,) = json.loads(deepops("status", "--json")[1])["unreadable"]
    assert "The ledger of cluster 'worse' cannot be read" in text


def test_clean_asks_before_it_destroys_what_was_kept(deepops, book, ledger, ended):
    book.write(ledger("mine", kept=True, state="up", owner=ended))
    for words in (("--all",), ("--all", "--json")):
        status, out, err = deepops("clean", *words)
        assert (status, out) == (2, "")
        assert "'--all' would destroy clusters that were kept: mine." in err
        assert "Next: deepops-virtual clean --all --yes" in err
    assert deepops("clean", "--all", "--dry-run")[:2] == (0, "Would destroy: mine.\n")
    assert deepops("clean")[:2] == (0, "Nothing to clean.\n")
    assert [item.name for item in book.all()] == ["mine"]


def test_clean_removes_what_is_left_of_a_checkpoint(deepops, keep, store, connection):
    keep("whole", "whole.img")
    store.announce("half", "default", ["half.ram"])
    connection.pool.add("half.ram")
    assert deepops("clean", "--dry-run")[1] == "Nothing to clean.\n"
    assert "half.ram" in connection.pool.volumes
    assert "Unfinished or unfit checkpoints removed: half.\n" in deepops("clean")[1]
    assert "half.ram" not in connection.pool.volumes
    assert [item.id for item in store.all()] == ["whole"]


def test_clean_leaves_one_alone_whose_taking_has_just_begun(deepops, store, book, ledger):
    book.write(ledger("one"))
    announced = threading.Event()

    def take():
        with book.locked():
            store.announce("half", "default", ["half.ram"])
            announced.set()
            time.sleep(0.5)
            book.update("one", taking="half")

    taker = threading.Thread(target=take)
    taker.start()
    assert announced.wait(10)
    status, out, _ = deepops("clean")
    taker.join()
    assert (status, out) == (0, "Nothing to clean.\n")
    assert store.path("half").is_dir()


# -- env ------------------------------------------------------------------------------------


def test_env_points_vagrant_at_a_cluster_and_does_not_claim_the_shell(deepops, book, ledger):
    book.write(ledger("one"))
    status, out, _ = deepops("env", "one")
    folder = book.path("one")
    assert status == 0
    assert f"export DEEPOPS_INSTANCE={folder}/instance.json\n" in out
    assert f"export VAGRANT_DOTFILE_PATH={folder}/vagrant\n" in out
    assert "export VAGRANT_VAGRANTFILE=Vagrantfile-debian\n" in out
    assert "DEEPOPS_VIRTUAL_INSTANCE" not in out


def test_env_of_a_cluster_that_is_not_there_is_refused(deepops):
    status, out, err = deepops("env", "nobody")
    assert (status, out) == (2, "")
    assert "nobody" in err


# -- up -------------------------------------------------------------------------------------


def test_up_brings_up_nothing_that_is_somebody_elses(deepops, tmp_path, monkeypatch):
    own = tmp_path / "Vagrantfile"
    own.write_text("# mine")
    monkeypatch.setenv("DEEPOPS_VAGRANT_FILE", str(own))
    status, _, err = deepops("up")
    assert status == 2
    assert f"What '{own}' describes is not ours to bring up." in err


# -- test -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "words", "folders"),
    [
        (["slurm"], [], ["slurm", "services", "gpu"]),
        (["slurm", "kubernetes"], ["-x"], ["slurm", "kubernetes", "services", "gpu"]),
        # What is named is deployed where it is missing, so it has to be collected.
        (["slurm"], ["-m", "kubernetes"], ["slurm", "kubernetes", "services", "gpu"]),
        ([], [], ["slurm", "kubernetes", "services", "gpu"]),
        (["slurm"], ["PATH"], []),
    ],
)
def test_the_checks_are_those_of_what_is_deployed(
    deepops, book, ledger, monkeypatch, tmp_path, there, words, folders
):
    book.write(ledger("one", parts=there))
    called = []
    monkeypatch.setattr("os.execv", lambda program, words: called.extend(words))
    words = [str(tmp_path) if word == "PATH" else word for word in words]
    assert deepops("test", "one", *words)[0] == 0
    at = called.index("--deepops-attach")
    assert called[at + 1 : at + 2 + len(words)] == ["one", *words]
    paths = [Path(word) for word in called[at + 2 + len(words) :] if word.startswith("/")]
    assert [path.name for path in paths] == folders
    assert all(path.is_dir() for path in paths)
    # Modules of two folders have one name.
    assert ("--import-mode=importlib" in called) == bool(folders)
