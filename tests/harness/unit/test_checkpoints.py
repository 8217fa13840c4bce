"""The store of checkpoints: what is trusted, who uses what, and what goes when one is dropped."""

import json
import os
import time

import pytest

from deepops_fixtures.cluster.checkpoints import Store, new_id
from deepops_fixtures.errors import UsageProblem


def ids(manifests) -> list[str]:
    return [item.id for item in manifests]


def damage(store, checkpoint, **fields):
    """Change fields of a manifest on the disk."""
    path = store.path(checkpoint) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_is_written_is_read_back_oldest_first(store, keep):
    young = keep("a", "a.img", created=300.0)
    keep("b", "b.img", created=100.0)
    keep("c", "c.img", created=200.0)
    assert ids(store.all()) == ["b", "c", "a"]
    assert store.get("a") == young


def test_one_from_before_there_were_parts_has_the_one_of_its_cluster(store, keep):
    made = keep("a", "a.img", stage="deployed", parts=["slurm"])
    path = store.path("a") / "manifest.json"
    old = json.loads(path.read_text())
    del old["parts"]
    old["spec"]["deployment"] = "slurm"
    old["spec"]["nodes"]["virtual-login"]["groups"] = ["slurm-master", "slurm-node"]
    path.write_text(json.dumps(old))
    (seen,) = store.all()
    assert (seen.parts, seen.told, store.rejected) == (made.parts, "deployed: slurm", [])


def test_a_store_that_nobody_has_used_is_empty(store):
    assert store.all() == store.unfinished() == store.collect() == []
    assert store.bases() == set()


def test_an_unknown_one_is_refused_and_the_known_ones_named(store, keep):
    keep("a", "a.img")
    with pytest.raises(UsageProblem, match=r"no checkpoint 'b'; there are: a\."):
        store.get("b")


@pytest.mark.parametrize("text", ["", "{", '{"id": "bad"', "[]", "\x00\x00", '{"id": "bad"}'])
def test_a_broken_manifest_is_set_aside_with_the_reason_and_the_others_are_read(store, keep, text):
    keep("bad", "bad.img")
    keep("good", "good.img")
    (store.path("bad") / "manifest.json").write_text(text)
    assert ids(store.all()) == ["good"]
    ((name, why),) = store.rejected
    assert name == "bad"
    assert why.startswith("its manifest cannot be read (")
    (folder,) = store.aside.glob("bad-*")
    assert (folder / "manifest.json").read_text() == text
    assert (folder / "why").read_text().strip() == why
    again = Store(store.book)
    assert (ids(again.all()), again.rejected) == (["good"], [])


def test_a_manifest_that_cannot_be_opened_is_set_aside_too(store, keep):
    keep("bad", "bad.img")
    (store.path("bad") / "manifest.json").unlink()
    (store.path("bad") / "manifest.json").mkdir()
    assert store.all() == []
    ((name, why),) = store.rejected
    assert (name, "its manifest cannot be read ([Errno 21] Is a directory: " in why) == (
        "bad",
        True,
    )


def test_a_manifest_in_the_folder_of_another_is_not_trusted(store, keep):
    keep("a", "a.img")
    store.path("a").rename(store.path("b"))
    assert store.all() == []
    assert "it is 'a', in the folder of another" in store.rejected[0][1]


def test_a_checkpoint_of_another_format_is_set_aside_as_such(store, keep):
    keep("old", "old.img")
    damage(store, "old", format=0)
    assert store.all() == []
    assert store.rejected == [("old", "another version of deepops-fixtures made it")]


def test_an_untouched_checkpoint_has_no_flaw(store, keep):
    assert store.flaw(keep("a", "a.img")) == ""


@pytest.mark.parametrize("name", ["a.img", "a.ram", "box.img"])
def test_a_volume_that_is_gone_is_a_flaw(store, keep, connection, name):
    made = keep("a", "a.img")
    del connection.pool.volumes[name]
    assert store.flaw(made) == f"volume '{name}' is gone"


@pytest.mark.parametrize("field", ["modified", "capacity"])
def test_a_volume_that_was_written_or_cut_is_a_flaw(store, keep, connection, field):
    made = keep("a", "a.img")
    setattr(connection.pool.volumes["a.ram"], field, 77)
    assert store.flaw(made) == "volume 'a.ram' was changed after it had been taken"


def test_a_volume_that_libvirt_did_not_list_when_it_was_taken_is_a_flaw(store, keep):
    made = keep("a", "a.img", signatures={})
    assert store.flaw(made) == "volume 'a.img' was not seen when it was taken"


def test_blocks_that_the_file_system_counts_late_are_none(store, keep, connection):
    made = keep("a", "a.img")
    connection.pool.volumes["a.img"].size += 4096
    assert store.flaw(made) == ""


def test_after_a_restart_of_the_host_only_what_is_known_to_be_on_the_disk_is_trusted(store, keep):
    hasty = keep("hasty", "hasty.img", boot="another boot")
    assert store.flaw(hasty) == "this host was restarted before all of it was on the disk"
    assert store.flaw(hasty.model_copy(update={"durable": True})) == ""


