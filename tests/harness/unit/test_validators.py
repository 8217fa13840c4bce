"""DeepOps' own validators: run where they belong, understood by their JSON, their verdict beside
ours. The scripts here are our own, with the same protocol."""

import json
from pathlib import Path

import pytest

from deepops_fixtures.cluster.running import NodeData, Nodes, RunningCluster
from deepops_fixtures.deepops import validators
from deepops_fixtures.deepops.validators import Opinion, Provisioner
from deepops_fixtures.records import CheckOutcome
from deepops_fixtures.report import remarks

#: Answers with what the test wants; knows the options that its text names.
SCRIPT = """\
# knows "--json" {options}
import sys, time
print("warning: something on the way", file=sys.stderr)
time.sleep({sleep})
print('''{answer}''')
print("ARGUMENTS", *sys.argv[1:], file=sys.stderr)
sys.exit({status})
"""
CONTENT = json.dumps({"ok": True, "failures": []}, indent=2)


def complaint(*failures: str) -> str:
    return json.dumps({"ok": False, "failures": list(failures)}, indent=2)


@pytest.fixture
def checkout(tmp_path):
    """Return a function that puts a validator into a checkout."""

    def put(name, answer=CONTENT, status=0, options="", sleep=0):
        folder = tmp_path / "deepops" / validators.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        text = SCRIPT.format(answer=answer, status=status, options=options, sleep=sleep)
        (folder / name).write_text(text)

    return put


@pytest.fixture
def ask(tmp_path):
    """Return a function that asks all validators of the checkout; the nodes are this host."""

    def ask(*parts, devices=(), seconds=20.0):
        groups = {"one": ["slurm-master"], "two": ["kube_control_plane"]}
        nodes = [
            NodeData(name=name, groups=found, connection="local", devices=list(devices))
            for name, found in groups.items()
        ]
        cluster = RunningCluster(
            name="x", provider="inventory", nodes=nodes, inventory=Path("hosts.ini")
        )
        here = Provisioner(tmp_path / "deepops", cluster.inventory)
        return validators.ask(here, Nodes(cluster), parts, tmp_path / "logs", seconds=seconds)

    return ask


def test_each_validator_is_asked_where_it_belongs(checkout, ask, tmp_path):
    checkout("deepops_doctor.py", json.dumps({"ok": True, "checks": []}), options='"--remote"')
    checkout("validate_slurm.py")
    checkout("validate_k8s.py", options='"--allow-no-gpus"')
    found = ask("slurm", "kubernetes")
    assert [(item.script, item.where, item.verdict) for item in found] == [
        ("deepops_doctor.py", "this host", "content"),
        ("validate_slurm.py", "one", "content"),
        ("validate_k8s.py", "two", "content"),
    ]
    said = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert "ARGUMENTS --json --remote --inventory hosts.ini" in said["deepops_doctor.py.log"]
    assert "ARGUMENTS --json --allow-no-gpus" in said["validate_k8s.py.log"]


def test_an_option_that_this_checkouts_script_does_not_know_is_left_out(checkout, ask, tmp_path):
    checkout("validate_k8s.py")
    ask("kubernetes")
    said = (tmp_path / "logs" / "validate_k8s.py.log").read_text()
    assert said.rstrip().endswith("ARGUMENTS --json")


def test_where_there_are_gpus_they_are_insisted_on(checkout, ask, tmp_path):
    gone = "no GPUs (gres/gpu) configured on any node"
    checkout("validate_slurm.py", complaint(gone), 1)
    [without], [with_gpus] = ask("slurm"), ask("slurm", devices=["Tesla T4"])
    assert (without.verdict, without.failures) == ("content", ())
    assert (with_gpus.verdict, with_gpus.failures) == ("complains", (gone,))


def test_a_part_that_this_run_is_not_about_and_a_script_that_is_not_there_are_not_asked(
    checkout, ask
):
    checkout("validate_k8s.py")
    assert ask("slurm") == []


def test_a_script_that_is_new_is_said_to_be_so(checkout, ask):
    checkout("validate_airgap.py")
    [found] = ask("slurm")
    assert str(found) == (
        "validate_airgap.py: no verdict: it is new to this harness, and was not run"
    )


def test_a_validator_that_does_not_end_is_stopped(checkout, ask):
    for name in ("deepops_doctor.py", "validate_slurm.py"):
        checkout(name, sleep=30)
    doctor, slurm = ask("slurm", seconds=1)
    script = f"{validators.FOLDER}/deepops_doctor.py"
    assert doctor.why == f"{script} did not end within 1 s and was stopped."
    assert slurm.why == "it did not end within 1 s and was stopped"
    assert {doctor.verdict, slurm.verdict} == {"silent"}


