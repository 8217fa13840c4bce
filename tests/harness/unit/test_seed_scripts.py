"""DeepOps Virtual's commands by name: each one call of deepops-virtual, on one cluster."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deepops_fixtures import resources

FAKE = """\
#!/bin/sh
if [ "$1" = env ]; then
  echo "export VAGRANT_DOTFILE_PATH={state}/vagrant"
  exit 0
fi
echo "OS=$DEEPOPS_VAGRANT_OS CLUSTER=$DEEPOPS_CLUSTER REPORTS=$DEEPOPS_REPORTS" >>{calls}
for word in "$@"; do printf '<%s>' "$word" >>{calls}; done
echo >>{calls}
exit {status}
"""
SCRIPTS = ("vagrant_startup.sh", "cluster_up.sh", "cluster_destroy.sh")


class Seed:
    """A copy of the folder with the scripts, and a deepops-virtual that notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.vagrant = folder / "checkout" / "vagrant"
        ignored = shutil.ignore_patterns(".vagrant")
        shutil.copytree(resources.vagrant(), self.vagrant, ignore=ignored)
        self.state = folder / "state"
        (self.state / "vagrant").mkdir(parents=True)
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.ends_with(0)

    def ends_with(self, status: int) -> None:
        fake = self.bin / "deepops-virtual"
        fake.write_text(FAKE.format(calls=self.calls, state=self.state, status=status))
        fake.chmod(0o755)

    def run(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
        path = f"{self.bin}:/usr/bin:/bin"
        return subprocess.run(
            [self.vagrant / script, *words], env={"PATH": path, "HOME": "/nowhere", **variables},
            capture_output=True, text=True, cwd="/",
        )  # fmt: skip

    def said(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def seed(tmp_path):
    return Seed(tmp_path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("vagrant_startup.sh", "<up><--name><virtual><--keep-failed>"),
        ("cluster_up.sh", "<deploy><virtual><--keep-failed>"),
        ("cluster_destroy.sh", "<destroy><virtual><--keep-failed>"),
    ],
)
def test_each_is_one_call_on_the_same_cluster(seed, script, words):
    assert seed.run(script, "--keep-failed").returncode == 0
    assert seed.said()[1:] == [words]
    seed.calls.unlink()
    seed.run(script, DEEPOPS_NAME="other")
    assert "<other>" in seed.said()[1]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [1, 2])
def test_the_status_is_handed_on(seed, script, status):
    seed.ends_with(status)
    assert seed.run(script).returncode == status
    assert not (seed.vagrant / ".vagrant").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_help_and_does_nothing(seed, script):
    done = seed.run(script, "--help")
    assert (done.returncode, done.stderr, seed.said()) == (0, "", [])
    assert f"Usage: ./{script}" in done.stdout
    assert "Exit status: 0" in done.stdout


def test_the_system_is_ubuntu_unless_something_else_is_said(seed):
    seed.run("vagrant_startup.sh")
    seed.run("vagrant_startup.sh", DEEPOPS_VAGRANT_OS="centos")
    seed.run("vagrant_startup.sh", DEEPOPS_CLUSTER="debian")
    assert [line.split(" REPORTS")[0] for line in seed.said()[::2]] == [
        "OS=ubuntu CLUSTER=",
        "OS=centos CLUSTER=",
        "OS= CLUSTER=debian",
    ]


def test_vagrant_finds_the_machines_until_they_are_destroyed(seed):
    link = seed.vagrant / ".vagrant"
    link.mkdir()
    (link / "rgloader").mkdir()
    assert seed.run("vagrant_startup.sh").returncode == 0
    assert link.readlink() == seed.state / "vagrant"
    assert seed.run("cluster_destroy.sh").returncode == 0
    assert not link.is_symlink()
    assert (seed.state / "vagrant").is_dir()


def test_what_vagrant_knows_of_other_machines_is_not_touched(seed):
    other = seed.vagrant / ".vagrant" / "machines" / "mine" / "libvirt"
    other.mkdir(parents=True)
    (other / "id").write_text("1234")
    done = seed.run("vagrant_startup.sh")
    assert done.returncode == 0
    assert "deepops-virtual ssh virtual NODE" in done.stderr
    assert (other / "id").exists()


