"""What the soak may have left on this host, one line a thing.

Everything of the soak bears its token: clusters are named after it, and every process that a round
starts inherits ``MARK``. What bears another cluster's name is somebody else's and not looked at.
Not for removing anything.
"""

from __future__ import annotations

import json
import os
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import LedgerBook

#: Environment variable that every process of a round inherits.
MARK = "SOAK_ROUND"
_ANSIBLE = "ansible-local-"


class Audit:
    """Compares this host with how it was when the soak began."""

    def __init__(self, token: str, state: Path, cache: Path, temporary: Path) -> None:
        self.token = token
        self.book = LedgerBook(state)
        self._state = state
        self._cache = cache
        self._temporary = temporary
        self._before = self._look()

    def leaks(self, patience: float = 30) -> list[str]:
        """Return what is here and was not before; what is still going away gets a moment: xdist's
        workers take fifteen seconds to notice that their controller is gone.

        Each leak is told once: the next audit takes it as given.
        """
        deadline = time.monotonic() + patience
        while True:
            found = self._look() - self._before
            if not found or time.monotonic() > deadline:
                self._before |= found
                return sorted(found)
            time.sleep(0.5)

    def _look(self) -> set[str]:
        return {
            *self._machines(),
            *self._bridges(),
            *self._state_files(),
            *self._processes(),
            *self._locks(),
            *self._temporary_files(),
            *self._vagrant_index(),
        }

    # -- libvirt ----------------------------------------------------------------------------

    def _foreign(self, name: str) -> bool:
        """Whether this is the name of something that another cluster of ours has."""
        return "_vagrant_box_image_" in name or (
            name.startswith("deepops-") and self.token not in name
        )

    def _machines(self) -> Iterator[str]:
        now = hypervisor.take_snapshot()
        kept = {f"{item.pool}/{name}" for item in Store(self.book).all() for name in item.volumes}
        yield from (f"domain {name}" for name in now.domains if not self._foreign(name))
        yield from (f"network {name}" for name in now.networks if not self._foreign(name))
        for name in now.volumes - kept:
            if not self._foreign(name.split("/", 1)[1]):
                yield f"volume {name}"
        yield from (f"lease file {name}" for name in now.leases if self.token in name)

    def _bridges(self) -> Iterator[str]:
        """Bridges that libvirt made and that belong to no network of it."""
        known = set()
        with hypervisor.connect() as connection:
            for network in connection.listAllNetworks():
                bridge = ElementTree.fromstring(network.XMLDesc(0)).find("bridge")
                known.add(bridge.get("name") if bridge is not None else "")
        for name in psutil.net_if_addrs():
            if name.startswith("virbr") and name not in known:
                yield f"bridge {name}"

    # -- files ------------------------------------------------------------------------------

    def _state_files(self) -> Iterator[str]:
        yield from (f"ledger {path.name}" for path in _list(self._state / "clusters"))
        yield from (f"set aside {path.name}" for path in _list(self._state / "set-aside"))
        for path in _list(self._state / "checkpoints"):
            if not (path / "manifest.json").exists():
                yield f"unfinished checkpoint {path.name}"
        for path in self._state.rglob(".*.json-*"):
            yield f"half-written file {path.relative_to(self._state)}"

    def _locks(self) -> Iterator[str]:
        for folder in (self._state, self._cache):
            for path in folder.rglob("*.lock"):
                try:
                    with FileLock(path, timeout=0):
                        pass
                except Timeout:
                    yield f"held lock {path}"
                except OSError:
                    continue

    def _temporary_files(self) -> Iterator[str]:
        yield from (f"temporary file {path}" for path in _list(self._temporary))
        for path in _list(Path.home() / ".ansible" / "tmp"):
            if not _works(path.name):
                yield f"temporary file {path}"

    def _vagrant_index(self) -> Iterator[str]:
        """Machines that Vagrant believes in although their folder was the soak's."""
        home = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")
        with suppress(OSError, ValueError):
            index = json.loads((home / "data" / "machine-index" / "index").read_text())
            for machine in index.get("machines", {}).values():
                if str(machine.get("local_data_path", "")).startswith(str(self._state)):
                    yield f"machine in Vagrant's index {machine['local_data_path']}"

    # -- processes --------------------------------------------------------------------------

    def _processes(self) -> Iterator[str]:
        for process in marked(self.token):
            with suppress(psutil.Error):
                yield f"process {process.pid} {' '.join(process.cmdline())[:120]}"


def marked(token: str) -> list[psutil.Process]:
    """Return the living processes of the soak's rounds: those that inherited the mark, and what
    libvirt runs for the soak's clusters."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
            continue
        command = " ".join(process.info["cmdline"] or [])
        with suppress(psutil.Error, OSError):
            if (
                f"guest=deepops-{token}" in command
                or f"dnsmasq/deepops-{token}" in command
                or process.environ().get(MARK, "").startswith(token)
            ):
                found.append(process)
    return found


def _list(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _works(name: str) -> bool:
    """Whether the ansible process that made this folder still runs: the name is a prefix, its
    number and eight characters."""
    number = name.removeprefix(_ANSIBLE)[:-8]
    return name.startswith(_ANSIBLE) and number.isdigit() and psutil.pid_exists(int(number))
