"""The chart of a run, from its journal."""

import pytest

from deepops_fixtures.journal import Event, Journal
from deepops_fixtures.records import CheckOutcome
from deepops_fixtures.report import timeline

EVENTS = [
    Event(100.0, "begin", "up", "starting 2 virtual machines"),
    Event(130.0, "note", "up", "booted", node="virtual-login", status="ok", seconds=30.0),
    Event(131.0, "note", "up", "answers over ssh", node="virtual-login", status="ok", seconds=1.0),
    Event(140.0, "end", "up", "starting 2 virtual machines", status="ok", seconds=40.0),
    Event(150.0, "note", "deploy", "Task A", status="changed", seconds=10.0, detail="munge"),
    Event(155.0, "note", "deploy", "Task B", status="ok", seconds=5.0, detail="munge"),
    Event(160.0, "note", "deploy", "Task C", status="failed", seconds=5.0, detail="chrony"),
    Event(199.0, "end", "down", "destroying", status="ok", seconds=9.0),
]
CHECKS = [
    CheckOutcome("t.py::test_one", "passed", 165.0, 5.0, worker="gw0"),
    CheckOutcome("t.py::test_two", "failed", 166.0, 2.0, worker="gw1"),
]


def test_each_phase_has_its_lane_in_reading_order():
    chart = timeline.build(EVENTS, CHECKS)
    assert chart.lanes == [
        "Up", "Up virtual-login", "Deploy", "Checks gw0", "Checks gw1", "Down",
    ]  # fmt: skip
    assert chart.total == pytest.approx(99.0)
    assert chart.phases == {"Up": 40.0, "Deploy": 20.0, "Checks": 5.0, "Down": 9.0}


def test_tasks_of_one_role_make_one_bar_and_a_failed_one_is_marked():
    bars = [item for item in timeline.build(EVENTS, []).segments if item.lane == "Deploy"]
    assert [(bar.label, bar.seconds, bar.status) for bar in bars] == [
        ("munge", 15.0, "ok"),
        ("chrony", 5.0, "failed"),
    ]


def test_the_drawing_stays_inside_its_frame():
    drawing = timeline.layout(timeline.build(EVENTS, CHECKS))
    assert all(bar["x"] > 0 and bar["x"] + bar["width"] <= 1000 for bar in drawing["bars"])
    assert all(bar["y"] + bar["height"] <= drawing["height"] for bar in drawing["bars"])
    assert [bar["kind"] for bar in drawing["bars"]].count("bad") == 2


def test_a_run_without_events_has_no_chart():
    assert timeline.build([], []).segments == ()


def test_a_half_written_line_of_the_journal_is_left_out(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    journal.note("up", "booted", node="a")
    with journal.path.open("a") as file:
        file.write('{"time": 12, "kind": "no')
    assert [event.what for event in journal.events()] == ["booted"]


def test_a_step_says_how_it_ended(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    with pytest.raises(RuntimeError), journal.step("up", "a"):
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), journal.step("up", "b"):
        raise KeyboardInterrupt
    with journal.step("up", "c"):
        pass
    ends = [(e.what, e.status) for e in journal.events() if e.kind == "end"]
    assert ends == [("a", "failed"), ("b", "interrupted"), ("c", "ok")]


def test_the_check_that_waited_for_the_cluster_is_charged_its_own_time_only():
    waited = CheckOutcome("t.py::test_first", "skipped", 95.0, 48.0)
    own = timeline.own_time([waited, *CHECKS], EVENTS)
    assert [(item.begin, item.seconds) for item in own] == [
        (140.0, 3.0),
        (165.0, 5.0),
        (166.0, 2.0),
    ]
    assert timeline.build(EVENTS, [waited]).phases["Checks"] == pytest.approx(3.0)
