"""The ledger: what a cluster instance may leave on this host, written down before it is created.

Teardown and ``deepops-virtual clean`` delete what a ledger names and nothing else; a run that was
killed at any moment can be cleaned up after from here. Not for what the cluster is doing: that is
the journal.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, model_validator

from deepops_fixtures.cluster.topology import ClusterSpec, with_parts
from deepops_fixtures.errors import DeepopsError, UsageProblem

#: Environment variable that marks every process the harness starts for an instance (value: its
#: name).
MARK = "DEEPOPS_VIRTUAL_INSTANCE"


#: The ledger and its copy: a file system that lost one may still have the other.
_FILES = ("ledger.json", "ledger-copy.json")


class Owner(BaseModel):
    """The process that made the instance; it owns it until it is gone."""

    model_config = ConfigDict(frozen=True)
    pid: int
    started: float
    user: str

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return a process of this user as an owner; one that is gone owns nothing any more."""
        started = 0.0
        with suppress(psutil.Error):
            started = psutil.Process(pid).create_time()
        return cls(pid=pid, started=started, user=getpass.getuser())

    @classmethod
    def me(cls) -> Owner:
        """Return this process as an owner."""
        return cls.of(os.getpid())

    @property
    def alive(self) -> bool:
        """Whether that very process (not a later one with its number) still runs; one that has
        ended and that its parent forgot does not."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class Snapshot(BaseModel):
    """What is on this host at one moment, by name."""

    model_config = ConfigDict(frozen=True)
    domains: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    #: 'pool/volume'.
    volumes: frozenset[str] = frozenset()
    #: dnsmasq's files, one or more a network.
    leases: frozenset[str] = frozenset()
    #: 'instance: pid command' of processes that belong to an instance.
    processes: frozenset[str] = frozenset()

    def minus(self, earlier: Snapshot) -> list[str]:
        """Return what is here and was not in ``earlier``, each with its kind."""
        return [
            f"{kind.removesuffix('s')} {name}"
            for kind in ("domains", "networks", "volumes", "leases")
            for name in sorted(getattr(self, kind) - getattr(earlier, kind))
        ]


class Lease(BaseModel):
    """A node's place in the management network."""

    model_config = ConfigDict(frozen=True)
    node: str
    mac: str
    address: str


class HandedThrough(BaseModel):
    """A PCI function of this host that a guest has for itself."""

    model_config = ConfigDict(frozen=True)
    #: 'domain:bus:slot.function'.
    bdf: str
    #: 'vendor:device'.
    id: str
    name: str
    iommu_group: int
    #: The driver it had on this host, and has again once the guest is gone ('' for none).
    driver: str

    def __str__(self) -> str:
        return f"{self.name} [{self.id}] at {self.bdf}"


class Ledger(BaseModel):
    """Everything one instance owns on this host."""

    name: str
    owner: Owner
    created: float
    spec: ClusterSpec
    run_dir: Path
    pool: str
    domain_prefix: str
    domains: list[str]
    networks: list[str]
    volumes: list[str]
    subnets: list[str]
    socket_dir: Path
    #: True when the instance is to outlive its maker (made by the command line, or kept after a
    #: run).
    kept: bool = False
    #: Each node's place in the management network, once it is known.
    leases: list[Lease] = []
    #: The parts of DeepOps that are on it, in the order in which they are deployed.
    parts: list[str] = []
    #: Part → the pieces of it that are there, where single playbooks were applied; a part that is
    #: not named here is there as a whole.
    pieces: dict[str, list[str]] = {}
    #: What was applied to it, in words, the latest last.
    applied: list[str] = []
    #: 'kvm' or 'tcg'.
    accelerator: str = "tcg"
    #: Whether its management network has no way out.
    airgap: bool = False
    #: Node → the devices of this host that are leased for it; the lease ends when each is back.
    gpus: dict[str, list[HandedThrough]] = {}
    #: Frozen volumes of checkpoints that the instance's disks stand on; they are not its own.
    layers: list[str] = []
    #: The checkpoint it was restored from ('' when it was made from the box).
    checkpoint: str = ""
    #: The checkpoint that is being taken of it ('' when none is).
    taking: str = ""
    #: What was on this host before anything of the instance was.
    before: Snapshot = Snapshot()
    state: str = "creating"

    @model_validator(mode="before")
    @classmethod
    def _with_parts(cls, data: Any) -> Any:
        return with_parts(data, "state")

    @property
    def holder(self) -> str:
        """Who keeps it: 'process 4711', 'kept', or 'its process is gone'."""
        if self.owner.alive:
            return f"process {self.owner.pid}"
        return "kept" if self.kept else "its process is gone"

    @property
    def abandoned(self) -> bool:
        """Whether nobody will take it down: its process is gone, and it was not to be kept, or was
        never whole."""
        return not self.owner.alive and (not self.kept or self.state in ("creating", "destroying"))

    def describe(self) -> str:
        """Return one line for lists: name, age in words is the caller's, nodes."""
        return f"{self.name}: {', '.join(self.spec.nodes)} ({self.state})"


