"""Hosts of an inventory: what is said where Ansible cannot read it."""

import sys

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
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    return put


def refused(tmp_path) -> UsageProblem:
    provider = inventory.InventoryProvider(tmp_path, Journal(tmp_path / "e"), tmp_path)
    with pytest.raises(UsageProblem) as told:
        provider.nodes()
    return told.value


def test_one_that_takes_ansible_too_long_is_refused(tmp_path, listing, monkeypatch):
    monkeypatch.setattr(inventory, "_LISTING", 0.2)
    listing("exec sleep 5")
    told = refused(tmp_path)
    assert told.message == (
        f"Ansible has not read inventory '{tmp_path}' (a folder, of which every file is one) "
        "in 0 s."
    )
    assert told.hint == f"ansible-inventory -i {tmp_path} --list"


def test_what_ansible_says_need_be_no_text(tmp_path, listing):
    listing(r"printf '\377 is no host' >&2; exit 1")
    told = refused(tmp_path)
    assert "is not an inventory that Ansible can read" in told.message
    assert "is no host" in told.detail
