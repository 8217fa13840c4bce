"""A preparation that is refused changes nothing, and one that cannot go on can be taken back."""

import os
from pathlib import Path

import pytest

from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.passthrough import backup, lease_files
from deepops_fixtures.passthrough.pci import Host
from tests.harness.unit.pci_trees import HostTree
from tests.harness.unit.preparations import GRUB, Programs, apply, debian, snapshot, state, undo


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostTree:
    """A Debian host that was never prepared; nothing has to be on the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    return debian(HostTree(tmp_path / "host"))


def test_a_file_that_somebody_changed_since_is_refused_with_the_change(tree):
    apply(tree)
    place = tree.root / "etc/default/grub"
    place.write_text(place.read_text() + "\nGRUB_TIMEOUT=1\n")
    assert state(tree).changed_since == ("/etc/default/grub",)
    before, run = snapshot(tree), Programs()
    with pytest.raises(UsageProblem, match="etc/default/grub' was changed by somebody") as caught:
        undo(tree, run)
    assert "+GRUB_TIMEOUT=1" in caught.value.detail
    assert "--undo --force" in caught.value.hint
    assert (snapshot(tree), run.ran) == (before, [])
    undo(tree, force=True)
    assert place.read_text() == f'{GRUB}="quiet"'


def test_a_file_that_somebody_put_back_by_hand_is_no_obstacle(tree):
    before = snapshot(tree)
    apply(tree)
    (tree.root / "etc/default/grub").write_text(f'{GRUB}="quiet"')
    undo(tree)
    assert snapshot(tree) == before


def test_what_somebody_changed_is_not_prepared_again_over_their_head(tree):
    apply(tree)
    tree.file("/etc/default/grub", f'{GRUB}="mine"\n')
    with pytest.raises(UsageProblem, match="was changed by somebody else"):
        apply(tree)
    assert (tree.root / "etc/default/grub").read_text() == f'{GRUB}="mine"\n'


def test_a_folder_that_cannot_be_written_is_refused(tree, monkeypatch):
    before, access = snapshot(tree), os.access
    blocked = tree.root / "etc/modprobe.d"
    monkeypatch.setattr(os, "access", lambda path, mode: path != blocked and access(path, mode))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageProblem, match=r"modprobe\.d' cannot be written, so nothing was"):
        apply(tree)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageProblem, match="preparing a host is for root") as caught:
        apply(tree)
    assert caught.value.hint.startswith('sudo "$(command -v deepops-virtual)" gpu prepare')
    assert snapshot(tree) == before
    assert not (tree.root / "var").exists()


def test_a_manifest_that_cannot_be_read_is_refused(tree):
    apply(tree)
    (tree.root / backup.MANIFEST.lstrip("/")).write_text("{")
    for action in (apply, undo, state):
        with pytest.raises(UsageProblem, match="is not what this program wrote there"):
            action(tree)


def test_two_at_a_time_are_one_too_many(tree):
    with (
        backup.locked(Host(tree.root)),
        pytest.raises(UsageProblem, match="Another 'deepops-virtual gpu prepare' is at work"),
    ):
        apply(tree)


def test_who_waited_while_the_lock_was_removed_does_not_have_it(tree, monkeypatch):
    host, lock = Host(tree.root), lease_files.lock

    def late(handle: int) -> bool:
        host.path(backup.FOLDER).rmdir()
        return lock(handle)

    monkeypatch.setattr(lease_files, "lock", late)
    with pytest.raises(UsageProblem, match="is at work on this host"), backup.locked(host):
        pass


def test_a_file_that_cannot_be_put_in_place_ends_half_way_and_can_be_taken_back(tree, monkeypatch):
    before, put = snapshot(tree), backup.put

    def full(place: Path, *rest: object) -> None:
        if place.name == "vfio.conf":
            raise OSError(28, "No space left on device")
        put(place, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "put", full)
    with pytest.raises(
        DeepopsError, match=r"vfio\.conf' could not be written: No space"
    ) as caught:
        apply(tree)
    assert "--undo" in caught.value.hint
    monkeypatch.setattr(backup, "put", put)
    undo(tree)
    assert snapshot(tree) == before


def test_the_manifest_is_no_more_readable_than_what_is_in_it(tree):
    apply(tree)
    manifest = tree.root / backup.MANIFEST.lstrip("/")
    assert manifest.stat().st_mode & 0o777 == 0o600  # /etc/modules is not for everyone here.
