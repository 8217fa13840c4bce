"""A preparation carried out, killed at every step, gone on with, and taken back byte for byte."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.passthrough import backup, prepared
from deepops_fixtures.passthrough.pci import Host
from tests.harness.unit import pci_trees
from tests.harness.unit.pci_trees import NVSWITCH, V100, HostTree
from tests.harness.unit.preparations import Programs, apply, debian, snapshot, state, undo


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked to be on the disk, in order; a busy disk takes its time, and no test here
    cuts the power."""
    found: list[str] = []

    def sync(descriptor: int) -> None:
        found.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", sync)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A Debian host that was never prepared, with files of odd modes and bytes."""
    return debian(HostTree(tmp_path / "host"))


@pytest.fixture
def rhel(tree: HostTree) -> HostTree:
    """The same host of the RHEL family."""
    (tree.root / "etc/modules").unlink()
    tree.file("/boot/loader/entries/abc-5.14.0.x86_64.conf", "options ro quiet\n")
    tree.file("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\n')
    return tree.os_release("rocky", "rhel centos fedora", "9.4")


# -- there and back -----------------------------------------------------------------------------


def test_apply_changes_the_files_runs_the_commands_and_says_that_a_reboot_is_due(tree):
    run = Programs()
    outcome = apply(tree, run=run)
    assert (outcome.changed, outcome.state, outcome.reboot_due) == (True, "applied", True)
    assert run.ran == ["update-grub", "update-initramfs -u -k all"]
    assert b'quiet intel_iommu=on iommu=pt"' in (tree.root / "etc/default/grub").read_bytes()
    assert not list((tree.root / "etc").rglob("*deepops-partial"))


def test_the_manifest_is_on_the_disk_before_the_first_file_changes(tree, synced, monkeypatch):
    replace, seen = Path.replace, []

    def watched(source: Path, target: Path) -> Path:
        seen.append((target.name, [Path(name).name for name in synced]))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watched)
    apply(tree)
    assert seen[0] == ("manifest.json", [".manifest.json.deepops-partial"])
    name, before = seen[1]
    assert name == "modules"
    assert before[1:] == ["passthrough", ".modules.deepops-partial"]


def test_mode_and_owner_of_an_edited_file_stay(tree):
    place = tree.root / "etc/modules"
    if os.geteuid() == 0:
        os.chown(place, 12, 34)
    before = place.stat()
    apply(tree)
    after = place.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert (tree.root / "etc/modprobe.d/vfio.conf").stat().st_mode & 0o777 == 0o644


def test_attributes_of_a_file_stay_and_a_file_system_without_any_is_no_obstacle(tree, monkeypatch):
    place = tree.root / "etc/modules"
    try:
        os.setxattr(place, "user.mark", b"ours")
    except OSError:
        pytest.skip("the file system of the tests keeps no attributes")
    apply(tree)
    assert os.getxattr(place, "user.mark") == b"ours"

    def none(_place):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", none)
    undo(tree)
    assert place.read_bytes() == b"# Gr\xfc\xdfe\nloop"


def test_every_user_may_read_what_is_made_whatever_roots_umask_is(tree):
    before = os.umask(0o077)
    try:
        apply(tree)
    finally:
        os.umask(before)
    for name in ("etc/modules-load.d", "var/lib", backup.FOLDER.lstrip("/")):
        assert (tree.root / name).stat().st_mode & 0o777 == 0o755, name


def test_a_second_apply_changes_nothing_and_runs_nothing(tree):
    apply(tree)
    before, run = snapshot(tree), Programs()
    outcome = apply(tree, run=run)
    assert (outcome.changed, outcome.files, outcome.commands, run.ran) == (False, (), (), [])
    assert (outcome.state, snapshot(tree)) == ("applied", before)


