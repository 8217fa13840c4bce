"""In which order tests have the cluster, how far they want it, and when it has to be put back."""

import json
import time

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, Owner
from deepops_fixtures.cluster.running import NodeData, RunningCluster

ORDER = """
import pytest

@pytest.mark.destructive
def test_breaks(deepops): ...

@pytest.mark.destructive
def test_breaks_what_is_pristine(pristine_cluster): ...

def test_pristine(pristine_cluster): ...

@pytest.mark.late
def test_late(deepops): ...

def test_one(deepops): ...

def test_two(): ...
"""


@pytest.fixture
def attached(pytester):
    """The option for a cluster that is up, as far as a run can see; its one node is this host.
    libvirt knows nothing of it, so that it cannot be put back."""
    book = LedgerBook(pytester.path / ".local" / "state" / "deepops-fixtures")
    name = "deepops-fixtures-nowhere"
    book.write(
        Ledger(
            name=name, owner=Owner.me(), created=time.time(), spec=topology.load("tiny"),
            run_dir=pytester.path, pool="default", domain_prefix=f"deepops-{name}_",
            domains=[f"deepops-{name}_virtual-login"], networks=[], volumes=[], subnets=[],
            socket_dir=pytester.path / "sockets", kept=True, state="up",
        )
    )  # fmt: skip
    node = NodeData(name="virtual-login", groups=["slurm-master"], connection="local")
    running = RunningCluster(
        name=name, provider="vagrant", nodes=[node], inventory=pytester.path / "hosts.ini"
    )
    (book.path(name) / "cluster.json").write_text(running.model_dump_json())
    return f"--deepops-attach={name}"


def events(pytester) -> list[dict]:
    text = (pytester.path / "reports" / "latest" / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_what_breaks_the_cluster_runs_last_and_what_wants_it_put_back_before(run, pytester):
    pytester.makepyfile(ORDER)
    result = run("--collect-only", "-q")
    names = [line.split("::")[1] for line in result.outlines if "::" in line]
    assert names == [
        "test_one", "test_two", "test_late", "test_pristine", "test_breaks",
        "test_breaks_what_is_pristine",
    ]  # fmt: skip


TARGET = """
import pytest
from deepops_fixtures.session import session_of

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    rehearsal = session_of(session.config).rehearsal
    print("WANTS", rehearsal.target, "AND GOES", "BACK" if rehearsal.goes_back else "ON")
"""


@pytest.mark.parametrize(
    ("test", "wanted"),
    [
        ("def test_it(virtual_cluster): ...", "up AND GOES ON"),
        ("def test_it(): ...", "up AND GOES ON"),
        ("def test_it(deepops): ...", "deployed AND GOES ON"),
        ("def test_it(virtual_cluster, slurm): ...", "deployed AND GOES ON"),
        ("def test_it(host): ...", "deployed AND GOES ON"),
        ("def test_it(pristine_cluster): ...", "deployed AND GOES BACK"),
        ("@pytest.mark.destructive\ndef test_it(virtual_cluster): ...", "up AND GOES BACK"),
        ("@pytest.mark.destructive\ndef test_it(): ...", "up AND GOES ON"),
        (
            "@pytest.fixture\ndef mine(deepops): ...\n\ndef test_it(mine): ...",
            "deployed AND GOES ON",
        ),
    ],
)
def test_a_run_wants_the_cluster_as_far_as_its_tests_ask_for_it(run, pytester, test, wanted):
    pytester.makeconftest(TARGET)
    pytester.makepyfile(f"import pytest\n\n{test}\n")
    result = run("--collect-only", "-q", "-s", "--deepops-cluster", "tiny")
    assert f"WANTS {wanted}" in result.stdout.str()


def test_hosts_that_are_not_ours_are_not_put_back(run, pytester, inventory):
    pytester.makepyfile("def test_it(pristine_cluster): ...")
    result = run("--deepops-inventory", inventory, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*these hosts are not ours to put back*"])


BREAKING = """
import pytest

def test_reads(host):
    assert host.run("true").rc == 0

@pytest.mark.destructive
@pytest.mark.skip(reason="not today")
def test_that_is_skipped(host): ...

@pytest.mark.destructive
def test_that_breaks_something(host): ...
"""


def test_what_was_broken_is_told_at_the_end_when_it_cannot_be_put_back(run, pytester, attached):
    pytester.makepyfile(BREAKING)
    result = run(attached)
    result.assert_outcomes(passed=2, skipped=1)
    text = result.stdout.str()
    assert "The cluster was not put back after the destructive tests: " in text
    told = [event["what"] for event in events(pytester) if event["phase"] == "checkpoint"]
    assert any("none was taken" in what for what in told)


def test_a_destructive_test_that_is_skipped_has_broken_nothing(run, pytester, attached):
    pytester.makepyfile(BREAKING.rpartition("@pytest.mark.destructive")[0])
    result = run(attached)
    result.assert_outcomes(passed=1, skipped=1)
    assert "was not put back" not in result.stdout.str()


def test_a_cluster_that_cannot_be_put_back_is_not_given_out_as_pristine(run, pytester, attached):
    pytester.makepyfile("def test_one(host): ...\n\ndef test_two(pristine_cluster): ...\n")
    result = run(attached)
    result.assert_outcomes(passed=1, errors=1)
    said = "The cluster cannot be put back: No checkpoint of the cluster could be taken."
    assert said in result.stdout.str()
