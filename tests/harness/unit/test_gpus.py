"""The devices of a cluster's guests: leased, written down, looked for, given back."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import libvirt
import pytest

from deepops_fixtures.cluster import gpus, instance, ssh, topology
from deepops_fixtures.cluster.gpus import Lending
from deepops_fixtures.errors import LeakError, ProvisionError, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.passthrough.leases import Leases
from deepops_fixtures.passthrough.selection import Request
from deepops_fixtures.proc import Deadline
from deepops_fixtures.settings import Settings
from tests.harness.unit.fakes import refusal
from tests.harness.unit.pci_trees import HostTree, dgx1v, workstation

DOMAINS = [f"deepops-one_virtual-{name}" for name in ("login", "mgmt", "gpu01")]


@pytest.fixture
def spec():
    return topology.load("debian")


@pytest.fixture
def tree(tmp_path, monkeypatch, connection):
    monkeypatch.setattr(gpus, "ROOT", tmp_path / "host")
    monkeypatch.setattr(gpus, "_BACK", 0.0)
    made = HostTree(tmp_path / "host")
    # This process holds the leases, so it runs on that host too.
    stat = (tmp_path / "host" / "proc" / str(os.getpid())).joinpath("stat")
    stat.parent.mkdir(parents=True, exist_ok=True)
    stat.write_text(Path("/proc/self/stat").read_text())
    return made


@pytest.fixture
def one(book, ledger, spec):
    """The ledger of an instance that has nothing yet."""
    made = ledger("one", spec=spec, domains=DOMAINS)
    book.write(made)
    return made


@pytest.fixture
def lending(book, spec, tmp_path):
    """Return a function that makes the lending of a run that asks for these devices."""
    made = []

    def make(text):
        journal = Journal(tmp_path / "events.jsonl")
        made.append(Lending(Request.parse(text), spec, book, journal, 0))
        return made[-1]

    yield make
    for item in made:
        item.close()


def told(tmp_path):
    path = tmp_path / "events.jsonl"
    return [json.loads(line)["what"] for line in path.read_text().splitlines()]


def test_a_run_that_asks_for_none_has_none(tree, one, lending):
    dgx1v(tree)
    assert lending("").lend(one) == one
    assert Leases(gpus.ROOT).holders() == {}


def test_what_a_node_gets_is_leased_and_in_the_ledger(tree, one, lending, book, tmp_path):
    dgx1v(tree)
    lending("2").lend(one)
    items = book.get("one").gpus["virtual-gpu01"]
    assert [(item.bdf, item.id, item.driver) for item in items] == [
        ("0000:08:00.0", "10de:1db1", "vfio-pci"),
        ("0000:0a:00.0", "10de:1db1", "vfio-pci"),
    ]
    holders = Leases(gpus.ROOT).holders()
    assert {item.iommu_group for item in items} == set(holders)
    assert {(who.instance, who.domains) for who in holders.values()} == {("one", (DOMAINS[2],))}
    assert any("at 0000:08:00.0" in text for text in told(tmp_path))


def test_a_card_brings_its_other_functions_along(tree, one, lending):
    workstation(tree)
    given = lending("auto").lend(one).gpus["virtual-gpu01"]
    assert {item.bdf[-1] for item in given} == {"0", "1"}


def test_what_another_cluster_holds_is_not_given_twice(tree, one, lending, ledger, spec, book):
    dgx1v(tree)
    lending("8").lend(one)
    two = ledger("two", spec=spec, domains=[name.replace("one", "two") for name in DOMAINS])
    book.write(two)
    with pytest.raises(UsageProblem, match=r"still leased, to cluster 'one' of user"):
        lending("1").lend(two)
    assert book.get("two").gpus == {}


def test_a_checkpoint_comes_back_with_the_devices_its_guests_know(tree, one, lending):
    workstation(tree)
    first = lending("auto")
    known = first.lend(one).gpus
    first.close()
    (gpus.ROOT / "run/lock/deepops-fixtures/choice.lock").unlink()
    for path in (gpus.ROOT / "run/lock/deepops-fixtures").glob("iommu*"):
        path.unlink()
    assert lending("auto").lend_again(one, known).gpus == known


def test_a_checkpoint_does_not_come_back_while_another_has_its_devices(
    tree, one, lending, ledger, spec, book
):
    dgx1v(tree)
    known = lending("1").lend(one).gpus
    two = ledger("two", spec=spec, domains=DOMAINS)
    book.write(two)
    with pytest.raises(UsageProblem, match="still leased, to cluster 'one'"):
        lending("1").lend_again(two, known)


def test_upstreams_variable_counts_where_no_option_is_given(monkeypatch):
    monkeypatch.setenv("GPUDATA", "3-0x86,2-0x85")
    assert [str(bdf) for bdf in gpus.requested(Settings.load()).bdfs] == [
        "0000:86:00.0",
        "0000:85:00.0",
    ]
    assert gpus.requested(Settings.load({"gpu": "auto"})).kind == "auto"
    monkeypatch.setenv("GPUDATA", "three")
    with pytest.raises(UsageProblem, match="GPUDATA is 'three'"):
        gpus.requested(Settings.load())


def test_vagrant_is_told_the_whole_address(tree, one, lending, book, tmp_path):
    dgx1v(tree)
    subnets = ["10.86.1.0/24", "10.87.1.0/24"]
    book.update("one", subnets=subnets, networks=["deepops-one", "deepops-one-mgmt"])
    given = lending("1").lend(one)
    path = instance.write_data(
        given, tmp_path, tmp_path / "consoles", box=None, accelerator="kvm", boot_timeout=10
    )
    nodes = {node["name"]: node["pci"] for node in json.loads(path.read_text())["nodes"]}
    assert nodes == {
        "virtual-login": [],
        "virtual-mgmt": [],
        "virtual-gpu01": [{"domain": "0x0000", "bus": "0x08", "slot": "0x00", "function": "0x0"}],
    }


def test_a_guest_that_lacks_a_device_is_named_with_what_it_has(tree, one, lending, monkeypatch):
    dgx1v(tree)
    given = lending("2").lend(one)
    said = {"virtual-gpu01": "8086:29c0\n10de:1db1\n"}
    asked = []

    def on_all(_config, _name, nodes, _command, _deadline):
        asked.append(nodes)
        return said

    monkeypatch.setattr(ssh, "on_all", on_all)
    with pytest.raises(ProvisionError, match="handed 2 of '10de:1db1' and lists 1") as caught:
        gpus.look_for(given, tree.root, Deadline.after(5))
    assert "8086:29c0" in caught.value.detail
    said["virtual-gpu01"] += "10de:1db1\n"
    gpus.look_for(given, tree.root, Deadline.after(5))
    assert asked == [["virtual-gpu01"]] * 2


def test_the_lease_ends_when_the_guest_is_gone_and_the_device_back(
    tree, one, lending, connection, tmp_path
):
    dgx1v(tree, driver="nvidia")
    given = lending("1").lend(one)
    journal = Journal(tmp_path / "events.jsonl")
    connection.add_domain(DOMAINS[2])
    with pytest.raises(LeakError, match=f"the virtual machine '{DOMAINS[2]}' still exists"):
        gpus.give_back(given, journal)
    del connection.domains[DOMAINS[2]]
    tree.bind("0000:08:00.0", "vfio-pci")
    with pytest.raises(LeakError, match=r"'0000:08:00.0' is on driver 'vfio-pci' and not on 'nv"):
        gpus.give_back(given, journal)
    assert Leases(gpus.ROOT).holders()
    tree.bind("0000:08:00.0", "nvidia")
    gpus.give_back(given, journal)
    assert Leases(gpus.ROOT).holders() == {}


def test_libvirt_is_asked_who_has_a_device(tree, connection):
    text = (
        "<domain%s><devices><hostdev mode='subsystem' type='pci' managed='yes'><source>"
        "<address domain='0x0001' bus='0x0a' slot='0x00' function='0x1'/></source></hostdev>"
        "</devices></domain>"
    )
    for name, number in (("running", " id='7'"), ("off", "")):
        connection.domains[name] = SimpleNamespace(
            name=lambda name=name: name, XMLDesc=lambda _flags, number=number: text % number
        )
    gone = refusal("Domain not found", libvirt.VIR_ERR_NO_DOMAIN)
    connection.domains["gone"] = SimpleNamespace(XMLDesc=Mock(side_effect=gone))
    assert {str(bdf): name for bdf, name in gpus.in_guests().items()} == {
        "0001:0a:00.1": "running"
    }
