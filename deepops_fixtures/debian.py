"""What every build from Debian's packages needs, be it a box or an artifact: where the packages
come from, the keys they are signed with, and a lock so that nothing is built twice at once.

Not for the guests: their package sources are the box's and the playbooks' business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.journal import Journal

#: Where package debian-archive-keyring puts the archive's keys; Ubuntu and Fedora have it too.
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def mirror_wanted() -> str | None:
    """Return the mirror that DEEPOPS_DEBIAN_MIRROR names, or None for the recipe's own."""
    return os.environ.get("DEEPOPS_DEBIAN_MIRROR") or None


def sources(suite: str, mirror: str, security_mirror: str, *, kind: str = "deb") -> list[str]:
    """Return the lines of a sources.list (sources.list(5)): the suite, its updates, its security
    fixes. ``kind`` is 'deb' or 'deb-src'."""
    return [
        f"{kind} {mirror} {suite} main",
        f"{kind} {mirror} {suite}-updates main",
        f"{kind} {security_mirror} {suite}-security main",
    ]


def keyring() -> list[str]:
    """Return mmdebstrap's option for the archive's keys; none where they are apt's own."""
    return [f"--keyring={_KEYRING}"] if _KEYRING.exists() else []


@contextmanager
def one_at_a_time(
    lock_file: Path,
    journal: Journal,
    phase: str,
    what: str,
    wait: float,
    error: type[DeepopsError],
) -> Iterator[None]:
    """Hold the lock under which ``what`` is built; wait up to ``wait`` seconds for another holder.

    Says in the journal that it waits. Raises ``error`` when the other one is still at it then.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        journal.note(phase, f"waiting for another process that builds {what}")
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise error(
                f"Another process has been building {what} for {wait:.0f} s.",
                hint=f"see who holds {lock_file}: fuser -v {lock_file}",
            ) from None
    try:
        yield
    finally:
        lock.release()
