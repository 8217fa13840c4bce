"""Passthrough for real, on a machine without a GPU: a host with an emulated IOMMU is prepared and
rebooted, its devices are leased, one goes to a guest and comes back, and the host is put back byte
for byte.

The host is the rig of tests/harness/rig. The tests are the chapters of one story: each needs those
before it, and is skipped once one of them has failed.
"""

import json
import re

import pytest

from deepops_fixtures.journal import Journal
from tests.harness.rig.image import RigImage
from tests.harness.rig.machine import (
    DISK_ID,
    DISKS,
    NIC_ID,
    NICS,
    ROOT_DISK_ID,
    SHARED_IDS,
    WAY_OUT_ID,
    running,
)

pytestmark = pytest.mark.slow

#: What the project needs inside, where it runs from its own folder, as from a checkout.
PROJECT = ("deepops_fixtures", "vagrant", "playbooks", "setup.sh", "pyproject.toml")
#: All that a preparation may touch.
SETTINGS = "/etc/modules /etc/modules-load.d /etc/modprobe.d /etc/default/grub /etc/default/grub.d"
CLUSTER = """
box: rig/guest
deployment: none
nodes:
  virtual-gpu01: {groups: [slurm-node], cpus: 1, memory: 256, disk: 4, address: 11}
"""
PREPARE = f"deepops-virtual gpu prepare --device {NIC_ID} --device {DISK_ID}"
DOCTOR = f"deepops-virtual doctor --cluster /root/passthrough.yml --gpu {NIC_ID}"
UP = (
    f"deepops-virtual up --cluster /root/passthrough.yml --name rehearsal --gpu {NIC_ID} "
    "--reuse never --up-timeout 1800 --boot-timeout 1500 --reports /root/reports"
)
#: Takes a lease, says what it got, and holds it until its input ends.
HOLD = """
import sys
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.leases import Leases, Owner
from deepops_fixtures.passthrough.selection import Request

name, wanted = sys.argv[1:]
try:
    lease = Leases().acquire(Request.parse(wanted), ["node"], Owner(name))
    print("got", *(item.bdf for item in lease.placement.devices("node")), flush=True)
    sys.stdin.read()
except UsageProblem as error:
    print("refused", " ".join(str(error).split()), flush=True)
"""
#: What is on a guest's bus, without any program of pciutils.
LIST = "grep -h PCI_ID /sys/bus/pci/devices/*/uevent"
HOLD_COMMAND = "/opt/venv/bin/python /root/hold.py"


@pytest.fixture(scope="module")
def rig(tmp_path_factory, project):
    """The host of the story, running, with the project's code in it."""
    folder = tmp_path_factory.mktemp("rig")
    image = RigImage().provide(Journal(folder / "image.jsonl"))
    with running(folder, image.path, image.private_key) as machine:
        machine.send(project, PROJECT, "/opt/deepops-fixtures")
        machine.write("/root/passthrough.yml", CLUSTER)
        machine.write("/root/hold.py", HOLD)
        yield machine


@pytest.fixture(scope="module")
def story():
    """What one chapter leaves for the next."""
    return {}


@pytest.fixture(autouse=True)
def _one_after_the_other(request, story):
    if "failed" in story:
        pytest.skip(f"'{story['failed']}' has failed")
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        story["failed"] = request.node.name


def checks(rig):
    """Ask the doctor inside; return its exit status and each check's verdict."""
    done = rig.run(f"{DOCTOR} --json")
    data = json.loads(done.stdout)
    assert data["ok"] == (done.status == 0), done.output
    return done.status, {check["name"]: check for check in data["checks"]}


def devices(rig, *ids):
    """Return what `gpu list` says of the devices of these IDs, by address."""
    words = " ".join(f"--device {device}" for device in ids)
    found = json.loads(rig.check(f"deepops-virtual gpu list {words} --json"))
    return {item["bdf"]: item for item in found if item["id"] in ids}


def settings(rig):
    """Return name, mode, owner and digest of every file that a preparation may touch."""
    return rig.check(
        f"find {SETTINGS} -type f -printf '%p %m %u:%g ' -exec sh -c 'sha256sum <$1' - {{}} \\; "
        "2>/dev/null | sort"
    )


# -- as it was found ------------------------------------------------------------------------


def test_a_host_whose_iommu_is_off_is_not_ready(rig):
    status, found = checks(rig)
    assert status == 1
    assert found["iommu-table"]["status"] == "ok"
    for name in ("iommu-groups", "kernel-command-line", "boot-loader"):
        assert found[name]["status"] == "fail", found[name]
        assert found[name]["fix"], found[name]


def test_without_an_iommu_no_device_can_be_had(rig):
    found = devices(rig, NIC_ID, DISK_ID)
    assert len(found) == NICS + DISKS
    assert {item["assignable"] for item in found.values()} == {False}
    assert all("IOMMU group" in item["reason"] for item in found.values())


def test_what_the_host_itself_needs_is_not_given_away(rig):
    before = settings(rig)
    for device, reason in ((WAY_OUT_ID, "default route"), (ROOT_DISK_ID, "root disk")):
        done = rig.run(f"deepops-virtual gpu prepare --device {device} --apply")
        assert done.status == 2, done.output
        assert reason in done.output
    assert settings(rig) == before


# -- prepared -------------------------------------------------------------------------------


