"""The exceptions a user can meet.

Each says what happened, on which node where there is one, and what to do next. Nothing below this
package's public surface may reach a user as a bare ``CalledProcessError`` or a traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence


class DeepopsError(Exception):
    """Something the harness could not do.

    ``message`` is one or more whole sentences; ``hint`` is the next command to type or thing to
    change; ``detail`` is evidence (the end of a log, a serial console) shown below both.
    """

    #: Process exit status of the command line when this error ends it.
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail:
            parts.append("\n".join(f"  | {line}" for line in self.detail.rstrip().splitlines()))
        if self.hint:
            parts.append(f"Next: {self.hint}")
        return "\n".join(parts)


class UsageProblem(DeepopsError):
    """The request itself cannot be carried out; nothing was created (exit status 2)."""

    exit_code = 2


class BoxError(DeepopsError):
    """A Vagrant box could not be built or registered."""


class ArtifactError(DeepopsError):
    """What a deployment needs from this host's cache is not there or could not be built."""


class ProvisionError(DeepopsError):
    """A virtual machine or network could not be created, started or reached."""


class DeployError(DeepopsError):
    """A playbook failed, or a second run of it changed something it should not."""


class StepTimeout(DeepopsError):
    """A step passed its deadline; the message names the condition that was waited for."""


class LeakError(DeepopsError):
    """Something this run created is still there after teardown."""


class StageFailed(DeepopsError):
    """An earlier stage of this run failed already; its first failure carries the cause."""


class CheckFailed(AssertionError):
    """A statement about the cluster is false; the message carries the evidence."""


def some(items: Sequence[object], most: int = 4) -> str:
    """Return a list as a message tells it, of which only the beginning is shown.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def of_system(error: OSError) -> DeepopsError:
    """Return what a user is told of a refusal by the operating system: what, where, what next."""
    path = error.filename
    what = error.strerror or str(error) or type(error).__name__
    if path is None or isinstance(path, int):
        return DeepopsError(f"{what}.", hint="look at this host: df -h, ulimit -a")
    look = f"df -h {path}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"ls -ld {path}"
    who = f" for user {os.geteuid()}" if error.errno in (errno.EACCES, errno.EPERM) else ""
    return DeepopsError(f"'{path}': {what}{who}.", hint=look)
