"""Which checks belong to a change of a DeepOps checkout."""

from types import SimpleNamespace

import pytest

from deepops_fixtures import changed
from deepops_fixtures.deepops import changes, impact, selection
from deepops_fixtures.deepops.selection import Selection
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.report import remarks
from deepops_fixtures.settings import Settings
from tests.harness.unit.branches import Branch

SLURM = "playbooks/slurm-cluster.yml"


@pytest.fixture
def branch(tmp_path):
    return Branch(tmp_path / "deepops")


@pytest.mark.parametrize(
    ("path", "pieces", "parts"),
    [
        ("roles/nfs/tasks/main.yml", {"nfs", "nfs-server", "nfs-client"}, set()),
        ("roles/slurm/tasks/main.yml", {"slurm", "munge"}, set()),
        ("playbooks/generic/chrony-client.yml", {"chrony"}, set()),
        # What one of two roles brings is checked as a whole.
        ("roles/rsyslog_client/tasks/main.yml", {"rsyslog", "rsyslog-client"}, set()),
        ("playbooks/generic/rsyslog-client.yml", {"rsyslog", "rsyslog-client"}, set()),
        # A playbook with a role of which nothing is known, and such a role itself.
        ("playbooks/slurm-cluster/slurm.yml", set(), {"slurm"}),
        ("roles/facts/tasks/main.yml", set(), {"slurm"}),
        ("playbooks/bootstrap/bootstrap-python.yml", set(), {"slurm"}),
        (SLURM, set(), {"slurm"}),
        ("config.example/group_vars/slurm-cluster.yml", set(), {"slurm"}),
        ("playbooks/k8s-cluster.yml", set(), {"kubernetes"}),
        # Playbooks of no part.
        ("roles/restless/tasks/main.yml", set(), set()),
        ("docs/readme.md", set(), set()),
        ("roles/own/README.md", set(), set()),
    ],
)
def test_a_changed_file_asks_for_the_checks_of_what_it_brings(branch, path, pieces, parts):
    branch.touch(path)
    found = selection.of(impact.of(changes.since(branch.tree, "main")), branch.tree)
    assert (set(found.pieces), set(found.parts)) == (pieces, parts)
    assert found.everything == ""
    assert set(found.pieces.values()) | set(found.parts.values()) <= {path}


def asked(branch, **more) -> Selection:
    found = impact.of(changes.since(branch.tree, "main"), **more)
    return selection.of(found, branch.tree, **more)


def test_a_part_is_reached_also_where_another_playbook_imports_it(branch):
    branch.write("playbooks/site.yml", "- import_playbook: slurm-cluster.yml\n")
    branch.commit()
    branch.git("branch", "-f", "main", "feature")
    branch.touch("roles/facts/tasks/main.yml")
    assert set(asked(branch).parts) == {"slurm"}


def test_tasks_and_imports_beside_a_known_role_may_be_about_anything(branch):
    path = "playbooks/generic/chrony-client.yml"
    text = (branch.tree / path).read_text()
    for more in ("- hosts: all\n  tasks: [{command: reboot}]\n", "- import_playbook: hosts.yml\n"):
        branch.write(path, f"{text}\n{more}")
        assert set(asked(branch).parts) == {"slurm"}, more


@pytest.mark.parametrize("path", ["playbooks/tools.yml", "workloads/site.yml"])
def test_a_change_of_what_the_run_applies_and_nobody_knows_asks_for_all_checks(branch, path):
    branch.write("workloads/site.yml", "- hosts: all\n  roles: [own]\n")
    branch.commit()
    branch.git("branch", "-f", "main", "feature")
    branch.touch("roles/own/tasks/main.yml")
    assert asked(branch, chosen=[path]).everything == (
        f"roles/own/tasks/main.yml: this run applies {path}"
    )
    assert asked(branch).told == "no check belongs to that"
    run = {"changed_since": "main", "source": str(branch.tree), "playbook": (path,)}
    assert changed.of_run(Ours(**run)).selection.everything


def test_a_file_that_is_everybodys_asks_for_all_checks(branch):
    branch.touch("ansible.cfg", "roles/nfs/tasks/main.yml")
    found = selection.of(impact.of(changes.since(branch.tree, "main")), branch.tree)
    assert found.told == ("all checks belong: ansible.cfg: Ansible's settings for every playbook")
    assert found.has({"kubernetes"}, {"kubernetes"})


NFS = Selection(pieces={"nfs": "roles/nfs/x"})
ALL_OF_SLURM = Selection(parts={"slurm": SLURM})