def test_a_checkpoint_is_used_by_its_instance_and_by_whoever_stands_on_its_disks(
    store, book, keep, ledger
):
    made = keep("a", "below.img", "a.img", instance="one")
    assert store.users(made) == []
    book.write(ledger("one"))
    book.write(ledger("two", layers=["below.img"]))
    book.write(ledger("three", layers=["other.img"], volumes=["three.img"]))
    assert {item.name for item in store.users(made)} == {"one", "two"}


def test_one_in_use_is_not_dropped_and_its_user_is_named(store, book, keep, ledger, connection):
    made = keep("a", "a.img")
    book.write(ledger("two", layers=["a.img"]))
    with pytest.raises(UsageProblem) as caught:
        store.drop(made)
    assert caught.value.message == (
        f"Checkpoint 'a' is in use by cluster 'two' (process {os.getpid()})."
    )
    assert caught.value.hint == "deepops-virtual destroy two"
    assert ids(store.all()) == ["a"]
    assert {"a.img", "a.ram"} <= set(connection.pool.volumes)


def test_who_holds_it_is_told_when_the_process_is_gone(store, book, keep, ledger, ended):
    made = keep("a", "a.img")
    book.write(ledger("two", layers=["a.img"], owner=ended))
    with pytest.raises(UsageProblem, match=r"by cluster 'two' \(its process is gone\)"):
        store.drop(made)
    book.update("two", kept=True)
    with pytest.raises(UsageProblem, match=r"by cluster 'two' \(kept\)"):
        store.drop(made)


def test_one_that_is_known_to_be_in_use_leaves_the_disks_and_takes_the_memory(
    store, book, keep, ledger, connection
):
    made = keep("here", "1.img", "2.img", stage="here")
    book.write(ledger("one", volumes=["one.img"], layers=["1.img", "2.img"]))
    assert store.drop(made, in_use=True) == []
    assert store.all() == []
    assert set(connection.pool.volumes) == {"box.img", "1.img", "2.img"}
    assert store.own_volumes(book.get("one")) == ["1.img", "2.img", "one.img"]


@pytest.mark.parametrize("first", ["up", "deployed"])
def test_dropping_keeps_what_another_stands_on_and_the_last_drop_removes_all_but_the_box(
    store, keep, connection, first
):
    made = {"up": keep("up", "1.img"), "deployed": keep("deployed", "1.img", "2.img")}
    last = "deployed" if first == "up" else "up"
    assert store.drop(made[first]) == []
    expected = {"up": {"box.img", "1.img", "up.ram"},
                "deployed": {"box.img", "1.img", "2.img", "deployed.ram"}}  # fmt: skip
    assert set(connection.pool.volumes) == expected[last]
    assert ids(store.all()) == [last]
    assert store.flaw(made[last]) == ""
    assert store.drop(made[last]) == []
    assert set(connection.pool.volumes) == {"box.img"}
    assert list(store.folder.iterdir()) == []


def test_what_cannot_be_removed_is_told_and_removed_another_time(store, keep, connection):
    made = keep("a", "a.img")
    connection.pool.volumes["a.ram"].stuck = True
    assert store.drop(made) == ["volume default/a.ram: cannot unlink file '/pool/a.ram'"]
    assert store.all() == []
    connection.pool.volumes["a.ram"].stuck = False
    assert store.collect() == ["a"]
    assert set(connection.pool.volumes) == {"box.img"}


def test_shared_disks_count_once(store, keep, connection):
    for name, size in {"1.img": 1000, "2.img": 200, "up.ram": 30, "deployed.ram": 4}.items():
        connection.pool.add(name, size)
    up, deployed = keep("up", "1.img"), keep("deployed", "1.img", "2.img")
    assert store.size([up]) == 1030
    assert store.size([deployed]) == 1204
    assert store.size([up, deployed]) == 1234


def used(store, checkpoint, seconds_ago):
    """Have a run have started from a checkpoint so long ago."""
    store.mark_used(store.get(checkpoint))
    moment = time.time() - seconds_ago
    os.utime(store.path(checkpoint) / "used", (moment, moment))


def test_room_is_made_by_what_was_not_used_for_longest(store, keep):
    for number, name in enumerate(("a", "b", "c"), 1):
        keep(name, f"{name}.img", instance=name, created=1000.0 * number)
    used(store, "a", seconds_ago=5)
    assert store.make_room(6000) == []
    assert ids(store.make_room(4000)) == ["b"]
    assert ids(store.make_room(2000)) == ["c"]
    assert ids(store.all()) == ["a"]


def test_no_room_is_made_of_one_in_use_nor_of_the_newest(store, book, keep, ledger):
    for number, name in enumerate(("a", "b", "c"), 1):
        keep(name, f"{name}.img", instance=name, created=1000.0 * number)
    book.write(ledger("a"))
    assert ids(store.make_room(0, keep="c")) == ["b"]
    assert ids(store.all()) == ["a", "c"]


def test_room_is_reckoned_with_shared_disks(store, keep, connection):
    connection.pool.add("1.img", 5000)
    keep("up", "1.img", created=1000.0)
    keep("deployed", "1.img", "2.img", created=2000.0)
    assert store.make_room(9000) == []
    assert ids(store.make_room(7500)) == ["up"]
    assert "1.img" in connection.pool.volumes


def test_a_new_one_has_a_name_that_tells_instance_and_stage():
    assert new_id("debian-1", "up").startswith("debian-1-up-")
    assert len({new_id("debian-1", "up") for _ in range(20)}) == 20
