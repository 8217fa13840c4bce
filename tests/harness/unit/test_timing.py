"""Times of a deployment's tasks beside those of an earlier run: what is compared, with what."""

import json

import pytest

from deepops_fixtures.deploy import timing
from deepops_fixtures.deploy.results import DeployResult, TaskResult
from deepops_fixtures.report import remarks

SLURM = {"Install munge": 10.0, "Install slurm": 60.0, "Start slurmd": 2.0}


@pytest.fixture
def keep(tmp_path):
    """Return a function that keeps a run in the reports, as one does that deployed Slurm."""

    def keep(
        name,
        tasks,
        *,
        number=1,
        cluster=None,
        accelerator="tcg",
        start="box",
        results=(),
        **changes,
    ):
        folder = tmp_path / "reports" / name
        (folder / "deploy" / str(number)).mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(cluster or {"name": "tiny", "memory": 384}))
        (folder / "cluster.json").write_text(json.dumps({"accelerator": accelerator}))
        (folder / "instance").write_text("tiny-1")
        if start == "checkpoint":
            (folder / "origin").write_text("restored")
        values = {
            "playbook": "slurm-cluster.yml", "source": "distro", "status": "successful",
            "finished": True, "onto": [], "seconds": sum(tasks.values()),
            "tasks": list(results) or [
                TaskResult(play="all", role="slurm", task=task, seconds=seconds,
                           hosts={"a": "ok"}, where="roles/slurm/tasks/main.yml:3")
                for task, seconds in tasks.items()
            ],
            **changes,
        }  # fmt: skip
        result = DeployResult(**values)
        (folder / "deploy" / str(number) / "result.json").write_text(result.as_json())
        return folder

    return keep


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (10.0, 16.0, "slower"),
        (10.0, 14.9, None),  # not 1.5 times as long
        (1.0, 5.9, None),  # not 5 s more
        (30.0, 20.0, "faster"),
        (9.0, 4.5, None),
    ],
)
def test_a_task_counts_as_slower_when_it_is_by_half_and_by_five_seconds(keep, before, after, word):
    keep("20260101-000000-tiny", {"Build": before, "Other": 3.0})
    this = keep("20260102-000000-tiny", {"Build": after, "Other": 3.0})
    [found] = timing.against_earlier(this)
    expected = [("slurm : Build", before, after)] if word else []
    assert [
        (kind, [(item.task, item.before, item.after) for item in items])
        for kind, items in found.lists.items()
        if items
    ] == ([(word, expected)] if word else [])


def test_tasks_that_came_and_went_are_told_and_skipped_ones_do_not_count(keep):
    base = keep("20260101-000000-tiny", {"Install munge": 10.0, "Old": 7.0})
    this = keep("20260102-000000-tiny", {"Install munge": 10.0, "New": 3.0, "Off": 9.0})
    path = this / "deploy" / "1" / "result.json"
    data = json.loads(path.read_text())
    data["tasks"][2]["hosts"] = {"a": "skipped"}
    path.write_text(json.dumps(data))
    [found] = timing.against_earlier(this)
    assert [item.task for item in found.new] == ["slurm : New"]
    assert [item.task for item in found.gone] == ["slurm : Old"]
    assert found.base == base.name


def test_on_a_busy_host_a_task_is_slower_only_beyond_the_rest(keep):
    names = ("a", "b", "c", "d")
    keep("20260101-000000-tiny", dict.fromkeys(names, 10.0))
    this = keep("20260102-000000-tiny", {**dict.fromkeys(names, 20.0), "d": 60.0})
    [found] = timing.against_earlier(this)
    assert found.pace == 2.0
    assert [item.task for item in found.slower] == ["slurm : d"]
    assert "its tasks took 2 times as long throughout, which is allowed for" in found.verdict


