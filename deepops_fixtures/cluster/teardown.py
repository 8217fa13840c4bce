"""Teardown of an instance: what its ledger names goes, and an audit says whether it did.

libvirt removes it; Vagrant is not asked. Volumes that a checkpoint stands on stay. Interrupting it
a second time says what is still there and how to remove it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
from fasteners import InterProcessReaderWriterLock
from filelock import FileLock, Timeout

from deepops_fixtures.cluster import gpus, hypervisor, ssh
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook
from deepops_fixtures.errors import DeepopsError, LeakError
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline

#: Seconds that the workers of a killed run may go on with it: execnet ends them after fifteen.
_ORPHANS = 25.0


@contextmanager
def alone(ledger: Ledger) -> Iterator[None]:
    """Wait until no process of the instance's run works on it any more, and let none begin.

    xdist's workers notice late that their controller was killed; one that is bringing the cluster
    up, or is putting it back, would do so behind the back of a teardown. Not for a run's own
    teardown: its workers have ended by then.
    """
    deadline = Deadline.after(_ORPHANS)
    with ExitStack() as held:
        for path in sorted((ledger.run_dir / "stages").glob("*.lock")):
            with suppress(Timeout, OSError):
                held.enter_context(FileLock(path).acquire(timeout=deadline.left))
        for path in (ledger.run_dir / "isolation").glob("*.lock"):
            lock = InterProcessReaderWriterLock(path)
            if lock.acquire_write_lock(timeout=deadline.left):
                held.callback(lock.release_write_lock)
        yield


def destroy(name: str, book: LedgerBook, journal: Journal) -> None:
    """Remove an instance and audit. Raises LeakError when something of it is left, or libvirt does
    not answer; its ledger stays then."""
    ledger = book.update(name, state="destroying")
    try:
        _destroy(ledger, book, journal)
    except LeakError:
        raise
    except DeepopsError as error:
        raise LeakError(
            f"Cluster '{name}' was not taken down: {error.message}",
            detail=error.detail,
            hint=f"{error.hint}\nThen: deepops-virtual destroy {name}",
        ) from None


def destroy_left(ledger: Ledger, book: LedgerBook, journal: Journal) -> None:
    """Destroy an instance that another process has left, once nothing of its run works on it.

    Does nothing where somebody was quicker; the name may be a new instance's by now. Raises as
    ``destroy`` does.
    """
    with alone(ledger):
        current = book.read(ledger.name)
        if current and current.created == ledger.created:
            destroy(ledger.name, book, journal)


def _destroy(ledger: Ledger, book: LedgerBook, journal: Journal) -> None:
    name, store = ledger.name, Store(book)
    try:
        with journal.step("down", f"destroying cluster '{name}'"):
            _close(ledger, book)
            hypervisor.end_marked_processes(name)
            store.forget_private(ledger)
            problems = hypervisor.remove(ledger, store.own_volumes(ledger))
            hypervisor.end_marked_processes(name)
        gpus.give_back(ledger, journal)
    except KeyboardInterrupt:
        left = left_behind(ledger, store)
        what = "\n".join(left) if left else "nothing; the ledger alone is left"
        raise LeakError(
            f"The teardown of cluster '{name}' was interrupted. Still there:\n{what}",
            hint=f"deepops-virtual destroy {name}",
        ) from None
    with journal.step("audit", "comparing this host with what it was before"):
        left = left_behind(ledger, store)
        others = appeared(ledger, store)
    if others:
        journal.note("audit", f"appeared meanwhile, and no cluster of ours: {', '.join(others)}")
    if left:
        raise LeakError(
            f"Cluster '{name}' left something behind:\n" + "\n".join(left),
            detail="\n".join(problems),
            hint=f"deepops-virtual destroy {name}",
        )
    shutil.rmtree(ledger.socket_dir, ignore_errors=True)
    book.forget(name)
    store.abandon(ledger.taking)


def _close(ledger: Ledger, book: LedgerBook) -> None:
    config = book.path(ledger.name) / "ssh_config"
    if config.exists():
        with suppress(Exception):
            ssh.close_connections(config, list(ledger.spec.nodes))


def left_behind(ledger: Ledger, store: Store) -> list[str]:
    """Return what of an instance is on this host: domains, networks, volumes, lease files,
    processes."""
    now = hypervisor.take_snapshot()
    left = [f"domain {name}" for name in sorted(now.domains) if name in ledger.domains]
    left += [f"network {name}" for name in sorted(now.networks) if name in ledger.networks]
    kept = {f"{item.pool}/{name}" for item in store.all() for name in item.volumes}
    volumes = {f"{ledger.pool}/{name}" for name in [*ledger.volumes, *ledger.layers]}
    prefix = f"{ledger.pool}/{ledger.domain_prefix}"
    left += [
        f"volume {name}"
        for name in sorted(now.volumes - kept)
        if name in volumes or name.startswith(prefix)
    ]
    left += [
        f"lease file {name}"
        for name in sorted(now.leases)
        if any(name.startswith(f"{network}.") for network in ledger.networks)
    ]
    left += [
        f"process {text.split(': ', 1)[1]}"
        for text in sorted(now.processes)
        if text.startswith(f"{ledger.name}: ") and not _ours(text)
    ]
    return left


def appeared(ledger: Ledger, store: Store) -> list[str]:
    """Return what has come to this host since before the instance and belongs to no ledger: other
    people's, or a leak that no ledger foresaw. It is told, and never touched."""
    known: set[str] = set()
    for manifest in store.all():
        known |= {f"volume {manifest.pool}/{name}" for name in manifest.volumes}
    for item in [ledger, *store.book.all()]:
        known |= {f"domain {name}" for name in item.domains}
        known |= {f"network {name}" for name in item.networks}
        known |= {f"volume {item.pool}/{name}" for name in [*item.volumes, *item.layers]}
    found = hypervisor.take_snapshot().minus(ledger.before)
    # A box's image stays on purpose; a network's lease files come and go with it.
    expected = ("_vagrant_box_image_", "lease ")
    return [text for text in found if text not in known and not any(e in text for e in expected)]


def _ours(text: str) -> bool:
    """Whether a process line is this very process or one of its parents (a shell with our mark
    exported)."""
    pid = int(text.split(": ", 1)[1].split(" ", 1)[0])
    return pid in {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
