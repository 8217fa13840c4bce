"""A whole run on existing hosts: fixtures, reports, xdist. Nothing is brought up or destroyed."""

import json
import platform
import re
from xml.etree import ElementTree

MODULE = """
import os
import pytest

@pytest.mark.nodes("slurm-cluster")
def test_every_node_answers(node, host):
    assert host.check_output("echo %s", node.name) == node.name

@pytest.mark.nodes("slurm-node")
def test_a_check_that_fails(node, host):
    done = host.run("echo password=hunter2; echo the cause >&2; false")
    assert done.rc == 0, f"{node.name}: {done.stderr.strip()}"

def test_groups(deepops, login_host):
    assert [node.name for node in deepops.group("slurm-cluster")] == ["one", "two"]
    assert login_host.check_output("echo hi") == "hi"

@pytest.mark.destructive
def test_that_breaks_things(host):
    host.run("touch broken")
"""


def test_the_hosts_are_checked_and_left_as_they_are(run, pytester, inventory):
    pytester.makepyfile(MODULE)
    result = run("--deepops-inventory", inventory, "-rs")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*existing hosts of *hosts.ini (nothing is created or destroyed)",
            "two$ echo password=<removed>*exit 1*",
            "  two: the cause",
            "hosts: left as they were",
            "The cluster is broken: 1 of 4 checks failed, on two, 1 skipped.",
            "*destructive, and these hosts are not ours to break*",
        ]
    )
    assert not (pytester.path / "broken").exists()


def test_the_report_has_the_evidence_and_no_secret(run, pytester, inventory):
    pytester.makepyfile(MODULE)
    run("--deepops-inventory", inventory)
    folder = pytester.path / "reports" / "latest"
    page = (folder / "report.html").read_text()
    for words in ("The cluster is broken: 1 of 4 checks failed, on two", "Provenance",
                  "deepops-fixtures 0.", "two: the cause", "dv-card bad", "<svg"):  # fmt: skip
        assert words in page, words
    assert "What this check did on the nodes" in page
    assert re.findall(r'(?:src|href)="https?://[^"]*"', page.split("<body>")[0]) == []
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".html", ".txt", ".xml", ".jsonl"):
            text = path.read_text()
            # The words of the test module itself are no secret; what the command wrote is.
            assert "\nhunter2" not in text
            assert "password=hunter2\n" not in text
    cases = ElementTree.parse(folder / "junit.xml").iter("testcase")
    assert {case.get("name") for case in cases} >= {"test_every_node_answers[one]", "test_groups"}


def test_the_bundle_has_the_state_of_every_host(run, pytester, inventory):
    pytester.makepyfile(MODULE)
    run("--deepops-inventory", inventory)
    folder = pytester.path / "reports" / "latest"
    assert (folder / "bundle.tar.gz").is_file()
    for node in ("one", "two"):
        assert "Mem:" in (folder / "bundle" / node / "processes.txt").read_text()
    assert (folder / "bundle" / "one" / "sinfo.txt").is_file()
    assert not (folder / "bundle" / "two" / "sinfo.txt").exists()


def test_a_green_run_leaves_no_bundle(run, pytester, inventory):
    pytester.makepyfile("def test_it(host):\n    assert host.run('true').rc == 0\n")
    result = run("--deepops-inventory", inventory)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["The cluster works: 1 check passed."])
    assert not (pytester.path / "reports" / "latest" / "bundle").exists()


def test_the_user_may_say_where_the_report_goes(run, pytester, inventory):
    pytester.makepyfile("def test_it(host):\n    pass\n")
    run("--deepops-inventory", inventory, "--html", "mine.html", "--self-contained-html")
    assert "Provenance" in (pytester.path / "mine.html").read_text()


SHARING = """
import os
import time
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one_of_many(deepops, deepops_session, number):
    time.sleep(0.3)
    first = deepops_session.once("who", os.getpid)
    print(f"FIRST {first} ME {os.getpid()} CLUSTER {deepops_session.run_dir}")
    assert len(deepops) == 2
"""


def test_under_xdist_one_cluster_is_shared(run, pytester, inventory):
    pytester.makepyfile(SHARING)
    result = run("--deepops-inventory", inventory, "-n", "4", "-rP")
    result.assert_outcomes(passed=6)
    text = result.stdout.str()
    assert len(set(re.findall(r"FIRST (\d+)", text))) == 1
    assert len(set(re.findall(r"ME (\d+)", text))) > 1
    assert len(set(re.findall(r"CLUSTER (\S+)", text))) == 1
    assert len([p for p in (pytester.path / "reports").iterdir() if not p.is_symlink()]) == 1
    events = (pytester.path / "reports" / "latest" / "events.jsonl").read_text().splitlines()
    ups = [e for e in map(json.loads, events) if e["phase"] == "stage" and e["what"] == "up"]
    assert len(ups) == 1


def test_a_worker_that_dies_does_not_take_the_run_with_it(run, pytester, inventory):
    pytester.makepyfile(
        SHARING
        + """
def test_that_kills_its_worker(deepops):
    os._exit(9)
"""
    )
    result = run("--deepops-inventory", inventory, "-n", "2")
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running*", "report: *report.html"])


def test_this_host_itself_needs_no_inventory_of_the_users(run, pytester):
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.nodes()\n"
        "def test_it(node, host):\n"
        "    assert node.name == 'localhost'\n"
        f"    assert host.check_output('pwd') == '{pytester.path}'\n"
    )
    result = run("--deepops-inventory", "local")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*this host, {platform.node()}, as it is (nothing is created *"])


def test_testinfras_own_hosts_option_still_works(run, pytester):
    pytester.makepyfile(
        "def test_it(host):\n    assert host.backend.get_connection_type() == 'local'\n"
    )
    result = run("--hosts", "local://")
    result.assert_outcomes(passed=1)
    assert not (pytester.path / "reports").exists()


def test_an_unknown_group_selects_no_node(run, pytester, inventory):
    pytester.makepyfile(
        "import pytest\n\n@pytest.mark.nodes('etcd')\ndef test_it(node):\n    pass\n"
    )
    result = run("--deepops-inventory", inventory, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no node in group*etcd*"])
