"""Leases of IOMMU groups between real processes, some of which are killed."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deepops_fixtures.errors import LeakError, UsageProblem
from deepops_fixtures.passthrough import lease_files
from deepops_fixtures.passthrough.leases import FOLDER, Leases, Owner
from deepops_fixtures.passthrough.pci import VFIO, Bdf
from deepops_fixtures.passthrough.selection import Request
from tests.harness.unit import pci_trees as trees
from tests.harness.unit.pci_trees import HostTree

NODES = ["gpu01"]

#: Takes a lease, says so, and keeps it until its input ends or it is killed.
RUN = """
import os, pathlib, sys
from deepops_fixtures.passthrough.leases import Leases, Owner
from deepops_fixtures.passthrough.selection import Request
root, request, name, wait = sys.argv[1:]
(pathlib.Path(root) / "proc" / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
leases = Leases(root, domain_exists=lambda it: (pathlib.Path(root) / "domains" / it).exists())
owner = Owner(name, {"gpu01": f"{name}_gpu01"})
say = lambda text: print("waits:", text, flush=True)
lease = leases.acquire(Request.parse(request), ["gpu01"], owner, wait_s=float(wait), say=say)
print("holds:", *lease.groups, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tree(tmp_path):
    """An eight-GPU host whose groups are 40 to 47, on which this process runs."""
    tree = trees.dgx1v(HostTree(tmp_path))
    (tmp_path / "domains").mkdir()
    (tmp_path / "proc" / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    return tree


@pytest.fixture
def leases(tree):
    return Leases(tree.root, domain_exists=lambda name: (tree.root / "domains" / name).exists())


@pytest.fixture
def run(tree):
    """Return a function that starts another process that takes a lease."""
    started = []

    def run(request: str, name: str, wait: float = 0) -> subprocess.Popen:
        words = [sys.executable, "-c", RUN, str(tree.root), request, name, str(wait)]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def held_by(process: subprocess.Popen) -> set[int]:
    """Wait until a process holds something, and return what."""
    for line in process.stdout:
        if line.startswith("holds:"):
            return set(map(int, line.split()[1:]))
    raise AssertionError(process.stderr.read())


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def taken(leases: Leases, request: str = "auto", name: str = "ours", **more):
    owner = Owner(name, {"gpu01": f"{name}_gpu01"})
    return leases.acquire(Request.parse(request), NODES, owner, **more)


def machine(tree: HostTree, name: str) -> Path:
    """Make a virtual machine that exists."""
    path = tree.root / "domains" / name
    path.touch()
    return path


# -- one process ----------------------------------------------------------------------------


def test_a_lease_says_who_holds_what_since_when(leases):
    before = time.time()
    lease = taken(leases, "2")
    assert lease.groups == (40, 41)
    holder = leases.holders()[40]
    assert (holder.instance, holder.pid, holder.kept) == ("ours", os.getpid(), False)
    assert before <= holder.since <= time.time()
    assert holder.bdfs == ("0000:08:00.0",) and holder.domains == ("ours_gpu01",)
    assert holder.drivers == {"0000:08:00.0": "vfio-pci"}


def test_looking_makes_no_file(tree, leases):
    assert leases.holders() == {}
    assert not (tree.root / FOLDER.lstrip("/")).exists()


def test_other_users_may_lease_after_us_whatever_our_umask_is(tree, leases):
    mask = os.umask(0o077)
    try:
        taken(leases)
    finally:
        os.umask(mask)
    folder = tree.root / FOLDER.lstrip("/")
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666}


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_locked(tree, leases):
    tree.file("/run/lock", "in the way")
    with pytest.raises(UsageProblem, match=r"choice.lock' cannot be written") as problem:
        taken(leases)
    assert "sudo install -d -m 1777" in problem.value.hint


def test_nothing_asked_is_nothing_leased_and_no_file_made(tree, leases):
    assert taken(leases, "none").groups == ()
    leases.keep("ours")
    leases.release("ours")
    assert not (tree.root / FOLDER.lstrip("/")).exists()


def test_drivers_in_records_that_anybody_may_write_are_names_of_drivers(tree, leases):
    told = {"0000:08:00.0": "nvidia", "0000:0a:00.0": "../x", "here": "nvidia", "0b:00.0": VFIO}
    record = {"instance": "a", "user": "b", "pid": 1, "process_started": 1, "since": 1}
    text = json.dumps({**record, "drivers": told})
    tree.file(f"{FOLDER}/iommu-group-40.lock", f"{text}\n")
    assert leases.drivers_before() == {Bdf.parse("08:00.0"): "nvidia"}


def test_a_record_that_is_junk_is_no_lease(tree, leases):
    tree.file(f"{FOLDER}/iommu-group-40.lock", "{")
    assert leases.holders() == {}
    assert taken(leases).groups == (40,)


def test_a_process_with_the_same_number_but_another_start_is_not_the_holder(tree, leases):
    lease = taken(leases)
    lease.record({40: leases.holders()[40].model_copy(update={"process_started": 1})})
    lease.close()
    assert leases.holders() == {}


def test_a_lock_without_a_record_counts_and_is_all_or_nothing(tree, leases):
    tree.file(f"{FOLDER}/iommu-group-41.lock", "")
    handle = lease_files.open_shared(tree.root / FOLDER.lstrip("/") / "iommu-group-41.lock")
    assert lease_files.lock(handle)
    with pytest.raises(UsageProblem, match="to a process that left no record of itself"):
        taken(leases, "08:00.0,0a:00.0")
    assert leases.holders() == {}
    assert taken(leases, "3").groups == (44, 45, 46)
    os.close(handle)
    assert taken(leases, "08:00.0,0a:00.0", "other").groups == (40, 41)


# -- several processes ----------------------------------------------------------------------


def test_two_runs_share_nothing(leases, run):
    first, second = run("4", "first"), run("4", "second")
    assert held_by(first) | held_by(second) == set(range(40, 48))
    assert {holder.instance for holder in leases.holders().values()} == {"first", "second"}


def test_who_comes_too_late_is_told_who_holds_the_gpus(leases, run):
    held_by(run("8", "first"))
    with pytest.raises(UsageProblem) as problem:
        taken(leases)
    holder = leases.holders()[40]
    assert (
        problem.value.message == f"The devices that 'auto' asks for are still leased, to {holder}."
    )
    assert "is leased to cluster 'first'" not in problem.value.message


def test_runs_that_are_killed_make_room_and_no_group_ever_has_two_holders(leases, run):
    runs = [run("3", f"run{number}", wait=120) for number in range(6)]
    lines: queue.Queue[tuple[subprocess.Popen, str]] = queue.Queue()
    for process in runs:
        threading.Thread(target=_read_all, args=(process, lines), daemon=True).start()
    holding: dict[subprocess.Popen, set[int]] = {}
    for _ in runs:
        process, groups = _next_holder(lines)
        assert len(groups) == 3
        assert not groups & set().union(*holding.values())
        holding[process] = groups
        if len(holding) == 2:
            victim = next(iter(holding))
            # From here on the others may have what it held.
            del holding[victim]
            killed(victim)


def _read_all(process: subprocess.Popen, lines: queue.Queue) -> None:
    for line in process.stdout:
        lines.put((process, line))


def _next_holder(lines: queue.Queue) -> tuple[subprocess.Popen, set[int]]:
    while True:
        process, line = lines.get(timeout=120)
        if line.startswith("holds:"):
            return process, set(map(int, line.split()[1:]))


def test_waiting_says_for_whom_and_gets_the_gpu_when_the_holder_is_killed(leases, run):
    first = run("8", "first")
    held_by(first)
    said = []

    def say(text: str) -> None:
        said.append(text)
        killed(first)

    assert taken(leases, "08:00.0", wait_s=120, say=say).groups == (40,)
    assert len(said) == 1
    assert said[0].startswith("Waiting for devices that are leased to cluster 'first' of user")


def test_waiting_ends_at_its_deadline_and_nothing_is_held(leases, run):
    first = run("08:00.0", "first")
    held_by(first)
    with pytest.raises(
        UsageProblem, match="still leased after 1 s of waiting, to cluster 'first'"
    ):
        taken(leases, "08:00.0,0a:00.0", wait_s=1)
    assert set(leases.holders()) == {40}


def test_what_no_wait_can_mend_is_refused_at_once(tree, leases, run):
    held_by(run("7", "first"))
    tree.process(55, "qemu-system-x86_64", ["/dev/vfio/47"])
    with pytest.raises(UsageProblem, match="'qemu-system-x86_64' "):
        taken(leases, "94:00.0", wait_s=600)
    with pytest.raises(UsageProblem, match="9 GPUs are needed"):
        taken(leases, "9", wait_s=600)


def test_a_device_in_somebodys_virtual_machine_is_not_leased(tree):
    leases = Leases(tree.root, guests=lambda: {Bdf.parse("08:00.0"): "win10"})
    assert taken(leases, "7").groups == tuple(range(41, 48))
    with pytest.raises(UsageProblem, match="is in the virtual machine 'win10'"):
        taken(leases, "08:00.0", "other")


# -- after the process ----------------------------------------------------------------------


def test_the_lease_of_a_killed_run_lasts_while_its_machine_exists(tree, leases, run):
    first = run("08:00.0", "first")
    held_by(first)
    domain = machine(tree, "first_gpu01")
    killed(first)
    assert leases.holders()[40].instance == "first"
    with pytest.raises(UsageProblem, match="leased, to cluster 'first'"):
        taken(leases, "08:00.0")
    domain.unlink()
    assert leases.holders() == {}
    assert taken(leases, "08:00.0").groups == (40,)


def test_the_lease_of_a_killed_run_lasts_while_its_device_is_open(tree, leases, run):
    first = run("08:00.0", "first")
    held_by(first)
    killed(first)
    tree.process(4, "qemu-system-x86_64", ["/dev/vfio/40"])
    assert set(leases.holders()) == {40}
    with pytest.raises(UsageProblem, match="leased, to cluster 'first'"):
        taken(leases, "08:00.0")


def test_the_lease_of_a_killed_run_lasts_until_its_device_is_back(tree, leases, run):
    tree.bind("0000:08:00.0", "nvidia")
    first = run("08:00.0", "first")
    held_by(first)
    killed(first)
    assert leases.holders() == {}
    tree.bind("0000:08:00.0", "vfio-pci")
    assert set(leases.holders()) == {40} and leases.holders(away=False) == {}
    with pytest.raises(UsageProblem, match="leased, to cluster 'first'"):
        taken(leases, "08:00.0")
    tree.bind("0000:08:00.0", "nvidia")
    assert taken(leases, "08:00.0").groups == (40,)


def test_a_kept_cluster_keeps_its_lease_and_says_so(tree, leases, run):
    first = run("08:00.0", "first")
    held_by(first)
    machine(tree, "first_gpu01")
    leases.keep("first")
    first.communicate("")
    assert leases.holders()[40].kept


# -- release --------------------------------------------------------------------------------


def test_a_lease_ends_once_machine_and_device_are_back(leases):
    lease = taken(leases)
    leases.release("ours", lease=lease)
    assert leases.holders() == {} and lease.groups == ()
    assert taken(leases, name="next").groups == (40,)


def test_what_another_instance_holds_is_not_released(leases):
    taken(leases, "1", "ours"), taken(leases, "1", "theirs")
    leases.release("ours")
    assert {holder.instance for holder in leases.holders().values()} == {"theirs"}


def test_the_lease_stays_while_the_machine_exists(tree, leases):
    lease = taken(leases)
    machine(tree, "ours_gpu01")
    with pytest.raises(LeakError, match="the virtual machine 'ours_gpu01' still exists"):
        leases.release("ours", wait_s=0, lease=lease)
    assert set(leases.holders()) == {40} and lease.groups == (40,)


def test_the_lease_stays_while_the_device_is_not_on_its_driver(tree, leases):
    tree.bind("0000:08:00.0", "nvidia")
    lease = taken(leases, "08:00.0")
    tree.bind("0000:08:00.0", "vfio-pci")
    with pytest.raises(LeakError, match="is on driver 'vfio-pci' and not on 'nvidia'"):
        leases.release("ours", wait_s=0, lease=lease)
    tree.bind("0000:08:00.0", "nvidia")
    leases.release("ours", wait_s=0, lease=lease)
    assert leases.holders() == {}


def test_the_lease_stays_while_a_program_has_the_device_open(tree, leases):
    lease = taken(leases)
    tree.process(9, "qemu-system-x86_64", ["/dev/vfio/40"])
    with pytest.raises(LeakError, match="a program still has '/dev/vfio/40' open"):
        leases.release("ours", wait_s=0, lease=lease)


def test_a_device_that_another_driver_of_the_host_took_is_back(tree, leases):
    lease = taken(leases, "08:00.0")
    tree.bind("0000:08:00.0", "")
    with pytest.raises(LeakError, match="is on driver '' and not on 'vfio-pci'"):
        leases.release("ours", wait_s=0, lease=lease)
    tree.bind("0000:08:00.0", "nvidia")
    leases.release("ours", wait_s=0, lease=lease)
    assert leases.holders() == {}


def test_a_holder_whose_process_cannot_be_seen_is_still_named(tree, leases, run):
    first = run("08:00.0", "first")
    held_by(first)
    (tree.root / "proc" / str(first.pid)).unlink()
    with pytest.raises(UsageProblem, match="still leased, to cluster 'first'"):
        taken(leases, "08:00.0")


def test_a_device_that_left_the_bus_keeps_the_lease(tree, leases):
    lease = taken(leases, "08:00.0")
    (tree.root / "sys/bus/pci/devices/0000:08:00.0").unlink()
    with pytest.raises(LeakError, match="is not on the bus any more"):
        leases.release("ours", wait_s=0, lease=lease)