def test_reports_of_a_checkout_lie_in_its_own_folder(seed):
    seed.run("cluster_up.sh")
    setup = seed.vagrant.parent / "setup.sh"
    setup.write_text('#!/bin/sh\necho "prepared: $*"\n')
    setup.chmod(0o755)
    seed.run("cluster_up.sh")
    assert seed.said()[0].endswith("REPORTS=")
    assert seed.said()[2].endswith(f"REPORTS={seed.vagrant.parent}/reports")
    (seed.bin / "deepops-virtual").unlink()
    assert seed.run("cluster_up.sh").stdout == "prepared: deepops-virtual deploy virtual\n"
    assert seed.run("setup.sh", "--check").stdout == "prepared: --check\n"


def test_without_the_program_it_is_told_how_to_come_by_it(seed):
    (seed.bin / "deepops-virtual").unlink()
    done = seed.run("cluster_up.sh")
    assert done.returncode == 127
    assert "pip install deepops-fixtures" in done.stderr


def test_a_vagrantfile_of_somebodys_own_is_vagrants(seed, tmp_path):
    own = tmp_path / "mine" / "Vagrantfile-mine"
    own.parent.mkdir()
    own.write_text("# mine")
    fake = seed.bin / "vagrant"
    fake.write_text('#!/bin/sh\necho "$PWD $VAGRANT_VAGRANTFILE: $*"\n')
    fake.chmod(0o755)
    said = f"{own.parent} Vagrantfile-mine: "
    mine = {"DEEPOPS_VAGRANT_FILE": str(own)}
    assert seed.run("vagrant_startup.sh", **mine).stdout == f"{said}up --provider=libvirt\n"
    assert seed.run("cluster_destroy.sh", **mine).stdout == f"{said}destroy --force\n"
    done = seed.run("cluster_up.sh", **mine)
    assert done.returncode == 2
    assert f"pytest --deepops-vagrant-file {own}" in done.stderr
    assert seed.said() == []
    seed.run("cluster_destroy.sh", DEEPOPS_CLUSTER="debian", **mine)
    assert seed.said()[1] == "<destroy><virtual>"


def test_one_of_the_projects_vagrantfiles_is_not_taken_for_somebodys_own(seed):
    for file in ("./Vagrantfile-centos", str(seed.vagrant / "Vagrantfile-centos")):
        seed.run("cluster_destroy.sh", DEEPOPS_VAGRANT_FILE=file)
    assert seed.said()[1::2] == ["<destroy><virtual>"] * 2


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(seed):
    scripts = sorted(path.name for path in seed.vagrant.glob("*.sh"))
    done = subprocess.run(
        ["shellcheck", "-x", *scripts], cwd=seed.vagrant, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("vagrant"), reason="Vagrant is not installed")
def test_vagrant_itself_reads_the_cluster_that_the_link_leads_to(seed):
    key = seed.state / "key"
    key.write_text("no key")
    data = {
        "vagrantfile": "Vagrantfile-centos", "name": "virtual", "box": "generic/rocky9",
        "nodes": [], "boot_timeout": 60, "private_key": str(key), "first_key": str(key),
        "accelerator": "tcg",
    }  # fmt: skip
    (seed.state / "instance.json").write_text(json.dumps(data))
    variables = {
        "HOME": str(seed.state), "VAGRANT_HOME": str(seed.state / "home"),
        "PATH": os.environ["PATH"], "VAGRANT_CHECKPOINT_DISABLE": "1",
    }  # fmt: skip
    validate = ["vagrant", "validate"]
    done = subprocess.run(
        validate, cwd=seed.vagrant, env=variables, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Next: ./vagrant_startup.sh" in done.stderr
    assert seed.run("vagrant_startup.sh").returncode == 0
    done = subprocess.run(
        validate, cwd=seed.vagrant, env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
