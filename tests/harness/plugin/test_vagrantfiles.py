"""Vagrant itself reads the project's Vagrantfiles with every shipped cluster's data: what cannot
be started for want of a box is at least valid. Nothing is created."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from deepops_fixtures import resources
from deepops_fixtures.cluster import instance, topology
from deepops_fixtures.cluster.ledger import HandedThrough, Ledger, Owner
from deepops_fixtures.cluster.vagrant_tool import environment

pytestmark = pytest.mark.skipif(not shutil.which("vagrant"), reason="Vagrant is not installed")
GPU = HandedThrough(bdf="0000:08:00.0", id="10de:1db1", name="V100", iommu_group=7, driver="")


class Book:
    """Where an instance's folder is; nothing else is asked of a ledger book here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, _name: str) -> Path:
        return self._folder


def write(cluster: str, folder: Path, accelerator: str = "tcg", gpus=()) -> dict[str, str]:
    """Write an instance's data; return the variables that point Vagrant at it."""
    spec = topology.load(cluster)
    folder.mkdir(parents=True)
    (folder / "id_ed25519").write_text("no key")
    ledger = Ledger(
        name="one", owner=Owner.me(), created=time.time(), spec=spec, run_dir=folder,
        pool="default", domain_prefix="deepops-one_", domains=[], volumes=[],
        networks=["deepops-one", "deepops-one-mgmt"], subnets=["10.86.9.0/24", "10.87.9.0/24"],
        socket_dir=folder, accelerator=accelerator, gpus={name: [GPU] for name in gpus},
    )  # fmt: skip
    instance.write_data(
        ledger, folder, folder / "consoles", box=None, accelerator=accelerator, boot_timeout=60,
        hide_kvm=True,
    )  # fmt: skip
    return environment(ledger, Book(folder))


def vagrant(command: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["vagrant", command], env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def every_vagrantfile() -> list[str]:
    return sorted(path.name for path in resources.vagrant().glob("Vagrantfile-*"))


def test_each_vagrantfile_is_tried():
    used = {topology.load(name).vagrantfile for name in topology.available()}
    assert sorted(used) == every_vagrantfile()


@pytest.mark.parametrize("cluster", topology.available())
def test_vagrant_finds_nothing_wrong(cluster, tmp_path):
    done = vagrant("validate", write(cluster, tmp_path / "instance"))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Vagrantfile validated successfully" in done.stdout


def test_vagrant_finds_nothing_wrong_with_gpus_and_kvm(tmp_path):
    nodes = ("virtual-gpu01", "virtual-gpu02")
    done = vagrant("validate", write("ubuntu-22.04-full", tmp_path / "instance", "kvm", nodes))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_vagrant_would_find_what_is_wrong(tmp_path, monkeypatch):
    copy = tmp_path / "vagrant"
    shutil.copytree(resources.vagrant(), copy)
    monkeypatch.setattr(resources, "vagrant", lambda: copy)
    shared = copy / "cluster.rb"
    shared.write_text(shared.read_text().replace("v.cpus = ", "v.processors = "))
    done = vagrant("validate", write("tiny", tmp_path / "instance"))
    assert done.returncode != 0
    assert "processors" in done.stdout + done.stderr


def test_without_a_clusters_data_vagrant_says_what_to_do(tmp_path):
    variables = write("centos", tmp_path / "instance")
    done = vagrant("validate", {**variables, "DEEPOPS_INSTANCE": str(tmp_path / "none.json")})
    assert done.returncode != 0
    assert "Next: bring a cluster up with 'deepops-virtual up'" in done.stderr