def test_a_preparation_is_shown_before_it_is_made(rig, story):
    story["files"], story["drivers"] = settings(rig), drivers(rig)
    done = rig.run(PREPARE)
    assert done.status == 0, done.output
    assert re.search(r"^-GRUB_CMDLINE_LINUX_DEFAULT=.*intel_iommu=off", done.stdout, re.MULTILINE)
    assert re.search(r"^\+GRUB_CMDLINE_LINUX_DEFAULT=.*intel_iommu=on", done.stdout, re.MULTILINE)
    assert f"+options vfio-pci ids={NIC_ID},{DISK_ID}" in done.stdout
    assert settings(rig) == story["files"]


def test_a_preparation_is_made_once(rig):
    done = rig.run(f"{PREPARE} --apply")
    assert done.status == 0, done.output
    assert "A reboot is due" in done.stdout
    after = settings(rig)
    again = rig.run(f"{PREPARE} --apply")
    assert again.status == 0, again.output
    assert "already prepared" in again.stdout
    assert settings(rig) == after


def test_after_a_reboot_vfio_has_the_devices_from_the_start(rig):
    rig.reboot()
    assert "intel_iommu=on" in rig.check("cat /proc/cmdline")
    found = devices(rig, NIC_ID, DISK_ID)
    assert [item["driver"] for item in found.values()] == ["vfio-pci"] * (NICS + DISKS)
    log = rig.check("dmesg")
    for device in (NIC_ID, DISK_ID):
        assert f"vfio_pci: add [{device}[" in log
    # No other driver has had them before, not even for a moment.
    assert "e1000e 0000:" not in log
    assert "nvme nvme" not in log


def test_the_host_is_ready(rig):
    status, found = checks(rig)
    bad = {name: check for name, check in found.items() if check["status"] == "fail"}
    assert (status, bad) == (0, {})
    for name in ("iommu-groups", "interrupt-remapping", "vfio-ids", "driver-in-use", "gpus"):
        assert found[name]["status"] == "ok", found[name]


def test_whole_groups_or_nothing(rig):
    found = devices(rig, *SHARED_IDS[:1], WAY_OUT_ID, ROOT_DISK_ID)
    for item in found.values():
        assert not item["assignable"], item
    shared = next(item for item in found.values() if item["id"] == SHARED_IDS[0])
    assert SHARED_IDS[1] in shared["reason"]
    own = devices(rig, NIC_ID, DISK_ID)
    assert all(item["assignable"] for item in own.values()), own
    assert len({item["iommu_group"] for item in own.values()}) == NICS + DISKS


# -- leased ---------------------------------------------------------------------------------


def test_two_processes_never_hold_one_device(rig):
    first = rig.start_in_background(f"{HOLD_COMMAND} first 2x{NIC_ID}")
    second = rig.start_in_background(f"{HOLD_COMMAND} second 2x{NIC_ID}")
    try:
        said = [process.stdout.readline().split(maxsplit=1) for process in (first, second)]
        assert sorted(words[0] for words in said) == ["got", "refused"], said
        got = next(words[1].split() for words in said if words[0] == "got")
        refusal = next(words[1] for words in said if words[0] == "refused")
        winner = "first" if said[0][0] == "got" else "second"
        assert f"cluster '{winner}'" in refusal
        held = {bdf for bdf, item in devices(rig, NIC_ID).items() if item["lease"]}
        assert held == set(got)
    finally:
        for process in (first, second):
            process.stdin.close()
            process.wait(timeout=60)
    assert not any(item["lease"] for item in devices(rig, NIC_ID).values())


# -- handed through -------------------------------------------------------------------------


def test_a_guest_gets_a_device_and_sees_it(rig, story):
    done = rig.run(UP, seconds=2000)
    assert done.status == 0, done.output
    held = {bdf: item for bdf, item in devices(rig, NIC_ID).items() if item["lease"]}
    assert [item["lease"]["instance"] for item in held.values()] == ["rehearsal"]
    story["handed"] = next(iter(held))
    listed = rig.check(f"deepops-virtual ssh rehearsal virtual-gpu01 '{LIST}'")
    assert listed.count(f"PCI_ID={NIC_ID.upper()}") == 1, listed
    status = json.loads(rig.check("deepops-virtual status --json"))
    given = status["instances"][0]["nodes"]["virtual-gpu01"]["devices"]
    assert len(given) == 1
    assert story["handed"] in given[0]


def test_no_other_cluster_gets_what_a_guest_has(rig):
    done = rig.run(f"{HOLD_COMMAND} other {NICS}x{NIC_ID}")
    assert done.stdout.startswith("refused"), done.output
    assert "cluster 'rehearsal'" in done.stdout


def test_destroying_the_cluster_gives_the_device_back(rig, story):
    done = rig.run("deepops-virtual destroy rehearsal")
    assert done.status == 0, done.output
    item = devices(rig, NIC_ID)[story["handed"]]
    assert (item["driver"], item["lease"], item["assignable"]) == ("vfio-pci", None, True)
    assert rig.check("virsh -c qemu:///system list --all --name") == ""


# -- put back -------------------------------------------------------------------------------


def test_undo_restores_every_byte(rig, story):
    done = rig.run("deepops-virtual gpu prepare --undo")
    assert done.status == 0, done.output
    assert settings(rig) == story["files"]
    grub = rig.check(
        "grep -c intel_iommu=off /boot/grub/grub.cfg; ! grep intel_iommu=on /boot/grub/grub.cfg"
    )
    assert int(grub) > 0


def test_after_a_reboot_all_is_as_it_was_found(rig, story):
    rig.reboot()
    assert drivers(rig) == story["drivers"]
    status, found = checks(rig)
    assert status == 1
    assert found["iommu-groups"]["status"] == "fail"


def drivers(rig):
    """Return the driver of every device on the bus."""
    return rig.check("cd /sys/bus/pci/devices; for d in *; do echo $d $(readlink $d/driver); done")
