"""The second run starts from where the first one was; what cannot be trusted is not used; and a
test that breaks the cluster leaves no trace."""

import getpass
import json
import re

import pytest

from deepops_fixtures.cluster import hypervisor, restoring, taking
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.journal import Journal
from tests.harness.e2e.conftest import Commands, book, nodes_of

pytestmark = pytest.mark.slow

#: One machine, of a size that no other test has: its checkpoints are this module's alone.
CLUSTER = """
box: debian12
deployment: none
nodes:
  virtual-login: {{groups: [slurm-master], cpus: 1, memory: {memory}, disk: 8, address: 11}}
"""
CHECK = """
import time
import pytest

def test_the_clock_is_right(virtual_cluster):
    before = time.time()
    node = virtual_cluster["virtual-login"]
    assert before - 1 < float(node.host.check_output("date +%s.%N")) < time.time() + 1

def test_the_file_system_can_be_written(virtual_cluster):
    virtual_cluster["virtual-login"].host.run_expect([0], "touch /touched")

def test_a_pristine_cluster_has_no_trace_of_other_tests(pristine_cluster):
    assert not pristine_cluster["virtual-login"].host.file("/touched").exists

@pytest.mark.destructive
def test_the_first_breaks_it(virtual_cluster):
    host = virtual_cluster["virtual-login"].host
    host.run_expect([0], "rm /etc/hostname; touch /broken; systemctl stop systemd-resolved")

@pytest.mark.destructive
def test_the_second_finds_it_whole(virtual_cluster):
    host = virtual_cluster["virtual-login"].host
    assert host.file("/etc/hostname").content_string == "virtual-login\\n"
    assert host.service("systemd-resolved").is_running
    assert not host.file("/broken").exists
"""


@pytest.fixture(scope="module", autouse=True)
def _own_checkpoints_go(tmp_path_factory, project):
    yield
    commands = Commands(tmp_path_factory.mktemp("gone"), project)
    found = [item["id"] for item in mine(commands)]
    if found:
        assert commands.virtual("checkpoint", "drop", *found).status == 0


def listed(commands):
    """Return what ``checkpoint list --json`` says."""
    done = commands.virtual("checkpoint", "list", "--json")
    assert done.status == 0, done.output
    return json.loads(done.output)["checkpoints"]


@pytest.fixture
def once(commands):
    """The arguments of a run of this module's cluster, its file and its checks written."""
    (commands.folder / "once.yml").write_text(CLUSTER.format(memory=400))
    (commands.folder / "test_it.py").write_text(CHECK)
    return ["--deepops-cluster", "./once.yml", "test_it.py"]


def mine(commands):
    return [item for item in listed(commands) if item["cluster"] == "once"]


def test_the_second_run_starts_from_the_checkpoint_of_the_first(commands, once, nothing_left):
    first = commands.pytest(*once)
    assert first.status == 0, first.output
    assert "start: made from the box" in first.output
    assert first.output.count("revert going back to checkpoint") == 4  # two, their begin and end
    found = mine(commands)
    assert [(item["stage"], item["kind"]) for item in found] == [("up", "ram")]
    assert found[0]["bytes"] > 50 * 1024**2
    assert (found[0]["used_by"], found[0]["flaw"]) == ("", "")

    second = commands.pytest(*once, "-n", "2")
    assert second.status == 0, second.output
    assert f"start: restored from checkpoint '{found[0]['id']}'" in second.output
    assert "starting 1 virtual machine " not in second.output
    assert second.seconds < first.seconds
    assert "5 passed" in second.output
    assert len(mine(commands)) == 1


def test_a_changed_input_is_named_and_the_cluster_made_anew(commands, once, nothing_left):
    (commands.folder / "once.yml").write_text(CLUSTER.format(memory=416))
    refused = commands.pytest(*once, "--deepops-reuse", "require")
    assert refused.status == 4, refused.output
    assert "cluster: nodes.virtual-login.memory is 416, was 400" in refused.output
    assert book().all() == [] or all(item.spec.name != "once" for item in book().all())


def test_require_starts_from_the_checkpoint(commands, once, nothing_left):
    run = commands.pytest(*once, "--deepops-reuse", "require", "-k", "clock")
    assert run.status == 0, run.output
    assert "start: restored from checkpoint" in run.output


