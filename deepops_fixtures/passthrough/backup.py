"""What a host was like before it was prepared: the manifest, and files put in place whole.

The manifest holds every byte of every file that changes, and it is on the disk before the first of
them does; so that a preparation that was killed anywhere can go on or be taken back. When it is
written, and what is put back, is decided in `prepared`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, Field, ValidationError

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import lease_files
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.plans import Command, FileChange, text_of

FOLDER: Final = "/var/lib/deepops-fixtures/passthrough"
MANIFEST: Final = f"{FOLDER}/manifest.json"
LOG: Final = f"{FOLDER}/commands.log"
Phase = Literal["applying", "applied", "undoing"]


class Saved(BaseModel):
    """One file: what it was, and what it became. A sum is '' where there is no file."""

    path: str
    existed: bool
    mode: int
    uid: int
    gid: int
    #: The content, in base64.
    before: str
    before_sha256: str
    after: str = ""
    #: None when it is written by a command and that has not ended.
    after_sha256: str | None = None
    #: Sums of what we had made of it before: it may be found like this after a kill.
    earlier: list[str] = Field(default_factory=list)
    #: Folders that were made for it.
    made_folders: list[str] = Field(default_factory=list)

    @classmethod
    def now(cls, host: Host, path: str) -> Saved:
        """Return a file as it is at this moment."""
        place = host.path(path)
        content = content_of(place)
        status = place.stat() if content is not None else None
        missing = [parent for parent in Path(path).parents if not host.path(str(parent)).exists()]
        return cls(
            path=path,
            existed=content is not None,
            mode=status.st_mode & 0o7777 if status else 0o644,
            uid=status.st_uid if status else os.geteuid(),
            gid=status.st_gid if status else os.getegid(),
            before=_packed(content),
            before_sha256=sum_of(content),
            made_folders=[str(parent) for parent in missing],
        )

    def becomes(self, content: bytes | None) -> Saved:
        """Return this entry with a new content to be put in place."""
        earlier = [*self.earlier, *([self.after_sha256] if self.after_sha256 else [])]
        update = {"after": _packed(content), "after_sha256": sum_of(content), "earlier": earlier}
        return self.model_copy(update=update)

    def is_ours(self, host: Host) -> bool:
        """Return whether nobody else has changed the file since."""
        known = {self.before_sha256, self.after_sha256, *self.earlier}
        return sum_of(content_of(host.path(self.path))) in known

    def put_after(self, host: Host) -> None:
        """Put the new content in place, with the mode and owner that the file had. OSError."""
        make_folder(host.path(self.path).parent)
        put(host.path(self.path), base64.b64decode(self.after), self.mode, self.uid, self.gid)

    def put_back(self, host: Host) -> None:
        """Bring back the file as it was, or its absence. OSError."""
        place = host.path(self.path)
        partial_of(place).unlink(missing_ok=True)
        if self.existed:
            put(place, base64.b64decode(self.before), self.mode, self.uid, self.gid)
            return
        place.unlink(missing_ok=True)
        for folder in self.made_folders:
            with suppress(OSError):  # Somebody else has something in it.
                host.path(folder).rmdir()

    def since(self, host: Host) -> FileChange:
        """Return what somebody else has made of the file since."""
        now = content_of(host.path(self.path))
        after = base64.b64decode(self.after) if self.after_sha256 else None
        return FileChange(self.path, text_of(after), text_of(now))

    def back(self, host: Host) -> FileChange:
        """Return what taking the preparation back makes of the file."""
        now = content_of(host.path(self.path))
        before = base64.b64decode(self.before) if self.existed else None
        return FileChange(self.path, text_of(now), text_of(before))


class Manifest(BaseModel):
    """A preparation, whole or half-way."""

    format: Literal[1] = 1
    #: Seconds since the epoch.
    created: float = Field(default_factory=time.time)
    phase: Phase = "applying"
    #: All IDs the host is prepared for, and those named the last time.
    ids: list[str] = Field(default_factory=list)
    asked: list[str] = Field(default_factory=list)
    files: list[Saved] = Field(default_factory=list)
    #: Files that commands write.
    by_commands: list[Saved] = Field(default_factory=list)
    pending: list[Command] = Field(default_factory=list)
    done: list[Command] = Field(default_factory=list)
    #: The start of the host during which it was prepared (random(4)).
    boot: str = ""

    def saved(self, path: str) -> Saved | None:
        """Return a file's entry, None for a file that was not touched."""
        return next((item for item in self.files if item.path == path), None)

    def entry(self, path: str) -> Saved:
        """Return the entry of a file that was noted."""
        return next(item for item in self.files if item.path == path)

    def note(self, entry: Saved) -> None:
        """Take up an entry, in the place of an earlier one of the same file."""
        self.files = [item for item in self.files if item.path != entry.path] + [entry]

    def write(self, host: Host) -> None:
        """Put the manifest on the disk. It is no more readable than the files in it. OSError."""
        entries = [*self.files, *self.by_commands]
        public = all(item.mode & 0o004 for item in entries)
        data = self.model_dump_json(indent=1).encode()
        mode = 0o644 if public else 0o600
        put(host.path(MANIFEST), data, mode, os.geteuid(), os.getegid())