def test_undo_puts_back_every_byte_mode_owner_and_absence(tree):
    before, run = snapshot(tree), Programs()
    apply(tree)
    outcome = undo(tree, run)
    assert snapshot(tree) == before
    assert run.ran == ["update-initramfs -u -k all", "update-grub"]
    assert (outcome.changed, outcome.state, outcome.reboot_due) == (True, "none", True)
    assert {item.path: item.action for item in outcome.files}["/etc/modprobe.d/vfio.conf"] == (
        "remove"
    )
    assert state(tree).state == "none"


def test_undo_leaves_the_log_of_its_commands_and_says_so(tree):
    apply(tree)
    (note,) = undo(tree).notes
    (left,) = [path for path in (tree.root / "var").rglob("*") if path.is_file()]
    assert left.name == "commands.log"
    assert note == f"What the commands said is kept in '{left}'."


def test_undo_of_a_host_whose_commands_ran_elsewhere_leaves_nothing(tree):
    prepared.apply(Host(tree.root), [V100], run=None)
    assert prepared.undo(Host(tree.root), run=None).notes == ()
    assert list((tree.root / "var/lib").iterdir()) == []


def test_nothing_to_undo_is_no_error(tree):
    run = Programs()
    assert (undo(tree, run).changed, run.ran) == (False, [])


def test_more_devices_later_and_undo_still_goes_back_to_the_first(tree):
    pci_trees.gpu(tree, "0000:a0:00.0", device_id=NVSWITCH, group=None)
    before = snapshot(tree)
    apply(tree)
    outcome = apply(tree, NVSWITCH)
    text = (tree.root / "etc/modprobe.d/vfio.conf").read_text()
    assert "ids=10de:1db1,10de:1ac1\n" in text
    assert [item.path for item in outcome.files] == ["/etc/modprobe.d/vfio.conf"]
    assert state(tree).ids == (V100, NVSWITCH)
    undo(tree)
    assert snapshot(tree) == before


def test_the_reboot_is_due_until_the_host_was_started_anew(tree):
    apply(tree)
    assert state(tree).reboot_due
    tree.file("/proc/sys/kernel/random/boot_id", "second\n")
    assert (state(tree).state, state(tree).reboot_due) == ("applied", False)


def test_a_host_made_ready_by_hand_is_ready_when_it_was_started_like_that(tree):
    apply(tree)
    (tree.root / backup.MANIFEST.lstrip("/")).unlink()
    tree.cmdline("quiet")
    assert apply(tree).reboot_due
    tree.cmdline("intel_iommu=on", "iommu=pt")
    outcome = apply(tree)
    assert (outcome.changed, outcome.state, outcome.reboot_due) == (False, "applied", False)


def test_without_a_runner_the_commands_are_left_to_that_system(tree):
    outcome = prepared.apply(Host(tree.root), [V100], run=None)
    assert [item.argv[0] for item in outcome.commands] == ["update-grub", "update-initramfs"]
    assert state(tree).state == "applied"


# -- the RHEL family ----------------------------------------------------------------------------


def test_grubby_is_run_once_and_taken_back(rhel):
    before, run = snapshot(rhel), Programs()
    apply(rhel, run=run)
    # These entries are as they were: only the manifest knows that grubby was run.
    assert apply(rhel, run=Programs("grubby")).changed is False
    undo(rhel, run)
    assert run.ran == [
        "grubby --update-kernel=ALL --args=intel_iommu=on iommu=pt",
        "dracut -f --regenerate-all",
        "dracut -f --regenerate-all",
        "grubby --update-kernel=ALL --remove-args=intel_iommu iommu",
    ]
    assert snapshot(rhel) == before


def grubby_writes(tree: HostTree) -> Programs:
    class Grubby(Programs):
        def __call__(self, argv: tuple[str, ...], log: Path) -> int:
            if argv[0] == "grubby":
                tree.file("/etc/default/grub", f'GRUB_CMDLINE_LINUX="{argv[-1]}"\n')
            return super().__call__(argv, log)

    return Grubby()