def test_a_kept_cluster_is_attached_to_by_name_and_its_checkpoint_is_not_dropped(
    commands, once, nothing_left
):
    run = commands.pytest(*once, "--deepops-keep", "always", "-k", "clock")
    kept = re.search(r"cluster: '(\S+)' was kept", run.output)
    assert kept, run.output
    name = kept[1]
    try:
        nodes_of(name)["virtual-login"].host.run_expect([0], "echo by hand > /by-hand")
        attached = commands.pytest("--deepops-attach", name, "test_it.py")
        assert attached.status == 0, attached.output
        # What was there before the run is there after it; what its tests did is not.
        host = nodes_of(name)["virtual-login"].host
        assert host.file("/by-hand").content_string == "by hand\n"
        assert host.file("/etc/hostname").content_string == "virtual-login\n"
        item = mine(commands)[0]
        assert item["used_by"] == name
        dropped = commands.virtual("checkpoint", "drop", item["id"])
        assert dropped.status == 2, dropped.output
        assert f"is in use by cluster '{name}' (kept)" in dropped.output
    finally:
        gone = commands.virtual("destroy", name)
    assert gone.status == 0, gone.output
    assert [item["stage"] for item in mine(commands)] == ["up"]


def test_where_memory_cannot_be_kept_the_disks_are_and_the_guests_boot(
    commands, once, nothing_left, tmp_path
):
    up = commands.virtual("up", "--cluster", "./once.yml", "--json")
    assert up.status == 0, up.output
    running = RunningCluster.model_validate_json(up.output[up.output.index("\n{") :])
    store, journal = Store(book()), Journal(tmp_path / "events.jsonl")
    boot = "cat /proc/sys/kernel/random/boot_id"
    try:
        host = nodes_of(running.name)["virtual-login"].host
        host.run_expect([0], "echo before > /before")
        first = host.check_output(boot)
        manifest = taking.take(store, running.name, running, "here", {}, ram=False)
        assert (manifest.kind, manifest.ram) == ("disk", {})
        host.run_expect([0], "rm /before")
        restoring.revert(store, manifest, running, journal)
        host = nodes_of(running.name)["virtual-login"].host
        assert host.file("/before").content_string == "before\n"
        assert host.check_output(boot) != first
    finally:
        gone = commands.virtual("destroy", running.name)
    assert gone.status == 0, gone.output
    assert manifest.id not in {item.id for item in store.all()}


def test_a_checkpoint_in_use_is_passed_over_and_two_runs_go_side_by_side(
    commands, once, nothing_left
):
    (commands.folder / "test_slow.py").write_text(
        "import time\ndef test_it(virtual_cluster):\n"
        "    print('SLOW BEGINS', flush=True)\n    time.sleep(600)\n"
    )
    first = commands.start_pytest(*once[:2], "test_slow.py", "-s")
    first.wait_for("SLOW BEGINS")
    second = commands.pytest(*once, "-k", "clock")
    assert second.status == 0, second.output
    assert re.search(r"checkpoint 'once-\S+' is not free: it is in use by cluster", second.output)
    assert "start: made from the box" in second.output
    first.signal(2)
    assert first.wait(60).status == 2
    # Each has a checkpoint of its own from now on.
    assert len(mine(commands)) == 2


def test_a_checkpoint_whose_memory_was_cut_is_set_aside_and_told(commands, once, nothing_left):
    before = mine(commands)
    with hypervisor.connect() as connection:
        pool = connection.storagePoolLookupByName(hypervisor.POOL)
        for item in before:
            name = f"deepops-checkpoint-{item['id']}_virtual-login.ram"
            stream = connection.newStream()
            pool.storageVolLookupByName(name).upload(stream, 0, 4096)
            stream.send(b"\0" * 4096)
            stream.finish()
    run = commands.pytest(*once, "-k", "clock")
    assert run.status == 0, run.output
    assert run.output.count("was set aside: volume 'deepops-checkpoint-once-") == len(before)
    assert "start: made from the box" in run.output
    after = {item["id"] for item in mine(commands)}
    assert len(after) == 1
    assert not after & {item["id"] for item in before}
    collected = commands.virtual("clean", "--json")
    assert collected.status == 0, collected.output
    assert len(json.loads(collected.output.splitlines()[-1])["collected"]) == len(before)
    with hypervisor.connect() as connection:
        left = connection.storagePoolLookupByName(hypervisor.POOL).listVolumes()
    assert not [name for name in left for item in before if item["id"] in name]


