"""What the doctor says: a verdict, the check that carries it, the report of all of them.

Data only; what is looked at is in the other modules of this room, the order of it in `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from deepops_fixtures.doctor.case import Case

Status = Literal["ok", "warn", "fail", "skip"]
#: What a question is about: the host as such, or handing GPUs through, which only some ask for.
About = Literal["host", "passthrough"]


@dataclass(frozen=True)
class Verdict:
    """The answer to one question: what was seen, and the one command or menu that mends it."""

    status: Status
    detail: str
    fix: str = ""


def ok(detail: str) -> Verdict:
    """Return the verdict that all is as it should be."""
    return Verdict("ok", detail)


def warn(detail: str, fix: str = "") -> Verdict:
    """Return the verdict that it works, but not as well, or not for long."""
    return Verdict("warn", detail, fix)


def fail(detail: str, fix: str) -> Verdict:
    """Return the verdict that it cannot work before this is mended."""
    return Verdict("fail", detail, fix)


def skip(detail: str) -> Verdict:
    """Return the verdict that there is nothing to look at, or no way to."""
    return Verdict("skip", detail)


@dataclass(frozen=True)
class Question:
    """One thing to look at, and what it depends on."""

    name: str
    look: Callable[[Case], Verdict]
    about: About = "host"
    #: Whether only the living host can answer it, and no saved tree.
    here: bool = False
    #: Whether it is asked before every run: it takes some hundredths of a second, and a run could
    #: not go on without. libvirt loads vfio-pci and moves devices to it, for one.
    preflight: bool = True


class Check(BaseModel):
    """One line of the report."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    detail: str
    fix: str = ""


class Report(BaseModel):
    """All checks, in the order in which they were made."""

    model_config = ConfigDict(frozen=True)

    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """The checks that keep this host from being ready."""
        return [check for check in self.checks if check.status == "fail"]

    @property
    def ok(self) -> bool:
        """Whether the host is ready; a warning does not keep it from being so."""
        return not self.failed

    def data(self) -> dict[str, object]:
        """Return what ``--json`` prints: 'ok', and 'checks' with name, status, detail, fix."""
        return {"ok": self.ok, "checks": [check.model_dump() for check in self.checks]}
