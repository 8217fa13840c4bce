"""Carrying out a preparation, going on after a kill, taking it back byte for byte.

What has to change is decided in `preparation`; how files are kept and put in place is in `backup`.
The commands are run by a function that the caller gives: on another root than '/' there is none,
and they are left to whoever starts that system.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.passthrough import backup
from deepops_fixtures.passthrough.backup import Manifest, Saved, content_of, locked
from deepops_fixtures.passthrough.boot_entries import WRITTEN_BY_GRUBBY
from deepops_fixtures.passthrough.kernel_line import cmdline_parameters
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.plans import Command, FileChange, Preparation, bytes_of, shown
from deepops_fixtures.passthrough.platform_facts import boot_id
from deepops_fixtures.passthrough.preparation import plan
from deepops_fixtures.proc import tail

State = Literal["none", "partial", "applied"]
#: Runs a program with its output appended to a log, and returns its exit status.
Runner = Callable[[tuple[str, ...], Path], int]
_PROGRAM = "deepops-virtual"
#: The command that takes a preparation back, as a fix.
UNDO: Final = f"sudo {_PROGRAM} gpu prepare --undo"


@dataclass(frozen=True)
class Prepared:
    """How far this program has prepared a host; `preparation.plan` says what is missing."""

    state: State
    #: Whether it was stopped while it was taken back.
    undoing: bool = False
    ids: tuple[str, ...] = ()
    #: Whether the host has to be restarted for it to count.
    reboot_due: bool = False
    #: Files that somebody else has changed since.
    changed_since: tuple[str, ...] = ()
    #: Commands that have not ended well yet.
    pending: tuple[Command, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a call has done, or what is left to do."""

    #: Whether this call has changed anything.
    changed: bool
    files: tuple[FileChange, ...]
    commands: tuple[Command, ...]
    state: State
    reboot_due: bool
    notes: tuple[str, ...] = ()


def state(host: Host) -> Prepared:
    """Return how far a host is prepared. Raises UsageProblem for an unreadable manifest."""
    manifest = backup.read_manifest(host)
    if manifest is None:
        return Prepared("none")
    return Prepared(
        state="applied" if manifest.phase == "applied" else "partial",
        undoing=manifest.phase == "undoing",
        ids=tuple(manifest.ids),
        reboot_due=manifest.phase == "applied" and _same_boot(host, manifest),
        changed_since=tuple(item.path for item in manifest.files if not item.is_ours(host)),
        pending=tuple(manifest.pending),
    )


def proposal(host: Host, devices: Iterable[str], *, softdep: bool = True) -> Outcome:
    """Return what `apply` would do; nothing is changed. Raises UsageProblem as it does."""
    manifest = backup.read_manifest(host)
    return _outcome(host, manifest, _left(host, manifest, devices, softdep))


