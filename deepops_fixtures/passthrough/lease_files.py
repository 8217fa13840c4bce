"""The files of leases: opening one that belongs to another user, locking it, its one line.

What a lease means is in `leases`. Not `filelock` or `fasteners`: they open their files with
O_CREAT, which the kernel refuses for another user's file in a folder that all may write to
(fs.protected_regular, proc(5)), and filelock empties the file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from deepops_fixtures.passthrough.holder import Holder


def started(stat: str) -> int:
    """Return a process's start in clock ticks since the boot (proc(5)), -1 for one that ended.

    The name in the second field may hold spaces and brackets; a zombie has ended.
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else -1


def open_shared(path: Path) -> int:
    """Open a file for reading and writing, made with mode 0666 where it is not there."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(handle, 0o666)
    return handle


def lock(handle: int) -> bool:
    """Take the flock of a file without waiting; return whether that worked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def close(handles: Mapping[int, int]) -> None:
    """Close files, and with that let go of their locks."""
    for handle in handles.values():
        os.close(handle)


def read(path: Path) -> Holder | None:
    """Return a file's record, None without one; nobody is kept out by a file that holds junk."""
    try:
        line = path.read_text(errors="replace").partition("\n")[0]
        return Holder.model_validate_json(line) if line else None
    except (OSError, ValidationError):
        return None


def write(handle: int, holder: Holder | None) -> None:
    """Write a record, one line; a reader sees the old line or the new one."""
    line = (holder.model_dump_json() + "\n").encode() if holder else b""
    os.pwrite(handle, line, 0)
    os.ftruncate(handle, len(line))