def test_a_node_that_does_not_answer_leaves_no_verdict(checkout, ask, monkeypatch):
    from deepops_fixtures.cluster.running import Node

    checkout("validate_slurm.py")
    said = "ssh: connect to host one port 22: Connection refused\n"
    monkeypatch.setattr(Node, "run_script", lambda *_arguments: said)
    [found] = ask("slurm")
    assert found.why == f"it ended with status 255: {said.strip()}"


@pytest.mark.parametrize(
    ("status", "text", "verdict", "told"),
    [
        (0, CONTENT, "content", ""),
        (0, f"a warning\n{CONTENT}\nanother", "content", ""),
        (1, complaint("1 node(s) unavailable: down"), "complains", "1 node(s) unavailable: down"),
        (1, json.dumps({"ok": False, "checks": [
            {"name": "inventory_parses", "ok": True, "detail": "3 host(s)"},
            {"name": "hosts_reachable", "ok": False, "detail": "2/3 host(s) reachable"},
        ]}), "complains", "hosts_reachable: 2/3 host(s) reachable"),
        (1, '{"ok": false}', "complains", "it does not say of what"),
        (2, "error: sinfo not found; run this on a Slurm node", "silent",
         "it ended with status 2: error: sinfo not found; run this on a Slurm node"),
        (0, '{"ok": tru', "silent", "it printed no JSON with 'ok' (status 0): {\"ok\": tru"),
        (0, "", "silent", "it printed no JSON with 'ok' (status 0): nothing was printed"),
        (1, "[]", "silent", "it printed no JSON with 'ok' (status 1): []"),
        (0, '{"ok": 1}', "silent", "it printed no JSON with 'ok' (status 0): {\"ok\": 1}"),
        (0, complaint("x"), "silent", "it says ok=False and ends with status 0"),
        (1, CONTENT, "silent", "it says ok=True and ends with status 1"),
        (127, "", "silent", "there is no python3"),
        (124, "", "silent", "it did not end within 9 s and was stopped"),
    ],
)  # fmt: skip
def test_what_they_print_is_understood(status, text, verdict, told):
    found, failures, why = validators.judge(status, text, has_gpus=True, seconds=9)
    assert (found, why or "; ".join(failures)) == (verdict, told)


def outcome(name: str, *parts: str) -> CheckOutcome:
    return CheckOutcome("t::test", name, 1.0, 1.0, parts=parts)


OURS_GOOD = [outcome("passed", "slurm"), outcome("skipped", "slurm"), outcome("failed")]
OURS_BAD = [outcome("passed", "slurm"), outcome("failed", "slurm")]


@pytest.mark.parametrize(
    ("script", "verdict", "checks", "deployed", "told"),
    [
        ("validate_slurm.py", "complains", OURS_GOOD, True,
         "validate_slurm.py complains, and 1 of our checks of slurm passed and none failed"),
        ("validate_slurm.py", "content", OURS_BAD, True,
         "validate_slurm.py is content, and 1 of our checks of slurm failed"),
        ("validate_slurm.py", "complains", OURS_BAD, True, ""),
        ("validate_slurm.py", "content", OURS_GOOD, True, ""),
        ("validate_slurm.py", "complains", [outcome("skipped", "slurm")], True, ""),
        ("validate_slurm.py", "silent", OURS_BAD, True, ""),
        ("deepops_doctor.py", "complains", OURS_BAD, True,
         "deepops_doctor.py complains, and the deployment went through"),
        ("deepops_doctor.py", "content", [], False,
         "deepops_doctor.py is content, and the deployment failed"),
        ("deepops_doctor.py", "content", [], True, ""),
    ],
)  # fmt: skip
def test_a_disagreement_is_named(script, verdict, checks, deployed, told):
    part = "slurm" if "slurm" in script else ""
    opinion = Opinion(script, part, "one", verdict)
    assert validators.disagreement(opinion, checks, deployed=deployed) == told


def test_terminal_and_page_show_all_of_them():
    opinions = [
        Opinion("validate_slurm.py", "slurm", "one", "complains", ("node down", "no job")),
        Opinion("deepops_doctor.py", "", "this host", "content"),
    ]
    [remark] = remarks.of_validators(opinions, ["x complains, and y"])
    assert remark.lines == [
        ("validator: validate_slurm.py (one): node down; no job", True),
        ("validator: deepops_doctor.py (this host): content", False),
        ("  disagreement: x complains, and y", True),
    ]
    assert remark.rows[0] == ("complains", "validate_slurm.py", "one", "node down\nno job")
    assert remarks.of_validators([], []) == []