def test_a_manifest_cut_short_is_set_aside_and_never_a_traceback(commands, once, nothing_left):
    found = mine(commands)
    path = book().folder.parent / "checkpoints" / found[0]["id"] / "manifest.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    shown = commands.virtual("checkpoint", "list")
    assert shown.status == 0, shown.output
    assert f"'{found[0]['id']}' was set aside: its manifest cannot be read" in shown.output
    assert "Traceback" not in shown.output
    assert commands.virtual("clean").status == 0
    assert mine(commands) == []


def test_a_foreign_machine_of_a_similar_name_is_never_touched(commands, nothing_left):
    run = commands.start_pytest("--deepops-cluster", "tiny", "test_slow.py", "-s")
    (commands.folder / "test_slow.py").write_text(
        "import time\ndef test_it(virtual_cluster):\n"
        "    print('SLOW BEGINS', flush=True)\n    time.sleep(600)\n"
    )
    foreign = []
    try:
        run.wait_for("SLOW BEGINS")
        name = next(item.name for item in book().all() if item.spec.name == "tiny")
        with hypervisor.connect() as connection:
            for label in (f"deepops-{name}_virtual-login2", f"deepops-{name}x_virtual-login"):
                domain = (
                    f"<domain type='qemu'><name>{label}</name><memory unit='MiB'>64</memory>"
                    "<os><type arch='x86_64'>hvm</type></os></domain>"
                )
                foreign.append(connection.defineXML(domain).name())
            pool = connection.storagePoolLookupByName(hypervisor.POOL)
            volume = f"deepops-{name}x_virtual-login.img"
            pool.createXML(
                f"<volume><name>{volume}</name><capacity unit='MiB'>1</capacity></volume>"
            )
        run.process.kill()
        run.process.wait()
        cleaned = commands.virtual("clean", "--json")
        assert json.loads(cleaned.output.splitlines()[-1])["destroyed"] == [name]
        with hypervisor.connect() as connection:
            assert {connection.lookupByName(label).name() for label in foreign} == set(foreign)
            pool = connection.storagePoolLookupByName(hypervisor.POOL)
            assert volume in pool.listVolumes()
    finally:
        with hypervisor.connect() as connection:
            for label in foreign:
                connection.lookupByName(label).undefine()
            pool = connection.storagePoolLookupByName(hypervisor.POOL)
            for left in [
                item for item in pool.listVolumes() if item.endswith("x_virtual-login.img")
            ]:
                pool.storageVolLookupByName(left).delete()


def test_three_clusters_started_in_the_same_second_all_come_up(commands, once, nothing_left):
    (commands.folder / "test_slow.py").write_text(
        "def test_it(virtual_cluster):\n"
        "    assert virtual_cluster['virtual-login'].host.check_output('hostname')\n"
    )
    words = ["--deepops-cluster", "tiny", "--deepops-reuse", "never", "test_slow.py"]
    runs = [
        commands.start_pytest(*words, "--deepops-reports", str(commands.folder / f"r{number}"))
        for number in range(3)
    ]
    for run in runs:
        assert run.process.wait(timeout=600) == 0, run.output
        assert "start: made from the box" in run.output


def test_status_says_what_each_cluster_takes_and_whose_it_is(commands, nothing_left):
    (commands.folder / "test_slow.py").write_text(
        "import time\ndef test_it(virtual_cluster):\n"
        "    print('SLOW BEGINS', flush=True)\n    time.sleep(600)\n"
    )
    run = commands.start_pytest("--deepops-cluster", "tiny", "test_slow.py", "-s")
    run.wait_for("SLOW BEGINS")
    data = json.loads(commands.virtual("status", "--json").output)
    item = next(item for item in data["instances"] if item["cluster"] == "tiny")
    assert item["owner"] == {"pid": run.process.pid, "user": getpass.getuser(), "alive": True}
    assert not item["abandoned"]
    assert item["memory_bytes"] > 100 * 1024**2
    assert item["disk_bytes"] > 100 * 1024
    assert f"process {run.process.pid}" in commands.virtual("status").output
    assert "Nothing to clean." in commands.virtual("clean").output
    run.signal(2)
    assert run.wait(60).status == 2
