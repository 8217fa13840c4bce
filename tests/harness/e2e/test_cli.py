"""``deepops-virtual`` on a real machine: what it prints, what a script reads, what it refuses."""

import json
import secrets

import pytest

from tests.harness.e2e.conftest import Commands, book

pytestmark = pytest.mark.slow

#: Puts a playbook of the test's own in place of the project's, to see what a bad one does.
OWN_PLAYBOOK = """
from pathlib import Path
from deepops_fixtures.deploy import sources

def find(name, parts, there, variables=None):
    playbook = Path(__file__).parent / "site.yml"
    return (sources.PlaybookSource(name="distro", playbook=playbook),)

sources.find = find
"""
FAILING = """
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - name: Go well
      ansible.builtin.command: "true"
      changed_when: false
    - name: Go badly
      ansible.builtin.command: sh -c "echo the cause of it >&2; exit 4"
"""
RESTLESS = """
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - name: Count up
      ansible.builtin.shell: echo x >> /tmp/count
    - name: Stay
      ansible.builtin.command: "true"
      changed_when: false
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, project):
    """Name of a machine that is up, and what ``up --json`` printed."""
    commands = Commands(tmp_path_factory.mktemp("tiny"), project)
    name = f"cli-{secrets.token_hex(2)}"
    up = commands.virtual("up", "--cluster", "tiny", "--name", name, "--json")
    try:
        assert up.status == 0, up.output
        yield name, up.output
    finally:
        gone = commands.virtual("destroy", name)
    assert gone.status == 0, gone.output
    assert "is gone." in gone.output
    assert book().read(name) is None


def test_up_prints_the_cluster_for_a_script(tiny):
    name, output = tiny
    data = json.loads(output[output.index("\n{") :])
    assert data["name"] == name
    assert [node["name"] for node in data["nodes"]] == ["virtual-login"]
    assert data["accelerator"] in ("kvm", "tcg")


def test_status_knows_it(tiny, commands):
    name, _ = tiny
    data = json.loads(commands.virtual("status", "--json").output)
    mine = next(item for item in data["instances"] if item["name"] == name)
    assert (mine["state"], mine["kept"], mine["cluster"]) == ("up", True, "tiny")
    assert mine["nodes"]["virtual-login"]["state"] == "running"
    assert name in commands.virtual("status").output


def test_ssh_runs_a_command_and_returns_its_status(tiny, commands):
    name, _ = tiny
    done = commands.virtual("ssh", name, "virtual-login", "hostname; exit 7")
    assert (done.status, done.output.strip()) == (7, "virtual-login")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--cluster", "tiny", "--name", "{name}"], "named '{name}' exists already"),
        (["up", "--cluster", "centaur"], "There is no cluster named 'centaur'"),
        (["ssh", "{name}", "virtual-x"], "has no node 'virtual-x'; it has virtual-login"),
        (["ssh", "nobody", "virtual-x"], "There is no cluster instance named 'nobody'"),
        (["deploy", "{name}"], "There is nothing to deploy"),
        (["destroy", "nobody"], "There is no cluster instance named 'nobody'"),
        (["box", "build", "plan9"], "There is no recipe for a box named 'plan9'"),
        (["up", "--up-timeout", "soon"], "'soon' is refused"),
        (["fly"], "No such command 'fly'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_with_status_2(tiny, commands, arguments, said):
    name, _ = tiny
    done = commands.virtual(*(word.format(name=name) for word in arguments))
    assert done.status == 2, done.output
    assert said.format(name=name) in done.output
    assert "Traceback" not in done.output


def test_a_failing_playbook_names_host_task_and_cause(tiny, commands):
    name, _ = tiny
    (commands.folder / "conftest.py").write_text(OWN_PLAYBOOK)
    (commands.folder / "site.yml").write_text(FAILING)
    (commands.folder / "test_it.py").write_text(
        "def test_a(deepops):\n    pass\n\ndef test_b(deepops):\n    pass\n"
    )
    run = commands.pytest("--deepops-attach", name, "-rs")
    assert run.status == 1, run.output
    assert "Deploying failed on 'virtual-login' in task 'Go badly'" in run.output
    assert "the cause of it" in run.output
    assert "1 skipped, 1 error" in run.output
    assert "Go badly" in (run.run_dir / "deploy" / "1" / "stdout.log").read_text()
    assert "Traceback" not in run.output


def test_a_playbook_that_is_not_idempotent_has_its_tasks_named(tiny, commands):
    name, _ = tiny
    (commands.folder / "conftest.py").write_text(OWN_PLAYBOOK)
    (commands.folder / "site.yml").write_text(RESTLESS)
    (commands.folder / "test_it.py").write_text("def test_a(deepops):\n    pass\n")
    run = commands.pytest("--deepops-attach", name, "--deepops-idempotence")
    assert run.status == 1, run.output
    assert "The second run of site.yml changed something in 1 task." in run.output
    assert "Count up: virtual-login" in run.output
    assert "Stay: " not in run.output


def test_a_playbook_past_its_deadline_is_stopped(tiny, commands):
    name, _ = tiny
    (commands.folder / "conftest.py").write_text(OWN_PLAYBOOK)
    (commands.folder / "site.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - name: Sleep\n      ansible.builtin.command: sleep 300\n"
    )
    (commands.folder / "test_it.py").write_text("def test_a(deepops):\n    pass\n")
    run = commands.pytest("--deepops-attach", name, "--deepops-deploy-timeout", "30")
    assert run.status == 1, run.output
    assert "did not end within 30 s and was stopped; it was at: 'Sleep'" in run.output
    assert run.seconds < 120


def test_lists_are_for_people_and_for_scripts(commands):
    clusters = json.loads(commands.virtual("clusters", "--json").output)
    assert {"debian", "tiny"} <= {item["name"] for item in clusters}
    assert "virtual-gpu01" in commands.virtual("clusters").output
    boxes = json.loads(commands.virtual("box", "list", "--json").output)
    assert [(box["name"], box["built"]) for box in boxes] == [("debian12", True)]


def test_help_teaches_the_first_session(commands):
    text = commands.virtual("--help").output
    for word in ("deepops-virtual up", "deepops-virtual deploy NAME", "deepops-virtual destroy"):
        assert word in text
    assert "--cluster" in commands.virtual("up", "--help").output
