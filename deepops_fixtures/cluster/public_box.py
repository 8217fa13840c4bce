"""Boxes that others make and Vagrant downloads: 'generic/ubuntu2204', 'almalinux/9'.

They are fetched before anything of a cluster is written down or created, so that a box that cannot
be had refuses the run. Not for the boxes that this project builds: see ``box``.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import vagrant
from deepops_fixtures import debian
from deepops_fixtures.cluster.vagrant_tool import error_sentence, user_home
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail

_NONE = "not here"
#: Seconds that a download may take: a box has one to three GB.
_DOWNLOAD = 3600.0


def can_be_public(name: str) -> bool:
    """Return whether Vagrant could download a box of this name: they are all 'OWNER/BOX'."""
    owner, slash, box = name.partition("/")
    return bool(owner and slash and box)


def known(name: str) -> bool:
    """Return whether Vagrant has the box for libvirt."""
    with suppress(subprocess.SubprocessError, OSError):
        listed = vagrant.Vagrant(quiet_stdout=False).box_list()
        return any(box.name == name and box.provider == "libvirt" for box in listed)
    return False


def versions(name: str) -> str:
    """Return the versions of a box that Vagrant has, in words, from its folder of boxes: another
    one there means other machines. Vagrant takes the highest."""
    folder = user_home() / "boxes" / name.replace("/", "-VAGRANTSLASH-")
    with suppress(OSError):
        return ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or _NONE
    return _NONE


def command(name: str) -> str:
    """Return what a user types to have Vagrant fetch a box."""
    return f"vagrant box add --provider libvirt {name}"


def ensure(name: str, cluster: str, cache: Path, journal: Journal) -> bool:
    """Have Vagrant download a box that it does not have; return whether it had to.

    Raises UsageProblem in Vagrant's own words, with the command to try again; nothing has been
    created by then.
    """
    if known(name):
        return False
    log = cache / "boxes" / f"{name.replace('/', '-')}-add.log"
    lock = log.with_suffix(".lock")
    with debian.one_at_a_time(lock, journal, "box", f"box '{name}'", _DOWNLOAD, UsageProblem):
        if known(name):
            return False
        log.unlink(missing_ok=True)
        with journal.step("box", f"Vagrant downloads box '{name}'", detail=str(log)):
            status = run_logged(
                command(name).split(),
                log=log,
                deadline=Deadline.after(_DOWNLOAD),
                what="'vagrant box add'",
            )
    if status != 0:
        raise UsageProblem(
            f"Box '{name}' of cluster '{cluster}' is not on this host, and Vagrant could not "
            f"download it: {error_sentence(log)}",
            detail=tail(log, 12),
            hint=f"{command(name)}   (from a file: vagrant box add --name {name} FILE.box)",
        )
    return True
