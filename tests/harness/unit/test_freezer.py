"""What libvirt is told when guests are frozen and thawed; they run on whatever happens."""

import threading
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from deepops_fixtures.cluster import freezer
from deepops_fixtures.cluster.freezer import Frozen
from deepops_fixtures.errors import ProvisionError, StepTimeout
from deepops_fixtures.proc import Deadline

DOMAIN = """\
<domain type='qemu'>
  <name>deepops-one_virtual-login</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/pool/one.img'/>
      <backingStore type='file'><source file='/pool/box.img'/><backingStore/></backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='/pool/seed.iso'/>
      <target dev='sda' bus='sata'/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/><source network='deepops-one'/>
    </interface>
    <serial type='file'><source path='/runs/1/virtual-login.log'/><target port='0'/></serial>
    <console type='file'><source path='/runs/1/virtual-login.log'/><target port='0'/></console>
    <channel type='unix'><source mode='bind' path='/run/agent'/></channel>
{more}
  </devices>
</domain>
"""
HANDED_THROUGH = """\
<hostdev mode='subsystem' type='pci' managed='yes'>
  <source><address domain='0x0000' bus='0x65' slot='0x00' function='0x0'/></source>
</hostdev>
"""
NAMES = ("virtual-login", "virtual-mgmt", "virtual-gpu01")


@pytest.fixture
def guests(connection):
    """Three running guests."""
    return [connection.add_domain(f"deepops-one_{name}") for name in NAMES]


def items(ram=True):
    return [
        Frozen(name, f"deepops-one_{name}", f"{name}.2.img", f"{name}.ram" if ram else "")
        for name in NAMES
    ]


def test_a_device_of_the_host_is_seen():
    assert freezer.holds_device(DOMAIN.format(more=HANDED_THROUGH))
    assert not freezer.holds_device(DOMAIN.format(more=""))


def test_one_guest_with_a_device_keeps_the_memory_of_all_from_being_kept(
    connection, guests, monkeypatch
):
    names = [guest.name() for guest in guests]
    assert not freezer.disk_only(names)
    monkeypatch.setattr(guests[2], "XMLDesc", lambda _flags: DOMAIN.format(more=HANDED_THROUGH))
    assert freezer.disk_only(names)


def test_the_disk_that_a_guest_writes_to_is_read(connection, guests, monkeypatch):
    monkeypatch.setattr(guests[0], "XMLDesc", lambda _flags: DOMAIN.format(more=""))
    assert freezer.active_disks([guests[0].name()]) == ["one.img"]


def test_a_thawed_guest_gets_this_runs_disk_and_console_and_nothing_else_changes():
    placed = freezer._placed(DOMAIN.format(more=""), "/pool/new.img", Path("/runs/2/login.log"))
    before, after = ElementTree.fromstring(DOMAIN.format(more="")), ElementTree.fromstring(placed)
    disk = after.find("devices/disk[@device='disk']")
    assert disk.find("source").get("file") == "/pool/new.img"
    assert disk.find("backingStore") is None
    assert [
        element.get("path")
        for kind in ("serial", "console")
        for element in after.iterfind(f"devices/{kind}/source")
    ] == ["/runs/2/login.log"] * 2
    for kind in ("disk[@device='cdrom']", "interface", "channel"):
        one, other = before.find(f"devices/{kind}"), after.find(f"devices/{kind}")
        assert ElementTree.tostring(one) == ElementTree.tostring(other)


def test_memory_and_disk_are_asked_for_in_the_pool_s_folder():
    root = ElementTree.fromstring(freezer._snapshot_xml(items()[0], "/pool"))
    assert root.find("memory").attrib == {
        "snapshot": "external",
        "file": "/pool/virtual-login.ram",
    }
    disk = root.find("disks/disk")
    assert (disk.get("name"), disk.get("snapshot")) == ("vda", "external")
    assert disk.find("source").get("file") == "/pool/virtual-login.2.img"


def test_without_memory_none_is_asked_for(connection, guests):
    freezer.freeze("default", items(ram=False), Deadline.after(5))
    for guest in guests:
        assert guest.done == ["suspend", "snapshot of disk", "resume"]
        assert guest.snapshots[0].find("memory") is None


def test_no_guest_is_frozen_before_all_are_stopped_and_all_go_on(connection, guests, monkeypatch):
    order, lock = [], threading.Lock()
    for guest in guests:
        do = guest._do

        def noted(what, do=do):
            with lock:
                order.append(what)
            do(what)

        monkeypatch.setattr(guest, "_do", noted)
    xml = freezer.freeze("default", items(), Deadline.after(5))
    assert order == ["suspend"] * 3 + ["snapshot of memory"] * 3 + ["resume"] * 3
    assert sorted(xml) == sorted(NAMES)
    assert "<name>deepops-one_virtual-mgmt</name>" in xml["virtual-mgmt"]


@pytest.mark.parametrize("step", ["suspend", "snapshot of memory"])
def test_when_one_guest_cannot_be_frozen_all_go_on_and_the_reason_is_told(
    connection, guests, step
):
    guests[1].refuses[step] = "internal error: no space left on device"
    with pytest.raises(ProvisionError, match="no space left on device"):
        freezer.freeze("default", items(), Deadline.after(5))
    assert [guest.done[-1] for guest in guests] == ["resume"] * 3


def test_a_guest_that_cannot_go_on_keeps_none_of_the_others_from_it(connection, guests):
    guests[0].refuses["resume"] = "Requested operation is not valid"
    freezer.freeze("default", items(), Deadline.after(5))
    assert [guest.done[-1] for guest in guests] == ["resume"] * 3


def test_a_freeze_that_hangs_is_given_up_aborted_and_all_go_on(connection, guests, monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(guests[1], "snapshotCreateXML", lambda _text, _flags: hang.wait(20))
    try:
        with pytest.raises(StepTimeout, match=r"1 of 3 guests could not be frozen within 0 s"):
            freezer.freeze("default", items(), Deadline.after(0.3))
    finally:
        hang.set()
    assert [guest.done[-2:] for guest in guests] == [["abortJob", "resume"]] * 3


def test_thawed_guests_start_paused_from_their_memory_and_then_go_on(
    connection, guests, monkeypatch
):
    started = []

    def restore(path, text, flags):
        assert flags & libvirt.VIR_DOMAIN_SAVE_PAUSED
        started.append((path, ElementTree.fromstring(text).findtext("name")))

    monkeypatch.setattr(connection, "restoreFlags", restore, raising=False)
    monkeypatch.setattr(
        connection,
        "defineXML",
        lambda text: connection.lookupByName(ElementTree.fromstring(text).findtext("name")),
        raising=False,
    )
    xml = {name: f"<domain><name>deepops-one_{name}</name></domain>" for name in NAMES}
    consoles = {name: Path(f"/runs/2/{name}.log") for name in NAMES}
    freezer.thaw("default", items(), xml, consoles, Deadline.after(5))
    assert sorted(started) == sorted(
        (f"/pool/{name}.ram", f"deepops-one_{name}") for name in NAMES
    )
    assert [guest.done for guest in guests] == [["resume"]] * 3