def test_tasks_of_one_name_are_matched_in_their_order(keep):
    one = TaskResult(play="all", role="r", task="T", seconds=1, hosts={"a": "ok"})
    long = TaskResult(play="all", role="r", task="T", seconds=20, hosts={"a": "ok"})
    keep("20260101-000000-tiny", {}, results=[one, long])
    this = keep("20260102-000000-tiny", {}, results=[one, long])
    [found] = timing.against_earlier(this)
    assert not any(found.lists.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster": {"name": "tiny", "memory": 512}},
        {"accelerator": "kvm"},
        {"playbook": "k8s-cluster.yml"},
        {"source": "/home/me/deepops"},
        {"onto": ["slurm"]},
        {"onto": None},
        {"status": "failed"},
        {"finished": False},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_that_had_something_else_to_do_is_no_measure(keep, changes):
    older = keep("20260101-000000-tiny", SLURM)
    keep("20260102-000000-tiny", SLURM, **changes)
    this = keep("20260103-000000-tiny", SLURM)
    [found] = timing.against_earlier(this)
    assert found.base == older.name
    [other] = timing.against_earlier(this, older)
    assert other.base == older.name


def test_one_commit_of_a_checkout_is_compared_with_another(keep):
    keep("20260101-000000-tiny", SLURM, source="DeepOps 3957a42f0c1d (master)")
    this = keep("20260102-000000-tiny", SLURM, source="DeepOps 81c0 (fix) + 2 changed files")
    assert len(timing.against_earlier(this)) == 1


def test_the_newest_earlier_run_counts_and_never_a_later_one(keep):
    keep("20260101-000000-tiny", SLURM)
    newer = keep("20260102-000000-tiny", SLURM, start="checkpoint")
    this = keep("20260103-000000-tiny", SLURM)
    keep("20260104-000000-tiny", SLURM)
    (this.parent / "latest").symlink_to("20260104-000000-tiny")
    [found] = timing.against_earlier(this)
    assert found.base == newer.name
    assert "(started from box, that run from checkpoint)" in found.verdict


def test_the_second_application_of_a_run_is_compared_with_second_ones(keep):
    again = {"number": 2, "onto": ["slurm"]}
    for name, seconds in (("20260101-000000-tiny", 10.0), ("20260102-000000-tiny", 30.0)):
        folder = keep(name, {"Build": 100.0})
        second = keep(f"{name}-x", {"Build": seconds}, **again)
        (second / "deploy" / "2").rename(folder / "deploy" / "2")
        (second / "deploy").rmdir()
    first, second = timing.against_earlier(folder)
    assert not first.slower
    assert [(item.before, item.after) for item in second.slower] == [(10.0, 30.0)]


def test_a_file_that_cannot_be_read_is_left_out(keep):
    broken = keep("20260101-000000-tiny", SLURM)
    (broken / "deploy" / "1" / "result.json").write_text("{")
    this = keep("20260102-000000-tiny", SLURM)
    (this / "spec.json").unlink()
    assert timing.against_earlier(this) == []
    assert timing.against_earlier(broken) == []


# -- what is said of it ---------------------------------------------------------------------


def test_the_terminal_gets_the_worst_and_the_page_all(keep):
    names = [f"Task {number}" for number in range(8)]
    steady = {f"Steady {number}": 5.0 for number in range(9)}
    keep("20260101-000000-tiny", {**dict.fromkeys(names, 1.0), **steady})
    this = keep("20260102-000000-tiny", {**{n: 10.0 + i for i, n in enumerate(names)}, **steady})
    [remark] = remarks.of_timing(timing.against_earlier(this))
    lines = [line for line, _ in remark.lines]
    assert lines[0].startswith("tasks: slurm-cluster.yml: 2 min 33 s, in run 20260101-000000-tiny")
    assert lines[1] == "  slower: slurm : Task 7: 1.0 s -> 17 s"
    assert lines[-1] == "  … and 3 more: deepops-virtual timing 20260102-000000-tiny"
    assert len(remark.rows) == 8
    assert remark.notable


def test_playbooks_that_took_as_long_as_before_share_a_line(keep):
    for name in ("20260101-000000-tiny", "20260102-000000-tiny"):
        folder = keep(name, SLURM)
        for number in (2, 3):
            slow = number == 3 and name.startswith("20260102")
            keep(name, {"Build": 30.0 if slow else 10.0}, number=number, playbook=f"{number}.yml")
    several, slower = remarks.of_timing(timing.against_earlier(folder))
    run = "20260101-000000-tiny"
    assert several.lines == [
        (f"tasks: 2 playbooks in which no task differs much from run {run}.", False)
    ]
    assert [row[0] for row in several.rows] == ["slurm-cluster.yml", "2.yml"]
    assert slower.lines[1] == ("  slower: slurm : Build: 10 s -> 30 s", True)


def test_the_command_compares_two_runs(keep, deepops, tmp_path):
    keep("20260101-000000-tiny", SLURM)
    keep("20260102-000000-tiny", {**SLURM, "Install slurm": 100.0})
    reports = ("--reports", str(tmp_path / "reports"))
    status, out, _ = deepops("timing", "20260102-000000-tiny", *reports)
    assert status == 0
    assert "1 task slower" in out
    told = " ".join(out.split())
    assert "slower 1 min 00 s 1 min 40 s slurm : Install slurm (roles/slurm/tasks/main" in told
    status, out, _ = deepops(
        "timing", "20260102-000000-tiny", "20260101-000000-tiny", "--json", *reports
    )
    [data] = json.loads(out)
    assert data["slower"][0]["after"] == 100.0
    assert data["verdict"].startswith("slurm-cluster.yml: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("20260109-000000-tiny",), "There is no run '20260109-000000-tiny' in "),
        (("20260101-000000-tiny",), "Nothing in an earlier run can be compared with run"),
        (("empty",), "Nothing was deployed in run 'empty'"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(keep, deepops, tmp_path, words, said):
    keep("20260101-000000-tiny", SLURM)
    (tmp_path / "reports" / "empty").mkdir()
    status, _, err = deepops("timing", *words, "--reports", str(tmp_path / "reports"))
    assert status == 2
    assert said in err
    assert "Next: " in err
