"""Moving devices to vfio-pci and back, on a kernel that is played by files."""

import json
from pathlib import Path

import pytest

from deepops_fixtures.errors import DeepopsError, StepTimeout, UsageProblem
from deepops_fixtures.passthrough.binding import MEMORY, Binder
from deepops_fixtures.passthrough.pci import Bdf, Host
from tests.harness.unit import pci_trees as trees
from tests.harness.unit.pci_trees import HostTree

GPU, AUDIO = "0000:02:00.0", "0000:02:00.1"


class Kernel:
    """Does to a tree what the kernel does when 'unbind' and 'drivers_probe' are written to."""

    def __init__(self, tree: HostTree, refuses: str = "", ignores: str = "") -> None:
        self.tree, self.refuses, self.ignores = tree, refuses, ignores
        self.written: list[tuple[str, str]] = []

    def write(self, path: Path, text: str) -> None:
        self.written.append((path.name, text.strip()))
        if path.name == "drivers_probe" and text.strip() == self.refuses:
            raise OSError(22, "Invalid argument")
        path.write_text(text)
        bdf = text.strip()
        if path.name == "unbind":
            self.tree.bind(bdf, "")
        if path.name == "drivers_probe" and bdf != self.ignores:
            self.tree.bind(bdf, (self.tree.place(bdf) / "driver_override").read_text().strip())


@pytest.fixture
def tree(tmp_path):
    """A workstation whose second card is with the host's drivers; vfio-pci is loaded."""
    tree = trees.workstation(HostTree(tmp_path))
    tree.bind(GPU, "nouveau").bind(AUDIO, "snd_hda_intel")
    tree.driver("vfio-pci")
    return tree


def devices(tree: HostTree, *bdfs: str):
    host = Host(tree.root)
    return [host.get(Bdf.parse(bdf)) for bdf in bdfs]


def binder(tree: HostTree, kernel: Kernel | None = None) -> Binder:
    return Binder(Host(tree.root), write=(kernel or Kernel(tree)).write, patience=0.1)


def drivers(tree: HostTree, *bdfs: str) -> list[str]:
    return [item.driver for item in devices(tree, *bdfs)]


def test_a_card_is_moved_to_vfio_with_all_its_functions(tree):
    kernel = Kernel(tree)
    moved = binder(tree, kernel).bind(devices(tree, GPU, AUDIO))
    assert list(map(str, moved)) == [GPU, AUDIO]
    assert drivers(tree, GPU, AUDIO) == ["vfio-pci", "vfio-pci"]
    assert kernel.written[:3] == [
        ("driver_override", "vfio-pci"),
        ("unbind", GPU),
        ("drivers_probe", GPU),
    ]


def test_it_comes_back_to_the_drivers_it_had_and_nothing_is_left_over(tree):
    binder(tree).bind(devices(tree, GPU, AUDIO))
    back = binder(tree).unbind(devices(tree, GPU, AUDIO))
    assert {str(bdf): driver for bdf, driver in back.items()} == {
        GPU: "nouveau",
        AUDIO: "snd_hda_intel",
    }
    assert drivers(tree, GPU, AUDIO) == ["nouveau", "snd_hda_intel"]
    assert (tree.place(GPU) / "driver_override").read_text() == "\n"
    assert json.loads((tree.root / MEMORY.lstrip("/")).read_text()) == {}


def test_a_device_without_driver_comes_back_to_none(tree):
    tree.bind(AUDIO, "")
    binder(tree).bind(devices(tree, AUDIO))
    assert drivers(tree, AUDIO) == ["vfio-pci"]
    assert binder(tree).unbind(devices(tree, AUDIO)) == {Bdf.parse(AUDIO): ""}
    assert drivers(tree, AUDIO) == [""]


def test_what_is_on_vfio_already_is_left_alone(tree):
    tree.bind(GPU, "vfio-pci")
    kernel = Kernel(tree)
    assert list(map(str, binder(tree, kernel).bind(devices(tree, GPU, AUDIO)))) == [AUDIO]
    binder(tree).unbind(devices(tree, GPU, AUDIO))
    assert drivers(tree, GPU, AUDIO) == ["vfio-pci", "snd_hda_intel"]


def test_moving_it_twice_does_not_forget_the_first_driver(tree):
    binder(tree).bind(devices(tree, GPU))
    tree.bind(GPU, "")
    binder(tree).bind(devices(tree, GPU))
    assert binder(tree).unbind(devices(tree, GPU)) == {Bdf.parse(GPU): "nouveau"}


def test_without_the_driver_nothing_is_begun(tree):
    kernel = Kernel(tree)
    (tree.root / "sys/bus/pci/drivers/vfio-pci/bind").unlink()
    for path in (tree.root / "sys/bus/pci/drivers/vfio-pci").iterdir():
        path.unlink()
    (tree.root / "sys/bus/pci/drivers/vfio-pci").rmdir()
    with pytest.raises(UsageProblem, match="no driver 'vfio-pci' loaded") as problem:
        binder(tree, kernel).bind(devices(tree, GPU))
    assert problem.value.hint == "sudo modprobe vfio-pci"
    assert kernel.written == [] and not (tree.root / MEMORY.lstrip("/")).exists()


def test_a_user_who_may_not_write_is_told_to_use_sudo(tree, monkeypatch):
    kernel = Kernel(tree)
    monkeypatch.setattr("deepops_fixtures.passthrough.binding.os.access", lambda *_: False)
    with pytest.raises(UsageProblem, match="may not be written by this user") as problem:
        binder(tree, kernel).bind(devices(tree, GPU))
    assert problem.value.hint.startswith("sudo ")
    assert kernel.written == []


def test_when_the_kernel_refuses_one_function_the_others_go_back(tree):
    with pytest.raises(DeepopsError, match=f"'{AUDIO}' could not be moved.*Invalid argument"):
        binder(tree, Kernel(tree, refuses=AUDIO)).bind(devices(tree, GPU, AUDIO))
    assert drivers(tree, GPU) == ["nouveau"]


def test_when_a_driver_does_not_take_a_device_that_is_said_and_the_rest_goes_back(tree):
    with pytest.raises(StepTimeout, match=f"'{AUDIO}' is on driver '' and not on 'vfio-pci'"):
        binder(tree, Kernel(tree, ignores=AUDIO)).bind(devices(tree, GPU, AUDIO))
    assert drivers(tree, GPU) == ["nouveau"]


def test_what_was_bound_from_boot_on_is_not_unbound(tree):
    tree.bind(GPU, "vfio-pci")
    kernel = Kernel(tree)
    with pytest.raises(UsageProblem, match="was not bound by this tool") as problem:
        binder(tree, kernel).unbind(devices(tree, GPU))
    assert "gpu prepare" in problem.value.hint
    assert kernel.written == []


def test_a_memory_that_cannot_be_read_is_refused_before_anything_moves(tree):
    tree.file(MEMORY, "[")
    kernel = Kernel(tree)
    with pytest.raises(UsageProblem, match=r"drivers.json' cannot be read"):
        binder(tree, kernel).bind(devices(tree, GPU))
    assert kernel.written == []


def test_a_memory_that_cannot_be_written_is_refused_before_anything_moves(tree):
    tree.file("/run/deepops-fixtures", "in the way")
    kernel = Kernel(tree)
    with pytest.raises(UsageProblem, match=r"drivers.json' cannot be written"):
        binder(tree, kernel).bind(devices(tree, GPU))
    assert kernel.written == []
