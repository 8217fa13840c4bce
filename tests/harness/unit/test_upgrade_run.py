"""An upgrade applied to this host by a real Ansible: first the ref's playbooks, then the branch's,
each from a copy of its own."""

import json
from types import SimpleNamespace

from deepops_fixtures.applying import Applying
from deepops_fixtures.baseline import Baseline
from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.deepops import readying
from deepops_fixtures.deploy import timing
from deepops_fixtures.journal import Journal
from deepops_fixtures.rehearsal import Rehearsal
from deepops_fixtures.settings import Settings
from deepops_fixtures.stages import Stages
from deepops_fixtures.subject import Chosen
from tests.harness.unit import checkouts
from tests.harness.unit.branches import Branch


def test_the_refs_playbooks_run_and_then_the_branchs(tmp_path, book, ledger, monkeypatch):
    checkouts.OwnAnsible(monkeypatch)
    branch = Branch(tmp_path / "deepops")
    branch.write("roles/own/tasks/main.yml", "- name: as it was\n  debug:\n")
    branch.commit()
    branch.git("tag", "old")
    branch.write("roles/own/tasks/main.yml", "- name: as it will be\n  debug:\n")
    values = {
        "source": str(branch.tree), "upgrade_from": "old", "playbook": ("playbooks/tools.yml",),
        "parts": "slurm", "cache_dir": tmp_path / "cache", "state_dir": tmp_path / "state",
    }  # fmt: skip
    settings, run_dir = Settings.load(values), tmp_path / "20260101-000000-mine"
    run_dir.mkdir()
    spec, running = topology.load("debian"), checkouts.this_host(tmp_path)
    book.write(ledger("mine", spec=spec, socket_dir=tmp_path / "s"))
    journal = Journal(run_dir / "events.jsonl")
    # This host is not to be changed.
    monkeypatch.setattr(readying, "ready", lambda *_: None)
    stages = Stages(run_dir, journal)
    made = SimpleNamespace(
        settings=settings, run_dir=run_dir, chosen=Chosen(settings, spec, run_dir),
        stages=stages, _applying=Applying(settings, book, run_dir, journal),
        _baseline=Baseline(Store(book), stages, run_dir, journal),
    )  # fmt: skip
    (run_dir / "stages").mkdir()
    [first] = made.chosen.sources()
    made._applying.apply(running, first)
    Rehearsal._upgrade(made, running)

    results = [item.result for item in timing.deployments(run_dir)]
    ran = [[task.task for task in result.tasks] for result in results]
    assert ran == [["as it was"], ["as it will be"]]
    assert [result.onto for result in results] == [[], ["slurm of old"]]
    task = results[1].tasks[0]
    assert task.where == "roles/own/tasks/main.yml:1"
    old = run_dir / "deepops-before/slurm/roles/own/tasks/main.yml"
    assert "as it was" in old.read_text()
    assert json.loads((run_dir / "deploy/2/result.json").read_text())["source"].startswith(
        f"DeepOps {branch.git('rev-parse', '--short=12', 'HEAD')} (feature) + 1 changed file"
    )
