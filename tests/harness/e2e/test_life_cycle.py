"""A whole life on a real virtual machine, and the ways it is cut short. Nothing may be left."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.harness.e2e.conftest import book, nodes_of

pytestmark = pytest.mark.slow

CHECK = """
import time

def test_the_first(virtual_cluster):
    node = virtual_cluster["virtual-login"]
    assert node.host.check_output("id -un") == "root"
    assert node.user_host.check_output("id -un") == "vagrant"
    assert node.host.check_output("hostname") == "virtual-login"
    print("FIRST DONE", flush=True)

def test_the_second(virtual_cluster):
    time.sleep({sleep})

def test_the_third(virtual_cluster):
    pass
"""
TINY = ("--deepops-cluster", "tiny")
#: Where the way from the box to a machine is what matters.
COLD = (*TINY, "--deepops-reuse", "never")


@pytest.fixture
def module(commands):
    """Return a function that writes the test module."""

    def write(sleep: float = 0) -> str:
        path = commands.folder / "test_it.py"
        path.write_text(CHECK.format(sleep=sleep))
        return path.name

    return write


@pytest.fixture
def vagrant_before(commands):
    """Return a function that puts a script before the real vagrant, to which it may hand on as
    ``$real``; ``wait_for_domain`` waits until the instance's machine runs."""
    done = subprocess.run(["which", "vagrant"], capture_output=True, text=True, check=True)
    folder = commands.folder / "bin"
    folder.mkdir()

    def put(script: str) -> None:
        (folder / "vagrant").write_text(
            f"""#!/bin/bash
real={done.stdout.strip()}
[ "$1" = up ] || exec $real "$@"
domain=deepops-${{DEEPOPS_VIRTUAL_INSTANCE}}_virtual-login
wait_for_domain() {{
  until virsh -c qemu:///system list --name | grep -qx "$domain"; do sleep 0.2; done
}}
{script}
"""
        )
        (folder / "vagrant").chmod(0o755)
        commands.env["PATH"] = f"{folder}:{commands.env['PATH']}"

    return put


def test_a_green_run_destroys_its_machine_and_says_so(commands, module, nothing_left):
    run = commands.pytest(*COLD, module(), "-v")
    assert run.status == 0, run.output
    assert "3 passed" in run.output
    assert "cluster: destroyed; nothing of it is left on this host" in run.output
    assert "up     virtual-login: booted" in run.output
    page = (run.run_dir / "report.html").read_text()
    assert "The cluster works: 3 checks passed." in page
    console = (run.run_dir / "consoles" / "virtual-login.log").read_text(errors="replace")
    assert "virtual-login login:" in console or "debian12 login:" in console
    phases = {json.loads(line)["phase"] for line in (run.run_dir / "events.jsonl").open()}
    assert {"up", "checks", "down", "audit"} <= phases


def test_four_workers_share_one_machine(commands, module, nothing_left):
    run = commands.pytest(*COLD, module(), "-n", "4")
    assert run.status == 0, run.output
    assert "3 passed" in run.output
    assert run.output.count("starting 1 virtual machine  done") == 1
    assert run.output.count("destroying cluster") == 2  # its begin and its end


def test_vagrant_dies_half_way(commands, module, vagrant_before, nothing_left):
    vagrant_before('setsid $real "$@" & wait_for_domain; kill -9 -- -$!; exit 137')
    run = commands.pytest(*COLD, module(), "-rs")
    assert run.status == 1, run.output
    assert "1 error" in run.output
    assert "2 skipped" in run.output
    assert "'vagrant up' ended with status 137" in run.output
    assert "SKIPPED [2]" in run.output
    assert "Traceback" not in run.output
    assert "cluster: destroyed; nothing of it is left on this host" in run.output


def test_a_machine_that_does_not_answer_is_shown_with_its_console(
    commands, module, vagrant_before, nothing_left
):
    vagrant_before(
        '$real "$@" & wait_for_domain; sleep 8; virsh -c qemu:///system suspend $domain; wait'
    )
    commands.env["CI"] = "true"  # where pytest's short summary repeats whole messages
    run = commands.pytest(*COLD, module(), "--deepops-up-timeout", "40")
    assert run.status == 1, run.output
    assert "'vagrant up' did not end within 40 s and was stopped" in run.output
    assert "--- serial console of virtual-login" in run.output
    assert re.search(r"\| .*(Linux version|systemd|Starting|kernel|\[ +\d+\.)", run.output), (
        run.output
    )
    assert run.output.count("--- serial console of virtual-login") == 1, "once, not for each test"


