"""The HTML parts: what they show is escaped and without secrets, and says who is hurt."""

from pathlib import Path

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.running import NodeData, RunningCluster
from deepops_fixtures.records import CheckOutcome, CommandRecord
from deepops_fixtures.report import page, provenance, timeline
from deepops_fixtures.report.remarks import Remark

NODES = [
    NodeData(name="virtual-login", groups=["slurm-master"], address="10.86.1.11"),
    NodeData(name="virtual-gpu01", groups=["slurm-node"], address="10.86.1.13"),
]
CHECKS = [
    CheckOutcome("t::test_a[virtual-gpu01]", "failed", 1.0, 2.0, node="virtual-gpu01",
                 message="slurmd is <inactive>"),
    CheckOutcome("t::test_b[virtual-login]", "passed", 3.0, 1.0, node="virtual-login"),
    CheckOutcome("t::test_c[virtual-login]", "skipped", 3.0, 0.0, node="virtual-login"),
]  # fmt: skip


def test_a_node_with_a_failed_check_is_red_in_the_picture():
    cards = page.cards(NODES, topology.load("debian"), CHECKS)
    assert {card.name: card.kind for card in cards} == {
        "virtual-login": "good",
        "virtual-gpu01": "bad",
    }
    assert cards[0].checks == 1
    assert cards[0].size == "1 CPU, 1.0 GiB, 8 GiB disk"


def test_the_summary_has_every_part_and_escapes_what_it_shows():
    text = page.summary(
        page.RunFacts(
            title="t", verdict="The <cluster> is broken", good=False, problems=["left <x>"],
            cards=page.cards(NODES, None, CHECKS), network="debian", failures=CHECKS[:1],
            timeline=timeline.build([], CHECKS), provenance={"box": "debian12 & co"},
            files=[("results", [("junit.xml", "junit.xml")])],
            remarks=[Remark("Tasks, compared", [("<task> slower", True)], [("slow", "9 s")])],
        )
    )  # fmt: skip
    for part in ("The &lt;cluster&gt; is broken", "left &lt;x&gt;", "slurmd is &lt;inactive&gt;",
                 "Tasks, compared", "&lt;task&gt; slower", "<td>9 s</td>",
                 "virtual-gpu01", "debian12 &amp; co", 'href="junit.xml"', "<svg "):  # fmt: skip
        assert part in text, part
    assert "<inactive>" not in text


@pytest.mark.parametrize("airgap", [True, False])
def test_a_report_says_that_the_cluster_had_no_way_out(monkeypatch, airgap):
    monkeypatch.setattr(provenance, "_said", lambda _command: "")
    running = RunningCluster(
        name="one", provider="vagrant", nodes=[], inventory=Path("/nowhere"), airgap=airgap
    )
    said = provenance.collect(running, (), (), "", "", "", {}).get("airgap")
    assert said == ("the machines' networks had no way out" if airgap else None)


def test_evidence_shows_commands_and_logs_without_secrets():
    records = [
        CommandRecord("virtual-login", "echo MUNGE:AwQFAAC0vYkWmFuyTtGTVQh8oXn1e4R2: | unmunge", 1,
                      "a" * 20 + "\n", "<bad>", 0.1),
    ]  # fmt: skip
    text = page.evidence(records, {"virtual-login": "password=hunter2", "quiet": " "})
    assert "&lt;bad&gt;" in text
    assert "exit 1" in text
    assert "AwQFAAC0vYk" not in text
    assert "hunter2" not in text
    assert "quiet" not in text


def test_long_output_is_cut_in_the_middle():
    record = CommandRecord("n", "c", 0, "\n".join(f"line{i}" for i in range(500)), "", 0.1)
    text = page.evidence([record], {})
    assert "line0\n" in text
    assert "line499" in text
    assert "line250" not in text
    assert "460 lines" in text
