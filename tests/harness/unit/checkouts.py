"""A DeepOps tree in a git repository of its own, and a cluster of this host to apply it to."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deepops_fixtures.cluster.running import NodeData, RunningCluster
from deepops_fixtures.deepops.galaxy import Galaxy
from deepops_fixtures.deepops.toolchain import Toolchain

TREE = Path(__file__).resolve().parents[1] / "deepops_tree"
INVENTORY = """\
[all]
one ansible_connection=local deepops_address=10.86.0.11
two ansible_connection=local deepops_address=10.86.0.12

[all:vars]
ansible_python_interpreter={python}

[slurm-master]
one

[slurm-node]
two

[slurm-cluster]
one
two
"""


def git(folder: Path, *words: str) -> str:
    """Run git in a folder as nobody in particular; return what it says."""
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    """Make a repository of the tree, with a branch, a tag and one commit more."""
    shutil.copytree(_made(), folder, symlinks=True)
    return folder


@functools.cache
def _made() -> Path:
    """Make it once a process."""
    scratch = tempfile.TemporaryDirectory(prefix="deepops-tree-")
    atexit.register(scratch.cleanup)
    folder = Path(scratch.name) / "deepops"
    shutil.copytree(TREE, folder)
    git(folder, "init", "--quiet", "--initial-branch=master")
    (folder / ".gitignore").write_text(
        "/roles/galaxy/\n/collections/*\n/config*/\n!/config.example/\n*.log\n"
    )
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "-m", "One")
    git(folder, "tag", "26.05")
    git(folder, "branch", "feature/nfs")
    (folder / "new.txt").write_text("two")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Two")
    return folder


def this_host(folder: Path) -> RunningCluster:
    """Return a cluster of two nodes that are both this host."""
    inventory = folder / "inventory.ini"
    inventory.write_text(INVENTORY.format(python=sys.executable))
    nodes = [
        NodeData(name="one", groups=["slurm-master", "slurm-cluster"], connection="local"),
        NodeData(name="two", groups=["slurm-node", "slurm-cluster"], connection="local"),
    ]
    return RunningCluster(name="mine", provider="vagrant", nodes=nodes, inventory=inventory)


class OwnAnsible:
    """Has a checkout deployed with the Ansible that runs these tests: nothing is installed, and
    Galaxy gives nothing."""

    def __init__(self, monkeypatch) -> None:
        #: What was asked for.
        self.asked: list[tuple[str, ...]] = []

        def ensure(tools, _journal):
            self.asked.append(tools.packages)
            return Path(sys.executable).parent

        monkeypatch.setattr(Galaxy, "_ask", lambda _galaxy, _missing: None)
        monkeypatch.setattr(Toolchain, "ensure", ensure)
        monkeypatch.setattr(Toolchain, "bin", Path(sys.executable).parent)
