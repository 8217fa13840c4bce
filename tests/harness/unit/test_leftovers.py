"""What a killed process leaves of a checkpoint, and whose the frozen disks are."""

import pytest


@pytest.fixture
def pool(connection):
    return connection.pool


def cut(store, pool, checkpoint, *names):
    """Leave what a take leaves that was killed before its manifest was written."""
    folder = store.announce(checkpoint, "default", names)
    for name in names:
        pool.add(name)
    return folder


def test_an_unfinished_one_is_collected_with_its_volumes(store, keep, pool):
    keep("whole", "whole.img")
    cut(store, pool, "half", "half.img", "half.ram")
    assert store.unfinished() == ["half"]
    assert store.collect() == ["half"]
    assert store.unfinished() == store.collect() == []
    assert set(pool.volumes) == {"box.img", "whole.img", "whole.ram"}


def test_volumes_that_a_checkpoint_or_an_instance_still_needs_are_spared(
    store, book, keep, pool, ledger
):
    keep("whole", "shared.img")
    book.write(ledger("other", volumes=["disk.img"], layers=["layer.img"]))
    cut(store, pool, "half", "shared.img", "disk.img", "layer.img", "half.ram")
    assert store.collect() == ["half"]
    assert {"shared.img", "disk.img", "layer.img"} <= set(pool.volumes)
    assert "half.ram" not in pool.volumes


def test_one_that_is_being_taken_is_left_alone(store, book, pool, ledger):
    book.write(ledger("one", taking="half"))
    cut(store, pool, "half", "half.ram")
    assert store.unfinished() == store.collect() == []
    assert "half.ram" in pool.volumes
    book.update("one", taking="")
    assert store.collect() == ["half"]


@pytest.mark.parametrize("text", ["", '{"pool": "default", "vol', "[]", '{"volumes": 7}'])
def test_a_half_written_announcement_owns_nothing(store, keep, pool, text):
    keep("whole", "whole.img")
    folder = cut(store, pool, "half", "half.ram")
    (folder / "volumes.json").write_text(text)
    assert store.collect() == ["half"]
    assert not folder.exists()
    assert "half.ram" in pool.volumes


def test_a_folder_without_an_announcement_is_collected(store, connection):
    store.path("half").mkdir(parents=True)
    assert store.collect() == ["half"]


def test_what_resists_stays_announced_until_it_goes(store, keep, pool):
    folder = cut(store, pool, "half", "half.ram")
    pool.volumes["half.ram"].stuck = True
    assert store.collect() == []
    assert folder.exists()
    pool.volumes["half.ram"].stuck = False
    assert store.collect() == ["half"]


def test_one_that_was_set_aside_is_collected_with_its_volumes(store, keep, pool):
    keep("bad", "bad.img")
    store.set_aside("bad", "it could not be restored")
    assert store.all() == []
    assert {"bad.img", "bad.ram"} <= set(pool.volumes)
    (name,) = store.collect()
    assert name.startswith("bad-")
    assert set(pool.volumes) == {"box.img"}
    assert list(store.aside.iterdir()) == []


def test_one_that_was_set_aside_takes_no_disk_that_another_stands_on(store, keep, pool):
    keep("up", "1.img")
    deployed = keep("deployed", "1.img", "2.img")
    store.set_aside("up", "volume 'up.ram' is gone")
    store.collect()
    assert store.flaw(deployed) == ""
    assert set(pool.volumes) == {"box.img", "1.img", "2.img", "deployed.ram"}


def test_the_last_of_an_instance_that_was_set_aside_takes_the_disks_below_its_own(
    store, keep, pool
):
    up = keep("up", "1.img")
    keep("deployed", "1.img", "2.img")
    store.drop(up)
    store.set_aside("deployed", "volume 'deployed.ram' was changed after it had been taken")
    store.collect()
    assert set(pool.volumes) == {"box.img"}


def test_a_disk_below_that_resists_the_last_drop_goes_another_time(store, keep, pool):
    up, deployed = keep("up", "1.img"), keep("deployed", "1.img", "2.img")
    store.drop(up)
    pool.volumes["1.img"].stuck = True
    assert store.drop(deployed) == ["volume default/1.img: cannot unlink file '/pool/1.img'"]
    pool.volumes["1.img"].stuck = False
    store.collect()
    assert set(pool.volumes) == {"box.img"}


def test_the_attempt_of_an_instance_that_went_is_forgotten_and_a_whole_one_is_not(
    store, keep, pool
):
    folder = cut(store, pool, "half", "half.ram")
    keep("whole", "whole.img")
    for checkpoint in ("half", "whole", "unknown", ""):
        store.abandon(checkpoint)
    assert not folder.exists()
    assert [item.id for item in store.all()] == ["whole"]


def test_an_instance_takes_its_own_disks_along_and_no_others(store, book, keep, ledger):
    keep("up", "1.img")
    mine = ledger("one", volumes=["one.img"], layers=["1.img", "private.img", "shared.img"])
    book.write(mine)
    book.write(ledger("two", volumes=["two.img"], layers=["shared.img"]))
    # The frozen disk is the checkpoint's, the shared one is also under the other instance.
    assert store.own_volumes(mine) == ["one.img", "private.img"]


def test_the_disks_of_an_instance_are_those_its_ledger_names_now(store, book, ledger):
    before = ledger("one", volumes=["one.img"])
    book.write(before)
    book.update("one", volumes=["one.img", "later.img"])
    assert store.own_volumes(before) == ["later.img", "one.img"]


def test_what_only_an_instance_could_go_back_to_goes_with_it(store, book, keep, ledger):
    keep("up", "1.img")
    keep("here", "1.img", "2.img", stage="here")
    keep("elsewhere", "3.img", stage="here", instance="two")
    mine = ledger("one", volumes=["one.img"], layers=["1.img", "2.img"])
    book.write(mine)
    store.forget_private(mine)
    assert {item.id for item in store.all()} == {"elsewhere", "up"}
    assert store.own_volumes(mine) == ["2.img", "here.ram", "one.img"]


def test_without_anything_private_the_ledger_is_left_as_it_is(store, book, keep, ledger):
    keep("up", "1.img")
    mine = ledger("one", volumes=["one.img"])
    book.write(mine)
    store.forget_private(mine)
    assert book.get("one") == mine
    assert [item.id for item in store.all()] == ["up"]
