"""What the unit tests share."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import libvirt
import psutil
import pytest

from deepops_fixtures.cluster import hypervisor, topology, volumes
from deepops_fixtures.cluster.checkpoints import Manifest, Store
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, Owner
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.proc import boot_id
from tests.harness.unit.fakes import Connection
from tests.harness.unit.runs import DEPLOYED, MACHINES, Run


def _ledger(name: str, **changes: object) -> Ledger:
    values: dict = {
        "name": name, "owner": Owner.me(), "created": time.time(), "spec": topology.load("tiny"),
        "run_dir": Path("/nowhere"), "pool": "default", "domain_prefix": f"deepops-{name}_",
        "domains": [f"deepops-{name}_virtual-login"], "networks": [f"deepops-{name}"],
        "volumes": [], "subnets": ["10.86.1.0/24"], "socket_dir": Path("/nowhere"),
    }  # fmt: skip
    return Ledger(**{**values, **changes})


@pytest.fixture
def ledger() -> Callable[..., Ledger]:
    """Return a function that makes the ledger of an instance, owned by this process."""
    return _ledger


@pytest.fixture(scope="session")
def ended() -> Owner:
    """A process that was, and has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner(pid=child.pid, started=psutil.Process(child.pid).create_time(), user="me")
    child.communicate(b"\n")
    return owner


@pytest.fixture
def book(tmp_path: Path) -> LedgerBook:
    """The ledgers of a user who has none yet."""
    return LedgerBook(tmp_path / "state")


@pytest.fixture
def store(book: LedgerBook) -> Store:
    """The checkpoints of a user who has none yet."""
    return Store(book)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A libvirt in memory, in the place of this host's."""
    made = Connection()
    monkeypatch.setattr(libvirt, "open", lambda _uri: made)
    return made


def _manifest(checkpoint: str, **changes: object) -> Manifest:
    values: dict = {
        "id": checkpoint, "stage": "up", "kind": "ram", "created": time.time(), "instance": "one",
        "inputs": {"cluster": {"nodes.virtual-login.memory": "384"}},
        "spec": topology.load("tiny"), "pool": "default",
        "domains": ["deepops-one_virtual-login"], "networks": ["deepops-one", "deepops-one-mgmt"],
        "subnets": ["10.86.77.0/24", "10.87.77.0/24"], "macs": {}, "leases": [],
        "bases": ["box.img"], "disks": {"virtual-login": []}, "ram": {}, "xml": {},
        "signatures": {}, "boot": boot_id(),
        "running": RunningCluster(name="one", provider="vagrant", nodes=[], accelerator="tcg",
                                  inventory=Path("/nowhere")),
    }  # fmt: skip
    return Manifest(**{**values, **changes})


@pytest.fixture
def keep(store: Store, connection: Connection) -> Callable[..., Manifest]:
    """Return a function that puts a checkpoint with these disks, the deepest first, into the
    store, as taking one does: what it will own is announced, the manifest comes last."""
    connection.pool.add("box.img")

    def kept(checkpoint: str, *disks: str, **changes: object) -> Manifest:
        ram = f"{checkpoint}.ram"
        store.announce(checkpoint, "default", [disks[-1], ram])
        for name in (*disks, ram):
            connection.pool.add(name)
        values: dict = {
            "disks": {"virtual-login": list(disks)},
            "ram": {"virtual-login": ram},
            "signatures": volumes.signatures(connection, "default", [*disks, ram, "box.img"]),
        }
        manifest = _manifest(checkpoint, **{**values, **changes})
        store.write(manifest)
        return manifest

    return kept


@pytest.fixture
def this(book: LedgerBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that looks for checkpoints, on a host whose subnets are free."""
    monkeypatch.setattr(hypervisor, "subnets_in_use", list)
    return Run(book, tmp_path)


@pytest.fixture
def both(keep: Callable[..., Manifest]) -> tuple[Manifest, Manifest]:
    """Checkpoints of both stages of one instance, good for ``this`` run."""
    up = keep("one-up", "1.img", inputs=MACHINES, created=1000.0)
    deployed = keep("one-deployed", "1.img", "2.img", stage="deployed", inputs=DEPLOYED,
                    parts=["slurm"])  # fmt: skip
    return up, deployed


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs deepops-virtual; it gives status, output and error output."""
    from deepops_fixtures import cli

    # The signals are those of the pytest that runs this.
    monkeypatch.setattr(cli.signals, "install", lambda: None)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deepops-virtual", *words])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return status, said.out, said.err

    return run


@pytest.fixture
def deepops(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    connection: Connection,
    command_line: Callable[..., tuple[int, str, str]],
) -> Callable[..., tuple[int, str, str]]:
    """Return the function of ``command_line``, for a user who has nothing yet and a libvirt in
    memory."""
    monkeypatch.setenv("DEEPOPS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DEEPOPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPOPS_ACCELERATOR", "tcg")
    return command_line


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that makes the only programs there are: name and what they print."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(**texts: str) -> None:
        for name, text in texts.items():
            file = folder / name.replace("_", "-").replace("x86-64", "x86_64")
            file.write_text(f"#!/bin/sh\n{text}\n")
            file.chmod(0o755)

    return make