def apply(
    host: Host,
    devices: Iterable[str],
    *,
    softdep: bool = True,
    run: Runner | None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Prepare a host for all devices of these IDs, or go on where an earlier call was stopped.

    A host that is prepared already is prepared for these IDs too; the backup stays the first one.
    Raises UsageProblem when nothing was changed, DeepopsError when it ended half-way.
    """
    devices = tuple(devices)
    first = proposal(host, devices, softdep=softdep)
    if first.state != "partial" and not first.files and not first.commands:
        return first
    again = _words(host, devices, "--apply")
    _check_writable(host, [item.path for item in first.files], again)
    with locked(host):
        manifest = backup.read_manifest(host)
        preparation = _left(host, manifest, devices, softdep)
        manifest = manifest or Manifest()
        _begin(host, manifest, preparation)
        for change in preparation.files:
            with _writing(host, change.path):
                manifest.entry(change.path).put_after(host)
        _run_all(host, manifest, run, say, again)
        manifest.by_commands = [
            item if item.after_sha256 is not None else item.becomes(_content(host, item))
            for item in manifest.by_commands
        ]
        manifest.phase, manifest.boot = "applied", boot_id(host)
        _keep(host, manifest)
    return replace(_outcome(host, manifest, preparation), changed=True)


def undo(
    host: Host,
    *,
    run: Runner | None,
    say: Callable[[str], None] = lambda _: None,
    force: bool = False,
) -> Outcome:
    """Put every file back as it was before the first `apply`: bytes, mode, owner, absence.

    A file that somebody else has changed since is refused, unless ``force``. Raises UsageProblem
    when nothing was changed, DeepopsError when it ended half-way.
    """
    manifest = backup.read_manifest(host)
    if manifest is None:
        return Outcome(False, (), (), "none", reboot_due=False)
    entries = [*manifest.files, *manifest.by_commands]
    again = _words(host, (), "--undo")
    _check_writable(host, [item.path for item in entries], again)
    with locked(host):
        manifest = backup.read_manifest(host) or manifest
        if not force:
            _check_ours(host, manifest.files)
        files = tuple(item.back(host) for item in manifest.files)
        _begin_undo(host, manifest)
        commands = tuple(manifest.pending)
        _put_back(host, manifest.files)
        _run_all(host, manifest, run, say, again)
        _put_back(host, manifest.by_commands)
        with _writing(host, backup.MANIFEST):
            backup.forget(host)
    changed = tuple(item for item in files if item.before != item.after)
    return Outcome(True, changed, commands, "none", reboot_due=True, notes=_log_kept(host))


# -- before anything is changed -------------------------------------------------------------


def _left(
    host: Host, manifest: Manifest | None, devices: Iterable[str], softdep: bool
) -> Preparation:
    """Return what is left to do, with the commands that an earlier call did not get to.

    Raises UsageProblem where an earlier call left what this one cannot build on.
    """
    preparation = plan(host, devices, softdep=softdep)
    if manifest is None:
        return preparation
    if manifest.phase == "undoing":
        raise UsageProblem(
            "The preparation of this host is half taken back.",
            hint=_words(host, (), "--undo"),
        )
    missing = [item for item in manifest.asked if item not in preparation.ids]
    if manifest.phase == "applying" and missing:
        raise UsageProblem(
            f"This host is half prepared for {_listed(manifest.asked)}, and other devices are "
            "named now.",
            hint=f"{_words(host, manifest.asked, '--apply')}, or with --undo for --apply",
        )
    touched = [manifest.saved(item.path) for item in preparation.files]
    _check_ours(host, [item for item in touched if item])
    fresh = preparation.without(manifest.done)
    late = [
        item for item in manifest.pending if item.argv not in {it.argv for it in fresh.commands}
    ]
    return replace(fresh, commands=(*late, *fresh.commands))


def _check_ours(host: Host, entries: Iterable[Saved]) -> None:
    """Raise UsageProblem when somebody else has changed a file since it was prepared."""
    for item in entries:
        if not item.is_ours(host):
            raise UsageProblem(
                f"'{host.path(item.path)}' was changed by somebody else after it was prepared; "
                "nothing was changed now.",
                detail=shown(item.since(host).diff),
                hint=f"undo that change, or lose it: {_words(host, (), '--undo', '--force')}",
            )


def _check_writable(host: Host, paths: Iterable[str], again: str) -> None:
    """Raise UsageProblem when a file could not be put into its folder."""
    for path in (*paths, backup.MANIFEST):
        folder = host.path(path).parent
        while not folder.exists():
            folder = folder.parent
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            continue
        if folder.is_dir() and os.geteuid() != 0:
            raise UsageProblem(
                f"'{folder}' cannot be written by this user; preparing a host is for root.",
                hint=again.replace(_PROGRAM, f'sudo "$(command -v {_PROGRAM})"', 1),
            )
        raise UsageProblem(
            f"'{folder}' cannot be written, so nothing was changed.",
            hint=f"look how it is mounted: findmnt -T {folder}",
        )


# -- the steps ------------------------------------------------------------------------------


def _begin(host: Host, manifest: Manifest, preparation: Preparation) -> None:
    """Write down all that will change, before any of it does."""
    for change in preparation.files:
        entry = manifest.saved(change.path) or Saved.now(host, change.path)
        manifest.note(entry.becomes(bytes_of(change.after)))
    manifest.phase = "applying"
    manifest.ids = list(dict.fromkeys((*manifest.ids, *preparation.ids)))
    manifest.asked = list(preparation.ids)
    manifest.pending = list(preparation.commands)
    if any(item.lasts for item in preparation.commands):
        known = {item.path for item in manifest.by_commands}
        manifest.by_commands = [
            item.model_copy(update={"after_sha256": None}) for item in manifest.by_commands
        ] + [
            Saved.now(host, path)
            for path in WRITTEN_BY_GRUBBY
            if path not in known and host.path(path).is_file()
        ]
    _keep(host, manifest)


def _begin_undo(host: Host, manifest: Manifest) -> None:
    """Write down what is taken back; commands in the reverse order, each once."""
    if manifest.phase != "undoing":
        ran = [*manifest.done, *manifest.pending]
        back = [Command(argv=item.undo, undo=item.argv, why=item.why) for item in reversed(ran)]
        manifest.pending = list({item.argv: item for item in back}.values())
        manifest.done = []
        # What somebody changed after the command had written it is theirs.
        manifest.by_commands = [
            item.model_copy(update={"after_sha256": None})
            for item in manifest.by_commands
            if item.after_sha256 is None or item.is_ours(host)
        ]
    manifest.phase = "undoing"
    _keep(host, manifest)


def _put_back(host: Host, entries: Iterable[Saved]) -> None:
    for item in entries:
        with _writing(host, item.path):
            item.put_back(host)


def _run_all(
    host: Host, manifest: Manifest, run: Runner | None, say: Callable[[str], None], again: str
) -> None:
    """Run the commands that are pending, noting each that has ended well. Raises DeepopsError."""
    log = host.path(backup.LOG)
    for command in list(manifest.pending):
        if run:
            say(f"Running '{command.shown}' …")
            status = run(command.argv, log)
            if status != 0:
                raise DeepopsError(
                    f"'{command.shown}' failed with status {status}; the files are as the "
                    "preparation leaves them, and it is not finished.",
                    detail=tail(log),
                    hint=f"mend the cause (all of it is in {log}), then: {again}",
                )
        manifest.pending.remove(command)
        manifest.done.append(command)
        _keep(host, manifest)


def _keep(host: Host, manifest: Manifest) -> None:
    with _writing(host, backup.MANIFEST):
        manifest.write(host)


@contextmanager
def _writing(host: Host, path: str) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise DeepopsError(
            f"'{host.path(path)}' could not be written: {error.strerror}.",
            hint=f"mend that and run this again, or take it back: {_words(host, (), '--undo')}",
        ) from error


# -- telling --------------------------------------------------------------------------------


def _outcome(host: Host, manifest: Manifest | None, preparation: Preparation) -> Outcome:
    """Return a plan as an outcome that has changed nothing yet."""
    if manifest:
        now: State = "applied" if manifest.phase == "applied" else "partial"
        due = now == "applied" and _same_boot(host, manifest)
    else:
        given = cmdline_parameters(host.text("/proc/cmdline"))
        now = "none" if preparation.changed else "applied"
        due = now == "applied" and not all(it.met_by(given) for it in preparation.parameters)
    return Outcome(
        changed=False,
        files=preparation.files,
        commands=preparation.commands,
        state=now,
        reboot_due=due,
        notes=preparation.notes,
    )


def _same_boot(host: Host, manifest: Manifest) -> bool:
    """Return whether the host has not been started since it was prepared."""
    return boot_id(host) in ("", manifest.boot)


def _log_kept(host: Host) -> tuple[str, ...]:
    """Return the note on what a preparation leaves behind: the log of its commands, if any ran."""
    log = host.path(backup.LOG)
    return (f"What the commands said is kept in '{log}'.",) if log.exists() else ()


def _content(host: Host, entry: Saved) -> bytes | None:
    return content_of(host.path(entry.path))


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(f"'{item}'" for item in ids)


def _words(host: Host, ids: Iterable[str], *more: str) -> str:
    """Return the command line that prepares this host."""
    root = [] if host.is_this_host else ["--root", str(host.root)]
    devices = [word for item in ids for word in ("--device", item)]
    return shlex.join([_PROGRAM, "gpu", "prepare", *root, *devices, *more])
