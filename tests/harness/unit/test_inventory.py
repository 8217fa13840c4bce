"""Hosts of an inventory: what is said where Ansible cannot read it."""

import pytest

from deepops_fixtures.cluster.providers import inventory
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal


@pytest.fixture
def listing(tmp_path, monkeypatch):
    """Return a function that puts a program in the place of ansible-inventory."""

    def put(text: str) -> None:
        (tmp_path / "ansible-inventory").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "ansible-inventory").chmod(0o755)
        monkeypatch.setattr(inventory, "_PROGRAM", tmp_path / "ansible-inventory")

    return put


def refused(tmp_path) -> UsageProblem:
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    provider = inventory.InventoryProvider(hosts, Journal(tmp_path / "e"), tmp_path)
    with pytest.raises(UsageProblem) as told:
        provider.nodes()
    return told.value


def test_what_ansible_says_need_be_no_text(tmp_path, listing):
    listing(r"printf '\377 is no host' >&2; exit 1")
    told = refused(tmp_path)
    assert "is not an inventory that Ansible can read" in told.message
    assert "is no host" in told.detail
