"""deepops-virtual gpu prepare: what it says and with which status it ends."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from deepops_fixtures.cli import gpu_prepare
from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.passthrough import prepared
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.plans import Command
from tests.harness.unit import pci_trees
from tests.harness.unit.pci_trees import V100, HostTree

GRUB = "GRUB_CMDLINE_LINUX_DEFAULT"


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A Debian host with a V100, never prepared."""
    tree = pci_trees.no_iommu(HostTree(tmp_path / "host"))
    tree.file("/etc/modules", "loop\n")
    return tree.file("/etc/default/grub", f'{GRUB}="quiet"\n')


@pytest.fixture
def prepare(tree, command_line):
    """Return a function that runs 'gpu prepare' on the tree: status, output, error output."""
    return partial(command_line, "gpu", "prepare", "--root", str(tree.root))


def test_without_apply_it_shows_the_diff_and_changes_nothing(prepare, tree):
    before = sorted(path for path in tree.root.rglob("*"))
    status, out, _ = prepare("--device", V100)
    assert status == 0
    assert f'-{GRUB}="quiet"\n+{GRUB}="quiet intel_iommu=on iommu=pt"\n' in out
    assert "# intel_iommu=on: the IOMMU is on; iommu=pt: devices of the host" in out
    assert "+options vfio-pci ids=10de:1db1\n" in out
    assert "Then these run:\n  update-grub    # GRUB's menu" in out
    assert out.endswith("Nothing was changed. To do it, add --apply (as root).\n")
    assert sorted(path for path in tree.root.rglob("*")) == before


def test_apply_undo_and_again(prepare, tree):
    status, out, err = prepare("--device", V100, "--apply")
    assert (status, "To run there:\n  update-grub" in out, "Running" in err) == (0, True, False)
    assert out.endswith("The host is prepared. It counts from the next boot.\n")
    again = prepare("--device", V100, "--apply")
    assert again[:2] == (0, "This host is already prepared. It counts from the next boot.\n")
    status, out, _ = prepare("--undo")
    assert (status, f'+{GRUB}="quiet"\n' in out, "--- /etc/modprobe.d/vfio.conf" in out) == (
        0,
        True,
        True,
    )
    assert out.endswith("Everything is as it was before. It counts from the next boot.\n")
    assert (tree.root / "etc/default/grub").read_text() == f'{GRUB}="quiet"\n'
    assert prepare("--undo")[:2] == (
        0,
        "Nothing is prepared on this host, so there is nothing to take back.\n",
    )


def test_a_script_reads_what_was_done(prepare):
    data = json.loads(prepare("--device", V100, "--json")[1])
    assert (data["changed"], data["state"], data["reboot_due"]) == (False, "none", False)
    assert {item["path"]: item["action"] for item in data["files"]} == {
        "/etc/modules": "edit",
        "/etc/modules-load.d/vfio-pci.conf": "create",
        "/etc/modprobe.d/vfio.conf": "create",
        "/etc/modprobe.d/00-deepops-passthrough.conf": "create",
        "/etc/default/grub": "edit",
    }
    assert data["commands"] == ["update-grub", "update-initramfs -u -k all"]
    assert "+pci_stub\n" in data["files"][0]["diff"]
    data = json.loads(prepare("--device", V100, "--apply", "--json")[1])
    assert (data["changed"], data["state"], data["reboot_due"]) == (True, "applied", True)
    data = json.loads(prepare("--device", V100, "--apply", "--json")[1])
    assert (data["changed"], data["files"], data["commands"]) == (False, [], [])
    data = json.loads(prepare("--undo", "--json")[1])
    assert (data["changed"], data["state"], len(data["files"])) == (True, "none", 5)


def test_the_softdep_can_be_left_out(prepare):
    data = json.loads(prepare("--device", V100, "--no-nvidia-softdep", "--json")[1])
    assert not any("00-deepops" in item["path"] for item in data["files"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "No device was named."),
        (("--device", V100, "--apply", "--undo"), "--apply and --undo are opposites."),
        (("--undo", "--device", V100), "--undo takes back the whole preparation"),
        (("--device", V100, "--force"), "--force is for --undo only."),
        (("--device", "1db1"), "'1db1' is not a device ID."),
        (("--device", "10de:ffff", "--apply"), "This host has no device '10de:ffff'."),
        (("--device", "08:00.0", "--apply"), "'08:00.0' is an address"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(prepare, tree, words, why):
    status, out, err = prepare(*words)
    assert (status, out) == (2, "")
    assert why in err
    assert not (tree.root / "var").exists()


def test_a_root_that_is_not_there_is_refused(prepare, tmp_path):
    where = tmp_path / "none"
    for words in (("--undo",), ("--device", V100)):
        status, out, err = prepare("--root", str(where), *words)
        assert (status, out, err.splitlines()[0]) == (
            2,
            "",
            f"error: Folder '{where}' not found.",
        )


def test_hints_name_the_folder_that_was_asked_about(prepare, tree):
    here = f"--root {tree.root}"
    assert (
        f"Next: deepops-virtual gpu prepare --undo {here}\n"
        in prepare("--undo", "--device", V100)[2]
    )
    assert f"(IDs: deepops-virtual gpu list {here})" in prepare()[2]
    assert f"Next: deepops-virtual gpu list {here}\n" in prepare("--device", "10de:ffff")[2]


def test_an_id_of_one_device_cannot_be_had_by_moving_single_ones(prepare, tree):
    (tree.place("0000:08:00.0") / "boot_vga").write_text("1\n")
    assert prepare("--device", V100)[2].endswith("Next: leave this ID out\n")


def test_a_half_done_preparation_is_told_and_shown(prepare, tree):
    def fails(_argv: object, _log: object) -> int:
        return 3

    with pytest.raises(DeepopsError):
        prepared.apply(Host(tree.root), [V100], run=fails)
    status, out, _ = prepare("--device", V100)
    assert (status, "This host is half prepared; the rest is above." in out) == (0, True)
    assert json.loads(prepare("--device", V100, "--json")[1])["state"] == "partial"
    assert prepare("--device", V100, "--apply")[0] == 0
    assert json.loads(prepare("--device", V100, "--json")[1])["state"] == "applied"


def test_a_program_that_is_missing_is_told_before_anything_changes(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    command = Command(argv=("update-grub",), undo=("update-grub",), why="")
    with pytest.raises(DeepopsError, match="This host has no 'update-grub'") as caught:
        gpu_prepare._check_programs([command])
    assert caught.value.exit_code == 2


def test_a_command_is_run_with_its_output_in_the_log(tmp_path):
    log = tmp_path / "var" / "commands.log"
    assert gpu_prepare._run(("sh", "-c", "echo seen; exit 4"), log) == 4
    assert "seen" in log.read_text()
    with pytest.raises(DeepopsError, match="'no-such-program' cannot be started"):
        gpu_prepare._run(("no-such-program",), log)


def test_the_help_teaches_with_examples(prepare):
    status, out, _ = prepare("--help")
    assert status == 0
    assert "sudo deepops-virtual gpu prepare --device 10de:1db1 --device 10de:1ac1 --apply" in out
