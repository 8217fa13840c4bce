"""A checkout of DeepOps applied to a real machine with the Ansible that it asks for."""

import pytest

from tests.harness.unit import checkouts

pytestmark = pytest.mark.slow

CLUSTER = """\
box: debian12
deployment: slurm
nodes:
  virtual-login:
    groups: [slurm-master, slurm-node]
    cpus: 1
    memory: 384
    disk: 8
    address: 11
"""
EDIT = """\
- name: say what is not committed yet
  copy:
    content: not committed yet
    dest: /tmp/from-the-branch
"""
CHECKS = """
import pytest

@pytest.mark.piece("hosts")
def test_what_is_not_committed_was_applied(login_host):
    assert login_host.file("/tmp/from-the-branch").content_string == "not committed yet"

def test_shared_files(nfs):
    assert nfs.exports
"""


def test_a_checkout_is_applied_as_it_is_and_checked_for_what_it_deploys(commands, nothing_left):
    tree = checkouts.repository(commands.folder / "deepops")
    (tree / "roles" / "deepops_hosts" / "tasks" / "main.yml").write_text(EDIT)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    (commands.folder / "mine.yml").write_text(CLUSTER)
    (commands.folder / "test_it.py").write_text(CHECKS)
    run = commands.pytest(
        "--deepops-cluster", "mine.yml", "--deepops-source", str(tree), "--deepops-playbook",
        "generic/hosts.yml", "--deepops-idempotence", "--deepops-reuse", "never", "test_it.py",
    )  # fmt: skip
    assert run.status == 0, run.output
    outcomes = run.outcomes()
    assert outcomes["test_what_is_not_committed_was_applied"] == ("passed", "")
    kind, why = outcomes["test_shared_files"]
    assert kind == "skipped"
    assert "no playbook of this run deploys it" in why
    assert "+ 1 changed file" in run.output
    assert "not needed" in run.output and "example.absent_role" in run.output
    after = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert after == before
