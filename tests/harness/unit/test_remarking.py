"""What is gathered at the end of a run: DeepOps' own validators are asked in the run's copy of the
checkout, and what cannot be told says so. Nodes are this host."""

import json
from types import SimpleNamespace

import pytest

from deepops_fixtures import remarking, reporting
from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.running import NodeData, Nodes, RunningCluster
from deepops_fixtures.journal import Journal
from deepops_fixtures.records import CheckOutcome
from deepops_fixtures.settings import Settings
from deepops_fixtures.stages import Stages
from deepops_fixtures.subject import Chosen
from tests.harness.unit.branches import Branch

SCRIPT = """\
# knows "--json"
import json, os
print(json.dumps({"ok": False, "failures": ["where: " + os.getcwd()]}))
raise SystemExit(1)
"""
DOCTOR = """\
# knows "--json" "--remote"
import json, os, sys
checks = {"config": os.path.isdir(os.environ["DEEPOPS_CONFIG_DIR"]), "here": os.getcwd(),
          "inventory": open(sys.argv[-1]).read().startswith("[slurm-master]"),
          "cache": os.environ["ANSIBLE_CACHE_PLUGIN"]}
print(json.dumps({"ok": True, "checks": [], "seen": checks}))
"""


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A run that has deployed a checkout with validators, and has checked Slurm."""
    branch = Branch(tmp_path / "deepops")
    branch.write("scripts/validation/validate_slurm.py", SCRIPT)
    branch.write("scripts/validation/deepops_doctor.py", DOCTOR)
    (tmp_path / "hosts.ini").write_text("[slurm-master]\none ansible_connection=local\n")
    run_dir = tmp_path / "run"
    (run_dir / "stages").mkdir(parents=True)
    values = {"source": str(branch.tree), "cache_dir": tmp_path / "cache", "parts": "slurm"}
    chosen = Chosen(Settings.load(values), topology.load("debian"), run_dir)
    journal = Journal(run_dir / "events.jsonl")
    stages = Stages(run_dir, journal)
    stages.write("deployed", "ok")
    node = NodeData(name="one", groups=["slurm-master"], connection="local")
    running = RunningCluster(
        name="x", provider="vagrant", nodes=[node], inventory=tmp_path / "hosts.ini"
    )
    monkeypatch.setattr(reporting, "running_nodes", lambda _ours: Nodes(running))
    ledger = SimpleNamespace(socket_dir=tmp_path / "sockets")
    return SimpleNamespace(
        settings=Settings.load(values), run_dir=run_dir, sources=chosen.sources(), change=None,
        outcomes=[CheckOutcome("t::a", "passed", 1.0, 1.0, parts=("slurm",))],
        rehearsal=SimpleNamespace(
            chosen=chosen, journal=journal, stages=stages, attached=False,
            book=SimpleNamespace(get=lambda _name: ledger),
        ),
    )  # fmt: skip


def test_the_validators_are_asked_in_the_runs_copy_and_a_disagreement_is_named(ours):
    [remark] = remarking.gather(ours)
    lines = [line for line, _ in remark.lines]
    assert "validator: deepops_doctor.py (this host): content" in lines
    ours_passed = "1 of our checks of slurm passed and none failed"
    assert lines[-1] == f"  disagreement: validate_slurm.py complains, and {ours_passed}"
    seen = json.loads((ours.run_dir / "validators/deepops_doctor.py.log").read_text())["seen"]
    copy = ours.run_dir / "deepops" / "slurm"
    assert seen == {"config": True, "here": str(copy), "inventory": True, "cache": "memory"}


def test_where_no_check_ran_nobody_is_asked(ours):
    ours.outcomes = [CheckOutcome("t::a", "skipped", 1.0, 1.0)]
    assert remarking.gather(ours) == []


def test_of_our_own_playbooks_there_are_no_validators(ours):
    ours.sources = ()
    assert remarking.gather(ours) == []


def test_a_validator_of_what_was_not_deployed_is_not_asked(ours, tmp_path):
    values = {"source": str(tmp_path / "deepops"), "playbook": ("playbooks/generic/hosts.yml",)}
    settings = Settings.load({**values, "cache_dir": tmp_path / "cache", "parts": "slurm"})
    ours.rehearsal.chosen = Chosen(settings, topology.load("debian"), ours.run_dir)
    ours.sources = ours.rehearsal.chosen.sources()
    [remark] = remarking.gather(ours)
    assert [row[1] for row in remark.rows] == ["deepops_doctor.py"]


def test_what_cannot_be_told_says_so_and_nothing_else_is_lost(ours, monkeypatch):
    def fail(_ours):
        raise OSError("No space left on device")

    monkeypatch.setattr(remarking, "_timing", fail)
    first, last = remarking.gather(ours)
    assert first.title == "DeepOps' own validators"
    assert last.lines == [("Tasks, compared: cannot be told: No space left on device", True)]
