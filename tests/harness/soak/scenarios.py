"""What a round of the soak does, chosen from its seed, and the small project that it is tried on.

A round starts a run of one kind, kills one process at one moment of it, and recovers in one of two
ways. Not for doing any of that: see ``rounds``.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

Kind = Literal["cold", "take", "deploy", "warm"]
Victim = Literal["controller", "worker", "vagrant", "qemu", "ansible", "libvirtd"]
Phase = Literal["up", "deploy", "checkpoint", "checks", "revert", "down"]
Way = Literal["clean", "next"]
_T = TypeVar("_T")

#: What each kind of run goes through, with the seconds that each phase takes on an emulated guest:
#: the span in which the kill falls. 'cold' neither uses nor keeps checkpoints, 'take' makes all of
#: them, 'deploy' starts from the machines alone, 'warm' from the deployed ones.
PHASES: dict[Kind, dict[Phase, float]] = {
    "cold": {"up": 36, "deploy": 8, "checkpoint": 2.5, "checks": 8, "revert": 2.5, "down": 3},
    "take": {"up": 36, "checkpoint": 2.5, "deploy": 8, "checks": 8, "revert": 2.5, "down": 3},
    "deploy": {"up": 3, "deploy": 8, "checkpoint": 2.5, "checks": 8, "revert": 2.5, "down": 1},
    "warm": {"up": 3, "checks": 8, "revert": 2.5, "down": 1},
}
_KINDS: dict[Kind, float] = {"warm": 62, "deploy": 24, "take": 5, "cold": 4}
_VICTIMS: dict[Victim, float] = {
    "controller": 3,
    "worker": 2,
    "libvirtd": 2,
    "qemu": 1.3,
    "ansible": 1.3,
    "vagrant": 0.8,
}
#: Where a victim that does not live all along can be met.
_KINDS_OF: dict[Victim, tuple[Kind, ...]] = {
    "vagrant": ("take", "cold"),
    "ansible": ("deploy", "take", "cold"),
}
_PHASES_OF: dict[Victim, tuple[Phase, ...]] = {
    "worker": ("up", "deploy", "checkpoint", "checks", "revert"),
    "vagrant": ("up",),
    "ansible": ("deploy",),
}


@dataclass(frozen=True)
class Scenario:
    """One round: what is run, what is killed when, and what mends it."""

    number: int
    kind: Kind
    workers: int
    victim: Victim
    #: The phase after whose begin the kill falls; None for any time of the run.
    phase: Phase | None
    #: Seconds after the phase has begun (or after the start of the run).
    delay: float
    way: Way
    #: Whether libvirtd comes back while the run still goes on, as under systemd.
    at_once: bool

    def __str__(self) -> str:
        workers = f" -n {self.workers}" if self.workers else ""
        return f"{self.kind}{workers}"

    @property
    def moment(self) -> str:
        """The moment that was aimed at."""
        return f"{self.phase or 'start'} +{self.delay:.1f} s"


def libvirtd_is_ours() -> bool:
    """Whether libvirtd may be killed and started again here: by root, where ``setup.sh`` started
    it and not systemd."""
    return os.getuid() == 0 and not Path("/run/systemd/system").exists()


def choose(seed: int, number: int, *, libvirtd: bool) -> Scenario:
    """Return the scenario of a round; the same for the same seed on hosts of one sort."""
    rng = random.Random(f"{seed}/{number}")
    victims = {name: weight for name, weight in _VICTIMS.items() if libvirtd or name != "libvirtd"}
    victim = _weighted(rng, victims)
    kinds = _KINDS_OF.get(victim, tuple(_KINDS))
    kind = _weighted(rng, {name: _KINDS[name] for name in kinds})
    spans = PHASES[kind]
    phases = [name for name in _PHASES_OF.get(victim, tuple(spans)) if name in spans]
    phase = rng.choice(phases if victim in _PHASES_OF else [*phases, None])
    span = spans[phase] if phase else sum(spans.values())
    return Scenario(
        number=number,
        kind=kind,
        workers=2 if victim == "worker" else rng.choice((0, 2)),
        victim=victim,
        phase=phase,
        delay=round(rng.uniform(0, span), 2),
        way=_weighted(rng, {"clean": 3, "next": 2}),
        at_once=rng.random() < 0.5,
    )


def _weighted(rng: random.Random, weights: dict[_T, float]) -> _T:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


# -- the project --------------------------------------------------------------------------

_CLUSTER = """\
description: The one small guest of the soak
box: debian12
deployment: none
subnet: auto
nodes:
  virtual-login:
    groups: [slurm-master]
    cpus: 1
    memory: 384
    disk: 8
    address: 11
"""
#: A playbook of the soak's own in place of the project's: it deploys next to nothing.
_CONFTEST = '''\
"""Deploys the playbook that SOAK_PLAYBOOK names."""

import os
from pathlib import Path

from deepops_fixtures.deploy import sources


def find(name, parts, there, variables=None):
    return (sources.PlaybookSource(name="distro", playbook=Path(os.environ["SOAK_PLAYBOOK"])),)


sources.find = find
'''
_PLAYBOOK = """\
- name: Soak
  hosts: all
  gather_facts: false
  become: true
  tasks:
    - name: Begin
      ansible.builtin.command: sleep 1
      changed_when: false
    - name: Leave a file
      ansible.builtin.copy:
        content: "{label}"
        dest: /etc/soak
        mode: "0644"
    - name: Go on
      ansible.builtin.command: sleep 1
      changed_when: false
    - name: End
      ansible.builtin.command: sleep 1
      changed_when: false
"""
_TESTS = '''\
"""Short commands on the node, and two tests of which neither may see what the other did."""

import pytest

DAMAGE = "/root/damage"


def test_it_answers(deepops):
    assert deepops.login.host.check_output("hostname") == "virtual-login"


def test_it_is_deployed(deepops):
    assert deepops.login.host.file("/etc/soak").exists


@pytest.mark.parametrize("turn", range(4))
def test_it_works(deepops, turn):
    deepops.login.host.check_output("sleep 1; uname -r")


def test_it_is_untouched(pristine_cluster):
    assert not pristine_cluster.login.host.file(DAMAGE).exists, "DAMAGE SEEN"


@pytest.mark.destructive
@pytest.mark.parametrize("turn", range(2))
def test_it_breaks(deepops, turn):
    assert not deepops.login.host.file(DAMAGE).exists, "DAMAGE SEEN"
    deepops.login.host.check_output(f"touch {DAMAGE}; sleep 1")
'''


def write_project(folder: Path, cluster: str) -> None:
    """Write the project that every round runs: cluster file, tests, playbook."""
    folder.mkdir(parents=True)
    (folder / f"{cluster}.yml").write_text(_CLUSTER)
    (folder / "conftest.py").write_text(_CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -ra\n")
    (folder / "test_soak.py").write_text(_TESTS)
    write_playbook(folder / "playbook", "soak")


def write_playbook(folder: Path, label: str) -> Path:
    """Write the playbook; another label makes it another one, to which no checkpoint fits."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "site.yml"
    path.write_text(_PLAYBOOK.format(label=label))
    return path
