"""KVM only when a guest really starts under it. The device and QEMU are injected."""

from pathlib import Path

import pytest

from deepops_fixtures.cluster.accelerator import Probe
from deepops_fixtures.errors import UsageProblem

SERIAL = 'for word in "$@"; do case "$word" in file:*) log=${word#file:};; esac; done\n'


@pytest.fixture
def host(tmp_path):
    """Return a function that makes a probe of a host with such a QEMU."""

    def make(script: str, device: bool = True) -> Probe:
        qemu = tmp_path / "qemu"
        qemu.write_text("#!/bin/sh\n" + script)
        qemu.chmod(0o755)
        (tmp_path / "vmlinuz").touch()
        if device:
            (tmp_path / "kvm").touch()
        return Probe(
            tmp_path / "cache", device=tmp_path / "kvm", qemu=str(qemu),
            kernels=(tmp_path / "none", tmp_path / "vmlinuz"), patience=2,
        )  # fmt: skip

    return make


def test_a_guest_that_reaches_its_panic_proves_kvm(host):
    verdict = host(SERIAL + "echo 'Kernel panic - not syncing' > $log; sleep 1").choose()
    assert verdict.kind == "kvm"
    assert "kernel vmlinuz started" in verdict.reason


def test_a_guest_that_dies_disproves_it(host):
    verdict = host("echo 'qemu-system-x86_64: KVM internal error' >&2; exit 1").choose()
    assert str(verdict).startswith("tcg (")
    assert "a guest dies under it: KVM internal error" in verdict.reason


def test_a_guest_that_hangs_disproves_it(host):
    verdict = host("exec sleep 30").choose()
    assert verdict.kind == "tcg"
    assert "did not start under it within 2 s" in verdict.reason


def test_without_the_device_nothing_is_tried(host):
    verdict = host("exit 1", device=False).choose()
    assert (verdict.kind, "does not exist" in verdict.reason) == ("tcg", True)


def test_the_verdict_is_remembered_until_something_changes(host, tmp_path):
    probe = host(f"echo tried >> {tmp_path}/tries; exit 1")
    probe.choose()
    probe.choose()
    assert (tmp_path / "tries").read_text().count("tried") == 1
    Path(probe.device).chmod(0o600)
    probe.choose()
    assert (tmp_path / "tries").read_text().count("tried") == 2


def test_kvm_asked_for_and_not_to_be_had_is_refused_with_the_reason(host):
    with pytest.raises(UsageProblem, match="a guest dies under it"):
        host("exit 1").choose("kvm")


def test_tcg_asked_for_is_tcg(host):
    assert host(SERIAL + "echo 'Kernel panic' > $log").choose("tcg").kind == "tcg"
