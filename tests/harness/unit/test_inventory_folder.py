"""A folder given as inventory: Ansible would execute whatever program is in it."""

from pathlib import Path

import psutil
import pytest

from deepops_fixtures.cluster.providers import inventory
from deepops_fixtures.cluster.providers.inventory import InventoryProvider
from deepops_fixtures.errors import StepTimeout, UsageProblem
from deepops_fixtures.journal import Journal

HOSTS = "[slurm-master]\nlogin\n[slurm-node]\ngpu01\n"


def provider(path: Path, run: Path) -> InventoryProvider:
    return InventoryProvider(path, Journal(run / "events.jsonl"), run)


def program(path: Path, mark: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\ntouch {mark}\necho "{{}}"\n')
    path.chmod(0o755)


def test_a_folder_of_inventories_and_variables_is_read(tmp_path: Path):
    folder = tmp_path / "site"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "hosts").write_text(HOSTS)
    assert {node.name for node in provider(folder, tmp_path).nodes()} == {"login", "gpu01"}


def test_no_program_of_a_folder_with_other_folders_is_executed(tmp_path: Path):
    folder, mark = tmp_path / "config", tmp_path / "executed"
    folder.mkdir()
    (folder / "inventory").write_text(HOSTS)
    program(folder / "helm" / "install.sh", mark)
    with pytest.raises(UsageProblem, match="has 'helm'") as said:
        provider(folder, tmp_path).nodes()
    assert said.value.hint == f"name the file: {folder}/inventory"
    assert not mark.exists()


def test_no_program_of_a_folder_that_everybody_may_write_to_is_executed(tmp_path: Path):
    folder, mark = tmp_path / "open", tmp_path / "executed"
    program(folder / "install.sh", mark)
    folder.chmod(0o777)
    with pytest.raises(UsageProblem, match="everybody may write there"):
        provider(folder, tmp_path).nodes()
    assert not mark.exists()


def test_an_inventory_that_takes_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(inventory, "_READING", 3)
    with pytest.raises(StepTimeout, match="did not end within 3 s"):
        provider(slow, tmp_path).nodes()
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