def test_what_grubby_wrote_is_put_back_to_the_byte(rhel):
    before = snapshot(rhel)
    apply(rhel, run=grubby_writes(rhel))
    undo(rhel, grubby_writes(rhel))
    assert snapshot(rhel) == before


def test_what_somebody_wrote_after_grubby_is_theirs(rhel):
    apply(rhel, run=grubby_writes(rhel))
    rhel.file("/etc/default/grub", "MINE=1\n")
    undo(rhel)
    assert (rhel.root / "etc/default/grub").read_text() == "MINE=1\n"


# -- stopped half-way ---------------------------------------------------------------------------


def killed_at(step: int, name: str, action: Callable[[], object]) -> bool:
    """Do it in a process that kills itself at this call of a function of `backup`; return whether
    it came so far."""

    def work() -> None:
        calls = 0
        original = getattr(backup, name)

        def dying(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)

        setattr(backup, name, dying)
        action()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


#: Before a file is written; when it is in its place but perhaps not on the disk.
MOMENTS = ("put", "sync_folder")


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_step_apply_goes_on_and_undo_brings_everything_back(tree, moment):
    before = snapshot(tree)
    apply(tree)
    whole = snapshot(tree)
    undo(tree)
    steps = 0
    while killed_at(steps + 1, moment, lambda: apply(tree)):
        steps += 1
        undo(tree)
        assert snapshot(tree) == before, f"undo after a kill at step {steps}"
        killed_at(steps, moment, lambda: apply(tree))
        apply(tree)
        assert (snapshot(tree), state(tree).state) == (whole, "applied"), f"step {steps}"
        undo(tree)
        assert snapshot(tree) == before
    assert steps >= 8  # The manifest, five files, the manifest after each command and at the end.


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_step_undo_goes_on(tree, moment):
    before = snapshot(tree)
    steps = 0
    apply(tree)
    while killed_at(steps + 1, moment, lambda: undo(tree)):
        steps += 1
        undo(tree)
        assert snapshot(tree) == before, f"after a kill at step {steps}"
        apply(tree)
    assert steps >= 4
    assert (snapshot(tree), state(tree).state) == (before, "none")


def test_half_taken_back_it_is_not_applied_again(tree):
    apply(tree)
    assert killed_at(2, "put", lambda: undo(tree))
    with pytest.raises(UsageProblem, match="half taken back") as caught:
        apply(tree)
    assert caught.value.hint.endswith("--undo")


def test_half_prepared_for_other_devices_it_is_refused(tree):
    pci_trees.gpu(tree, "0000:a0:00.0", device_id=NVSWITCH, group=None)
    assert killed_at(3, "put", lambda: apply(tree))
    before = snapshot(tree)
    with pytest.raises(UsageProblem, match="half prepared for '10de:1db1'") as caught:
        apply(tree, NVSWITCH)
    assert f"--device {V100} --apply" in caught.value.hint
    assert snapshot(tree) == before


def test_a_command_that_fails_shows_its_log_and_is_run_again(tree):
    before = snapshot(tree)
    with pytest.raises(DeepopsError, match="'update-grub' failed with status 1") as caught:
        apply(tree, run=Programs("update-grub"))
    assert (caught.value.exit_code, "no space left" in caught.value.detail) == (1, True)
    assert f"--device {V100} --apply" in caught.value.hint
    told = state(tree)
    assert (told.state, told.pending[0].argv) == ("partial", ("update-grub",))
    run = Programs()
    assert apply(tree, run=run).state == "applied"
    assert run.ran == ["update-grub", "update-initramfs -u -k all"]
    undo(tree)
    assert snapshot(tree) == before


def test_undo_whose_command_fails_can_be_done_again(tree):
    before = snapshot(tree)
    apply(tree)
    with pytest.raises(DeepopsError, match="'update-initramfs -u -k all' failed"):
        undo(tree, Programs("update-initramfs"))
    assert snapshot(tree) == before
    run = Programs()
    undo(tree, run)
    assert run.ran == ["update-initramfs -u -k all", "update-grub"]
