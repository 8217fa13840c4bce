"""The box cache: built once, whoever asks, and never taken for complete when it is not."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from deepops_fixtures.cluster.box import Box, BoxBuilder
from deepops_fixtures.errors import BoxError
from deepops_fixtures.journal import Journal

BUILD = """
import pathlib, sys, time
from deepops_fixtures.cluster import box
from deepops_fixtures.journal import Journal

folder = pathlib.Path(sys.argv[1])

def build(self):
    with (folder / "builds").open("a") as log:
        log.write("x")
    time.sleep(1)
    self.box.path.write_text("a box")

box.BoxBuilder.build = build
box.Box.registered = lambda self: True
made = box.Box("debian12", folder).ensure(Journal(folder / "events.jsonl"))
print("built" if made else "found")
"""


def test_two_processes_build_a_box_once(tmp_path):
    def ask(_number: int) -> str:
        command = [sys.executable, "-c", BUILD, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(ask, range(2))) == ["built", "found"]
    assert (tmp_path / "builds").read_text() == "x"


def test_a_vagrant_that_does_not_work_is_told_in_its_own_words(tmp_path, programs):
    programs(vagrant="echo 'Vagrant failed to initialize at a very early stage'; exit 1")
    with pytest.raises(BoxError, match="'vagrant box list' ended with status 1") as told:
        Box("debian12", tmp_path).registered()
    assert "at a very early stage" in told.value.detail
    assert "vagrant plugin repair" in told.value.hint


@pytest.mark.parametrize("step", ["_bootstrap", "_make_disk", "_finish", "_pack"])
@pytest.mark.parametrize("error", [BoxError("it broke"), KeyboardInterrupt()], ids=type)
def test_a_build_cut_short_leaves_nothing_that_is_taken_for_a_box(
    tmp_path, monkeypatch, step, error
):
    def broken(builder: BoxBuilder) -> None:
        (builder.work / "box.tar").write_text("half a box")
        raise error

    for name in ("_bootstrap", "_make_disk", "_finish", "_pack"):
        monkeypatch.setattr(BoxBuilder, name, broken if name == step else lambda self: None)
    monkeypatch.setattr(Box, "registered", lambda self: True)
    box, journal = Box("debian12", tmp_path), Journal(tmp_path / "events.jsonl")
    with pytest.raises(type(error)):
        box.ensure(journal)
    assert not box.path.exists()
    assert not list(box.cache.glob("*.building"))
    with pytest.raises(BoxError, match="is not built"):
        box.ensure(journal, build=False)


def test_the_key_changes_with_the_recipe_and_its_scripts(tmp_path, monkeypatch):
    plain = Box("debian12", tmp_path).key
    assert Box("debian12", tmp_path).key == plain
    monkeypatch.setenv("DEEPOPS_DEBIAN_MIRROR", "http://mirror.example/debian")
    assert Box("debian12", tmp_path).key != plain
