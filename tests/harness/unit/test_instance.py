"""Names, subnets and capacity: chosen free, or refused before anything is created."""

import ipaddress
import os
from contextlib import contextmanager

import psutil
import pytest

from deepops_fixtures.cluster import capacity, hypervisor, instance, topology
from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal

GIB = 1024**3


class Named:
    """A libvirt object of which only the name matters here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


@pytest.fixture
def host(monkeypatch):
    """A host with nothing on it; tests put things there."""

    class Host:
        domains: list[str] = []  # noqa: RUF012
        subnets: list[str] = []  # noqa: RUF012

        def listAllDomains(self):  # noqa: N802
            return [Named(name) for name in self.domains]

        def listAllNetworks(self):  # noqa: N802
            return []

    host = Host()

    @contextmanager
    def connect():
        yield host

    monkeypatch.setattr(hypervisor, "connect", connect)
    monkeypatch.setattr(
        hypervisor, "subnets_in_use", lambda: [ipaddress.IPv4Network(s) for s in host.subnets]
    )
    monkeypatch.setattr(hypervisor, "pool_space", lambda: (None, 100 * GIB))
    return host


@pytest.fixture
def book(tmp_path):
    return LedgerBook(tmp_path)


def test_two_instances_get_two_names_and_two_subnets(host, book, ledger):
    spec = topology.load("tiny")
    first = instance.choose_name(spec, "", book)
    book.write(ledger(first, subnets=list(instance.choose_subnets(spec, book))))
    assert instance.choose_name(spec, "", book) != first
    taken = {ipaddress.IPv4Network(subnet) for subnet in book.get(first).subnets}
    assert not taken & {ipaddress.IPv4Network(s) for s in instance.choose_subnets(spec, book)}


def test_a_subnet_that_a_route_of_the_host_covers_is_passed_over(host, book):
    host.subnets = ["10.86.0.0/22", "10.87.1.0/24"]
    own, management = instance.choose_subnets(topology.load("tiny"), book)
    assert (own, management) == ("10.86.4.0/24", "10.87.2.0/24")


def test_a_full_address_space_is_refused(host, book):
    host.subnets = ["10.86.0.0/16"]
    with pytest.raises(UsageProblem, match=r"Every /24 of 10\.86\.0\.0/16 is in use"):
        instance.choose_subnets(topology.load("tiny"), book)


def test_a_fixed_subnet_in_use_is_refused(host, book):
    host.subnets = ["192.168.0.0/16"]
    spec = topology.load("tiny").model_copy(update={"subnet": "192.168.7.0/24"})
    with pytest.raises(UsageProblem, match=r"192\.168\.7\.0/24 of cluster 'tiny' is in use"):
        instance.choose_subnets(spec, book)


def test_a_name_taken_is_refused(host, book, ledger):
    book.write(ledger("mine"))
    with pytest.raises(UsageProblem, match="named 'mine' exists already") as caught:
        instance.choose_name(topology.load("tiny"), "mine", book)
    assert "deepops-virtual destroy mine" in caught.value.hint


def test_a_foreign_domain_of_the_name_is_refused_and_left_alone(host, book):
    host.domains = ["deepops-mine_virtual-login"]
    with pytest.raises(UsageProblem, match="which no ledger of ours names"):
        instance.choose_name(topology.load("tiny"), "mine", book)


def test_too_little_memory_is_refused_with_both_numbers(host, book, monkeypatch):
    class Memory:
        available = GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    lack = capacity.shortage(topology.load("tiny"), "tcg", book)
    assert lack and "needs 1.4 GiB of memory; 1.0 GiB are available" in lack.message


def test_too_little_disk_is_refused_with_both_numbers(host, book, monkeypatch):
    monkeypatch.setattr(hypervisor, "pool_space", lambda: (None, 3 * GIB))
    lack = capacity.shortage(topology.load("tiny"), "tcg", book)
    assert lack and "may grow to 8.0 GiB on disk; 3.0 GiB are free" in lack.message


class Crowd:
    """Memory for one more 'tiny' only once the others have gone."""

    available = 2 * GIB


def test_memory_promised_to_a_cluster_that_has_not_touched_it_yet_is_taken(
    host, book, ledger, monkeypatch
):
    monkeypatch.setattr(psutil, "virtual_memory", Crowd)
    assert capacity.shortage(topology.load("tiny"), "tcg", book) is None
    book.write(ledger("starting"))
    lack = capacity.shortage(topology.load("tiny"), "tcg", book)
    assert lack and "564.0 MiB are available" in lack.message


def test_a_cluster_waits_for_a_run_that_will_make_room_and_says_for_whom(
    host, book, ledger, monkeypatch, tmp_path
):
    monkeypatch.setattr(psutil, "virtual_memory", Crowd)
    book.write(ledger("before"))
    journal = Journal(tmp_path / "events.jsonl")
    monkeypatch.setattr(capacity.time, "sleep", lambda _seconds: book.forget("before"))
    spec = topology.load("tiny")
    done = capacity.reserve(spec, "tcg", book, journal, 60, lambda: ledger("after"))
    assert done.name == "after"
    told = [event.what for event in journal.events()]
    assert len(told) == 1
    assert f"They are held by 'before' (process {os.getpid()})" in told[0]


def test_waiting_for_room_ends_at_its_deadline_with_the_reason(
    host, book, ledger, monkeypatch, tmp_path
):
    monkeypatch.setattr(psutil, "virtual_memory", Crowd)
    book.write(ledger("before"))
    journal = Journal(tmp_path / "events.jsonl")
    with pytest.raises(UsageProblem, match=r"are available\. Waited 0 s for 'before'"):
        capacity.reserve(topology.load("tiny"), "tcg", book, journal, 0, lambda: ledger("after"))


def test_nobody_waits_for_a_cluster_that_is_kept(host, book, ledger, monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", Crowd)
    book.write(ledger("kept", kept=True))
    assert capacity.blockers(book) == []
    journal = Journal(tmp_path / "events.jsonl")
    with pytest.raises(UsageProblem, match=r"needs 1\.4 GiB of memory"):
        capacity.reserve(topology.load("tiny"), "tcg", book, journal, 60, lambda: ledger("after"))