class LedgerBook:
    """All ledgers of this user, one folder an instance under ``state_dir/clusters``."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "clusters"
        #: What was found unreadable by this process and set aside, a sentence each.
        self.rejected: list[str] = []

    def path(self, name: str) -> Path:
        """Return the folder of an instance."""
        return self.folder / name

    @contextmanager
    def locked(self, wait: float = 60) -> Iterator[None]:
        """Hold the lock under which names and subnets are chosen."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self.folder.parent / "clusters.lock")
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise DeepopsError(
                f"Another process has held '{lock.lock_file}' for {wait:.0f} s.",
                hint=f"fuser -v {lock.lock_file}",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def write(self, ledger: Ledger) -> None:
        """Write a ledger; the file appears whole or not at all."""
        folder = self.path(ledger.name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = ledger.model_dump_json(indent=1)
        for file in _FILES:
            write_whole(folder / file, text)

    def read(self, name: str) -> Ledger | None:
        """Return the ledger of an instance, or None when there is none.

        Where it cannot be read its copy counts; where neither can, the instance's folder is set
        aside, and ``rejected`` says so.
        """
        folder = self.path(name)
        problems = []
        for path in (folder / file for file in _FILES):
            try:
                ledger = Ledger.model_validate_json(path.read_text())
                if ledger.name != name:
                    raise ValueError(f"it is the ledger of '{ledger.name}'")
                return ledger
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                problems.append((str(error).splitlines() or ["unreadable"])[0])
        if problems:
            self._set_aside(name, problems[0])
        return None

    def _set_aside(self, name: str, why: str) -> None:
        target = self.folder.parent / "set-aside" / f"cluster-{name}-{secrets.token_hex(2)}"
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path(name).rename(target)
        self.rejected.append(
            f"The ledger of cluster '{name}' cannot be read ({why}). It was set aside in "
            f"'{target}'; nothing that it may have named was touched. Look for it with: "
            f"virsh -c qemu:///system list --all | grep deepops-{name}_"
        )

    def get(self, name: str) -> Ledger:
        """Return the ledger of an instance; raises UsageProblem when there is none of that
        name."""
        ledger = self.read(name) if name and "/" not in name else None
        if ledger is None:
            known = ", ".join(item.name for item in self.all()) or "none"
            raise UsageProblem(
                f"There is no cluster instance named '{name}'; there are: {known}.",
                hint="deepops-virtual status",
            )
        return ledger

    def all(self) -> list[Ledger]:
        """Return every ledger, oldest first."""
        names = {path.parent.name for file in _FILES for path in self.folder.glob(f"*/{file}")}
        found = [self.read(name) for name in names]
        return sorted((item for item in found if item), key=lambda item: item.created)

    def update(self, name: str, **changes: object) -> Ledger:
        """Change fields of a ledger on disk and return it."""
        ledger = self.get(name).model_copy(update=changes)
        self.write(ledger)
        return ledger

    def of_run(self, run_dir: Path) -> str:
        """Return the name of the instance that a run made, '' when it made none."""
        with suppress(OSError):
            name = (run_dir / "instance").read_text().strip()
            if name:
                return name
        # The process that made it was killed after it had written the ledger and before the name.
        return next((item.name for item in self.all() if item.run_dir == run_dir), "")

    def forget(self, name: str) -> None:
        """Delete an instance's folder, its keys with it."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def collect(self) -> None:
        """Remove the folders without a ledger: their process was killed while it made or removed
        one. Called under the lock."""
        for folder in self.folder.glob("*"):
            if folder.is_dir() and not any((folder / file).exists() for file in _FILES):
                shutil.rmtree(folder, ignore_errors=True)

    def orphans(self) -> list[Ledger]:
        """Return the instances whose owner is gone and that nobody meant to keep."""
        return [item for item in self.all() if item.abandoned]


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole, and on the disk, or not at all."""
    partial = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def age(ledger: Ledger) -> float:
    """Return how long ago the instance was made, in seconds."""
    return time.time() - ledger.created
