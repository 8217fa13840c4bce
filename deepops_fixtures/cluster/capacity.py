"""Whether this host can carry one more cluster, and waiting until it can.

Memory that a cluster has been promised and has not touched yet counts as taken. Not for names and
subnets: see ``instance``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import humanize
import psutil

from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline

_MIB = 1024**2
_GIB = 1024**3
#: MiB of RAM that one QEMU process needs beyond its guest's own memory; TCG keeps translated code
#: there.
_QEMU_OVERHEAD = {"kvm": 96, "tcg": 1100}


def needed_memory(spec: ClusterSpec, accelerator: str) -> int:
    """Return the bytes of RAM that a cluster may come to take on this host."""
    return (spec.memory + _QEMU_OVERHEAD[accelerator or "tcg"] * len(spec.nodes)) * _MIB


def _promised(book: LedgerBook) -> int:
    """Return the bytes that the clusters there are may still come to take."""
    found = 0
    for item in book.all():
        taken = hypervisor.memory_of(item.name)
        if taken or item.owner.alive:
            found += max(0, needed_memory(item.spec, item.accelerator) - taken)
    return found


def shortage(spec: ClusterSpec, accelerator: str, book: LedgerBook) -> UsageProblem | None:
    """Return what this host has too little of for a cluster, or None."""
    needed = needed_memory(spec, accelerator)
    available = max(0, psutil.virtual_memory().available - _promised(book))
    if needed > available:
        return UsageProblem(
            f"Cluster '{spec.name}' needs {_size(needed)} of memory; "
            f"{_size(available)} are available.",
            hint="lower 'memory' of its nodes, or stop other clusters: deepops-virtual status",
        )
    pool, free = hypervisor.pool_space()
    wanted = spec.disk * _GIB
    if wanted > free:
        where = pool or Path("/var/lib/libvirt/images")
        return UsageProblem(
            f"Cluster '{spec.name}' may grow to {_size(wanted)} on disk; "
            f"{_size(free)} are free in {where}.",
            hint="lower 'disk' of its nodes, or free space: deepops-virtual clean, "
            "deepops-virtual checkpoint gc",
        )
    return None


def blockers(book: LedgerBook) -> list[Ledger]:
    """Return the clusters that will go by themselves: their process lives and nobody keeps
    them."""
    return [item for item in book.all() if item.owner.alive and not item.kept]


def reserve(
    spec: ClusterSpec,
    accelerator: str,
    book: LedgerBook,
    journal: Journal,
    seconds: float,
    write: Callable[[], Ledger],
) -> Ledger:
    """Have ``write`` write a ledger, under the book's lock, once this host has room for it.

    Says for whom it waits. Raises UsageProblem when nobody will make room, or not in time.
    """
    deadline = Deadline.after(seconds)
    told = ""
    while True:
        with book.locked():
            lack = shortage(spec, accelerator, book)
            if not lack:
                return write()
            holders = blockers(book)
        if not holders:
            raise lack
        names = ", ".join(f"'{item.name}' ({item.holder})" for item in holders)
        if deadline.passed:
            raise UsageProblem(
                f"{lack.message} Waited {seconds:.0f} s for {names}.", hint=lack.hint
            )
        if names != told:
            journal.note("up", f"waiting for room: {lack.message} They are held by {names}")
            told = names
        time.sleep(1)


def _size(count: int) -> str:
    return humanize.naturalsize(count, binary=True)