@pytest.mark.parametrize(
    ("chosen", "pieces", "parts", "belongs"),
    [
        (NFS, {"nfs"}, (), True),
        (NFS, {"slurm", "nfs"}, ("slurm",), True),
        (NFS, {"slurm"}, ("slurm",), False),
        (NFS, {"munge"}, (), False),
        (NFS, (), (), True),  # about nothing in particular: failed units, full disks
        (ALL_OF_SLURM, {"slurm"}, ("slurm",), True),
        (ALL_OF_SLURM, (), ("slurm",), True),
        (ALL_OF_SLURM, {"munge"}, (), True),
        (ALL_OF_SLURM, {"kubernetes"}, ("kubernetes",), False),
        (Selection(), (), (), False),
        (Selection(), {"slurm"}, ("slurm",), False),
        (Selection(everything="x"), {"slurm"}, ("slurm",), True),
    ],
)
def test_a_check_belongs_by_what_it_is_about(chosen, pieces, parts, belongs):
    assert chosen.has(pieces, parts) is belongs


def test_it_is_told_which_checks_belong_and_for_which_file():
    chosen = Selection(pieces={"nfs": "roles/nfs/x", "slurm": "a"}, parts={"slurm": SLURM})
    assert chosen.told == f"checks of all of slurm ({SLURM}), NFS (roles/nfs/x)"
    assert Selection().told == "no check belongs to that"


def test_a_part_that_the_run_is_not_about_asks_for_no_check(branch):
    chosen = Selection(parts={"slurm": SLURM, "kubernetes": "scripts/x"})
    within = chosen.within(["slurm"])
    told = f"checks of all of slurm ({SLURM}); not in this run: kubernetes (scripts/x)"
    assert within.told == told
    assert chosen.within(["kubernetes"]).has({"munge"}, ())
    only = Selection(parts={"kubernetes": "scripts/x"}).within(["slurm"])
    assert not only.has({"munge"}, ())
    assert not only.has((), ())
    assert chosen.within(()) == chosen


# -- a run ----------------------------------------------------------------------------------


class Ours:
    """What ``changed`` asks of a session."""

    def __init__(self, **changes: object) -> None:
        self.settings = Settings.load(changes)
        self.spec = None
        self.rehearsal = SimpleNamespace(chosen=SimpleNamespace(parts=()))


def test_a_run_that_is_about_no_change_looks_at_none():
    assert changed.of_run(Ours()) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"changed_since": "main", "source": "distro"}, "source 'distro' is none"),
        ({"changed_since": "main"}, "source 'distro' is none"),
        ({"changed_since": "main", "source": "26.05"}, "source '26.05' is none"),
        ({"changed_only": True}, "--deepops-changed-only does not say since when"),
    ],
)
def test_a_change_of_what_is_no_working_tree_is_refused(settings, said):
    with pytest.raises(UsageProblem, match=said) as refused:
        changed.of_run(Ours(**settings))
    assert "--deepops-" in refused.value.hint


def test_before_the_first_test_the_files_are_named(branch):
    names = [f"docs/{number}.md" for number in range(8)]
    for name in names:
        branch.write(name, "x")
    branch.touch("roles/nfs/tasks/main.yml")
    settings = {"changed_since": "main", "source": str(branch.tree)}
    lines = changed.of_run(Ours(**settings)).lines()
    assert lines[0] == (
        "changed since main: 9 files; first: checks of NFS and NFS's server "
        "(roles/nfs/tasks/main.yml)"
    )
    assert lines[1] == "  docs/0.md -> no playbook reaches it"
    assert lines[-1] == "  … and 3 more: deepops-virtual impact main"
    only = changed.of_run(Ours(**settings, changed_only=True)).lines()
    assert "; only: checks of " in only[0]


def test_what_was_left_out_and_what_nothing_reaches_is_remarked(branch):
    branch.touch("roles/nfs/tasks/main.yml", "docs/readme.md")
    found = impact.of(changes.since(branch.tree, "main"))
    chosen = selection.of(found, branch.tree)
    [remark] = remarks.of_change(found, chosen, {"slurm": 40, "kubernetes": 12})
    assert [line for line, _ in remark.lines[1:]] == [
        "  left out, since the change does not reach them: 12 of kubernetes, 40 of slurm",
        "  no playbook reaches 1 changed file: docs/readme.md",
    ]
    assert ("docs/readme.md", "no playbook reaches it", "uncommitted") in remark.rows