def read_manifest(host: Host) -> Manifest | None:
    """Return the manifest of a host that was prepared, None for another. Raises UsageProblem."""
    place = host.path(MANIFEST)
    try:
        return Manifest.model_validate_json(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageProblem(
            f"'{place}' cannot be read: {error.strerror}.", hint="run this with sudo"
        ) from error
    except ValidationError as error:
        raise UsageProblem(
            f"'{place}' is not what this program wrote there, so that it cannot be told how far "
            "this host is prepared.",
            hint=f"the files as they were are in it, in base64; when they are mended: rm {place}",
        ) from error


def forget(host: Host) -> None:
    """Remove the manifest, and with it the memory of the preparation. OSError.

    The folders go too, unless there is a log in them.
    """
    place = host.path(MANIFEST)
    place.unlink()
    sync_folder(place.parent)
    with suppress(OSError):  # There is a log.
        host.path(FOLDER).rmdir()
        host.path(FOLDER).parent.rmdir()


@contextmanager
def locked(host: Host) -> Iterator[None]:
    """Keep others from preparing this host meanwhile. Raises UsageProblem when another does.

    The lock is the folder's own (flock(2)), so that no file has to be left for it.
    """
    folder = host.path(FOLDER)
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lease_files.lock(handle) or not _is_at(folder, handle):
            raise UsageProblem(
                "Another 'deepops-virtual gpu prepare' is at work on this host.",
                hint="wait for it, then run this again",
            )
        yield
    finally:
        os.close(handle)


def _is_at(folder: Path, handle: int) -> bool:
    """Return whether an open folder is still there: another `forget` may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


# -- files ----------------------------------------------------------------------------------


def content_of(place: Path) -> bytes | None:
    """Return a file's bytes, None without the file. OSError."""
    try:
        return place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def sum_of(content: bytes | None) -> str:
    """Return the SHA-256 of a content, '' for no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _packed(content: bytes | None) -> str:
    return base64.b64encode(content or b"").decode()


def make_folder(place: Path) -> None:
    """Make a folder, and those above it, that every user may read, whatever root's umask is.
    OSError."""
    missing = [folder for folder in (place, *place.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def partial_of(place: Path) -> Path:
    """Return where a new content is written before it takes its place; no program reads it."""
    return place.with_name(f".{place.name}.deepops-partial")


def put(place: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    """Put a content in place so that it is there whole, and on the disk, or not at all.

    Mode and owner are as given; extended attributes (the label of SELinux among them) are those
    of the file it replaces. OSError.
    """
    partial = partial_of(place)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        with suppress(OSError):  # There is no such file, or its file system has no attributes.
            for name in os.listxattr(place):
                with suppress(OSError):
                    os.setxattr(descriptor, name, os.getxattr(place, name))
        file.flush()
        os.fsync(descriptor)
    partial.replace(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
