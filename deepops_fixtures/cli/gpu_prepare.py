"""``deepops-virtual gpu prepare``: a host made ready for passthrough, and put back as it was."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from deepops_fixtures.cli.common import host_below, json_option, root_option
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.live import colours_wanted
from deepops_fixtures.passthrough import prepared
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.plans import Command, shown
from deepops_fixtures.passthrough.prepared import Outcome
from deepops_fixtures.proc import Deadline, run_logged

#: Where the commands are, also in a shell of root's that was not a login.
_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
#: Seconds for one command; an initramfs of every kernel takes minutes on a slow host.
_PATIENCE = 1800.0
_READY = "This host is already prepared."
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.option(
    "--device",
    "-d",
    "devices",
    multiple=True,
    metavar="VENDOR:DEVICE",
    help="devices of this ID become vfio-pci's at boot, all of them; may be given several times",
)
@click.option("--apply", "apply_", is_flag=True, help="change the files and run the commands")
@click.option("--undo", is_flag=True, help="put everything back as it was before --apply")
@click.option(
    "--nvidia-softdep/--no-nvidia-softdep",
    "softdep",
    default=True,
    help="make nvidia, nouveau and others that would take the devices wait for vfio-pci "
    "[default: yes]",
)
@click.option("--force", is_flag=True, help="with --undo: also files changed by others since")
@root_option("prepare the system in this folder (a mounted image); its commands are only told")
@json_option
def prepare(
    devices: tuple[str, ...],
    apply_: bool,
    undo: bool,
    softdep: bool,
    force: bool,
    root: Path,
    as_json: bool,
) -> None:
    """Have devices taken by vfio-pci at boot: IOMMU on, modules loaded, IDs set.

    Without --apply it shows what would change and changes nothing: /etc/modules,
    /etc/default/grub, /etc/modules-load.d, /etc/modprobe.d, and the commands that make them count
    (update-grub and update-initramfs; grubby and dracut in the RHEL family). Only what is missing
    is added. Files as they were are kept, and --undo puts them back byte for byte.

    \b
    Examples:
      deepops-virtual gpu prepare --device 10de:1db1 --device 10de:1ac1
      sudo deepops-virtual gpu prepare --device 10de:1db1 --device 10de:1ac1 --apply
      sudo reboot
      sudo deepops-virtual gpu prepare --undo

    Stopped half-way, the same command goes on. In JSON 'changed' says whether this call changed
    anything; 'files' and 'commands' are what it did, or would do.
    """
    host = host_below(root)
    _check(host, devices, apply_, undo, force)
    runner = _run if host.is_this_host else None
    if undo:
        outcome = prepared.undo(host, run=runner, say=_say, force=force)
    else:
        outcome = prepared.proposal(host, devices, softdep=softdep)
        if apply_ and host.is_this_host:
            _check_programs(outcome.commands)
        if apply_:
            outcome = prepared.apply(host, devices, softdep=softdep, run=runner, say=_say)
    if as_json:
        click.echo(json.dumps(_as_data(outcome), indent=1))
        return
    _show(outcome)
    for line in _sentences(outcome, host, undo=undo, asked=apply_ or undo):
        click.echo(line)


def _check(host: Host, devices: tuple[str, ...], apply_: bool, undo: bool, force: bool) -> None:
    """Raise UsageProblem for words that do not go together."""
    if apply_ and undo:
        raise UsageProblem("--apply and --undo are opposites.", hint="give one of them")
    if undo and devices:
        raise UsageProblem(
            "--undo takes back the whole preparation, not single devices.",
            hint=host.reading("gpu prepare --undo"),
        )
    if force and not undo:
        raise UsageProblem("--force is for --undo only.", hint="leave it out")
    if not undo and not devices:
        raise UsageProblem(
            "No device was named.",
            hint=f"{host.reading('gpu prepare --device 10de:1db1')} "
            f"(IDs: {host.reading('gpu list')})",
        )


def _check_programs(commands: Iterable[Command]) -> None:
    for command in commands:
        if not shutil.which(command.argv[0], path=_PATH):
            raise UsageProblem(
                f"This host has no '{command.argv[0]}', which '{command.shown}' needs; nothing "
                "was changed.",
                hint=f"install the package that brings '{command.argv[0]}'",
            )


def _run(argv: tuple[str, ...], log: Path) -> int:
    """Run a command of the preparation. Raises DeepopsError when it cannot be started."""
    try:
        return run_logged(
            argv,
            log=log,
            deadline=Deadline.after(_PATIENCE),
            what=f"'{argv[0]}'",
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except OSError as error:
        raise DeepopsError(
            f"'{argv[0]}' cannot be started: {error.strerror}.",
            hint="mend that and run this again, or take it all back: "
            "deepops-virtual gpu prepare --undo",
        ) from error


def _say(text: str) -> None:
    click.echo(text, err=True)


def _as_data(outcome: Outcome) -> dict[str, Any]:
    return {
        "changed": outcome.changed,
        "files": [
            {"path": item.path, "diff": shown(item.diff), "action": item.action}
            for item in outcome.files
        ],
        "commands": [item.shown for item in outcome.commands],
        "reboot_due": outcome.reboot_due,
        "state": outcome.state,
        "notes": list(outcome.notes),
    }


def _show(outcome: Outcome) -> None:
    """Print the diffs, each with its reasons above it, then the notes."""
    coloured = colours_wanted(sys.stdout)
    for item in outcome.files:
        for reason in item.why:
            click.echo(f"# {reason}")
        for line in shown(item.diff).splitlines():
            colour = _COLOURS.get(line[:1]) if coloured else None
            click.echo(click.style(line, fg=colour) if colour else line)
        click.echo()
    for note in outcome.notes:
        click.echo(f"note: {note}", err=True)


def _sentences(outcome: Outcome, host: Host, *, undo: bool, asked: bool) -> list[str]:
    """Return what is said at the end: what was done, and what comes next."""
    here = host.is_this_host
    nothing = outcome.state != "partial" and not outcome.files and not outcome.commands
    if undo and not outcome.changed:
        return ["Nothing is prepared on this host, so there is nothing to take back."]
    if not undo and nothing:
        later = "Reboot for it to count: sudo reboot" if here else "It counts from the next boot."
        return [f"This host is already prepared. {later}" if outcome.reboot_due else _READY]
    found = []
    if outcome.commands and not (asked and here):
        what = "To run there" if asked else "Then these run"
        found += [f"{what}:", *(f"  {item.shown}    # {item.why}" for item in outcome.commands)]
    if not asked:
        begun = (
            "This host is half prepared; the rest is above. " if outcome.state == "partial" else ""
        )
        return [*found, f"{begun}Nothing was changed. To do it, add --apply (as root)."]
    done = "Everything is as it was before." if undo else "The host is prepared."
    again = "A reboot is due: sudo reboot" if here else "It counts from the next boot."
    return [*found, f"{done} {again}"]
