"""Whether a run's new machines will have GPUs to check."""

import pytest

from deepops_fixtures.passthrough import pci
from deepops_fixtures.session import Session
from deepops_fixtures.settings import Settings
from tests.harness.unit.pci_trees import HostTree, nvidia_bound, server


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Return a function that makes the session of a run on a host with or without GPUs."""

    def make(host, **options):
        host(HostTree(tmp_path / "host"))
        found = pci.Host(tmp_path / "host")
        monkeypatch.setattr(pci, "Host", lambda: found)
        return Session(Settings.load({"reports": tmp_path / "reports", **options}), tmp_path)

    return make


def test_checks_of_gpus_by_name_ask_for_one_for_each_node(session):
    run = session(nvidia_bound)
    planned = run.rehearsal
    assert run.why_no_gpus("gpu and not slow") == ""
    assert run.settings.gpu == "auto"
    assert run.rehearsal is not planned
    assert run.rehearsal.provider.lending.request.kind == "auto"


def test_a_run_of_everything_takes_no_gpu_by_itself(session):
    run = session(nvidia_bound)
    assert run.why_no_gpus("") == "no GPU was asked for: --deepops-gpu auto, or -m gpu"
    assert run.settings.gpu == ""


def test_none_means_none(session):
    run = session(nvidia_bound, gpu="none")
    assert run.why_no_gpus("gpu") == "no GPU is handed through: --deepops-gpu none"


def test_what_is_asked_for_stays(session):
    run = session(nvidia_bound, gpu="2")
    assert run.why_no_gpus("gpu") == ""
    assert run.settings.gpu == "2"


def test_a_host_without_gpus_has_none_to_hand_through(session):
    assert session(server).why_no_gpus("gpu").startswith("this host has no NVIDIA GPU")


def test_existing_hosts_are_looked_at_and_not_this_one(session, tmp_path):
    assert session(server, inventory=tmp_path / "hosts.ini").why_no_gpus("gpu") == ""