def test_a_machine_whose_ssh_is_silent_is_named(commands, module, vagrant_before, nothing_left):
    # Vagrant has what it wants; then the machine falls silent before our own connection.
    vagrant_before('$real "$@"; virsh -c qemu:///system suspend $domain')
    run = commands.pytest(*COLD, module(), "--deepops-up-timeout", "60")
    assert run.status == 1, run.output
    assert "No answer over ssh within 60 s from 'virtual-login'" in run.output
    assert "Next: ssh -v -F " in run.output


def test_a_full_disk_is_named_and_nothing_is_left(commands, module, nothing_left):
    reports = commands.folder / "full"
    reports.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "tmpfs", str(reports)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs root to make a small disk")
    try:
        filler = reports / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"\0" * 4096)
        run = commands.pytest(*TINY, module(), "--deepops-reports", str(reports))
        assert run.status == 1, run.output
        assert "No space left on device" in run.output
        assert "INTERNALERROR" not in run.output
        assert "Next: df -h" in run.output
    finally:
        subprocess.run(["umount", str(reports)], check=True)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 2), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["ctrl-c", "term", "hup"],
)
def test_a_signal_during_the_checks_tears_down(commands, module, nothing_left, number, status):
    started = commands.start_pytest(*TINY, module(sleep=300), "-s")
    started.wait_for("FIRST DONE")
    started.signal(number)
    run = started.wait(120)
    assert run.status == status, run.output
    assert "cluster: destroyed; nothing of it is left on this host" in run.output
    assert (run.run_dir / "report.html").is_file()


def test_ctrl_c_while_it_comes_up_tears_down(commands, module, nothing_left):
    started = commands.start_pytest(*COLD, module())
    started.wait_for("virtual-login: started")
    started.signal(signal.SIGINT)
    run = started.wait(120)
    assert run.status == 2, run.output
    assert "cluster: destroyed; nothing of it is left on this host" in run.output


def test_term_under_xdist_tears_down(commands, module, nothing_left):
    started = commands.start_pytest(*TINY, module(sleep=300), "-n", "2")
    started.wait_for("opening ssh connections  done", "setting the clocks  done")
    time.sleep(3)
    started.signal(signal.SIGTERM)
    run = started.wait(120)
    assert run.status == 143, run.output
    assert "cluster: destroyed; nothing of it is left on this host" in run.output


def test_a_second_ctrl_c_says_what_is_left_and_the_named_command_removes_it(
    commands, module, nothing_left
):
    started = commands.start_pytest(*TINY, module(sleep=300), "-s")
    started.wait_for("FIRST DONE")
    started.signal(signal.SIGINT)
    started.wait_for("destroying cluster")
    started.signal(signal.SIGINT)
    run = started.wait(120)
    assert run.status == 2, run.output
    assert "was interrupted. Still there:" in run.output
    hint = re.search(r"Next: deepops-virtual destroy (\S+)", run.output)
    assert hint, run.output
    gone = commands.virtual("destroy", hint[1])
    assert gone.status == 0, gone.output


def test_after_kill_9_clean_removes_exactly_what_was_left(commands, module, nothing_left):
    started = commands.start_pytest(*TINY, module(sleep=300), "-s")
    started.wait_for("FIRST DONE")
    started.process.kill()
    started.process.wait()
    status = commands.virtual("status", "--json")
    mine = [
        item
        for item in json.loads(status.output)["instances"]
        if not item["owner"]["alive"] and not item["kept"]
    ]
    assert [item["cluster"] for item in mine] == ["tiny"]
    assert mine[0]["nodes"]["virtual-login"]["state"] == "running"
    said = commands.virtual("clean", "--dry-run", "--json")
    assert json.loads(said.output)["would_destroy"] == [mine[0]["name"]]
    cleaned = commands.virtual("clean")
    assert cleaned.status == 0, cleaned.output
    assert f"Destroyed: {mine[0]['name']}." in cleaned.output
    again = commands.virtual("clean")
    assert "Nothing to clean." in again.output


def test_a_failed_run_keeps_its_machine_when_told_to(commands, nothing_left):
    (commands.folder / "test_it.py").write_text(
        "def test_red(virtual_cluster):\n    assert False, 'the cause'\n"
    )
    run = commands.pytest(*TINY, "test_it.py", "--deepops-keep", "failed")
    assert run.status == 1
    kept = re.search(r"cluster: '(\S+)' was kept", run.output)
    assert kept, run.output
    name = kept[1]
    try:
        assert nodes_of(name)["virtual-login"].host.check_output("hostname") == "virtual-login"
        assert "Nothing to clean." in commands.virtual("clean").output
    finally:
        gone = commands.virtual("destroy", name)
    assert gone.status == 0, gone.output
    assert book().read(name) is None
