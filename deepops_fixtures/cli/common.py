"""What the commands share: options from the settings' table, progress, finding an instance."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from deepops_fixtures.cluster.ledger import Ledger, LedgerBook
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.live import Live, colours_wanted
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.settings import Settings, several

_F = TypeVar("_F", bound=Callable[..., Any])


def setting(name: str, short: str | None = None) -> Callable[[_F], _F]:
    """Return the option of a setting, its help text taken from the settings' table."""
    field = Settings.model_fields[name]
    words = [f"--{name.replace('_', '-')}", name] + ([short] if short else [])
    if field.annotation is bool:
        return click.option(*words, is_flag=True, default=None, help=field.description)
    if several(name):
        # Nothing given is no word on the matter, as for the other options.
        return click.option(
            *words, multiple=True, help=field.description, callback=lambda _c, _p, v: v or None
        )
    default = "" if field.default in (None, "") else f" [default: {field.default}]"
    return click.option(*words, default=None, help=f"{field.description}{default}")


json_option = click.option(
    "--json", "as_json", is_flag=True, help="print JSON for a script to read"
)


_TOP = "give --root the top folder of a host's files: sys, proc, etc, dev"


def root_option(what: str) -> Callable[[_F], _F]:
    """Return the option --root, with what is done to the host below that folder."""
    return click.option(
        "--root",
        type=click.Path(path_type=Path),
        default=Path("/"),
        metavar="DIR",
        help=f"{what} [default: this host]",
    )


def host_below(root: Path) -> Host:
    """Return the host whose files are in this folder. Raises UsageProblem."""
    if not root.is_dir():
        raise UsageProblem(f"Folder '{root}' not found.", hint=_TOP)
    return Host(root)


def saved_host(root: Path) -> Host:
    """Return the host that is read in this folder. Raises UsageProblem for what is none."""
    host = host_below(root)
    if not any((root / name).is_dir() for name in ("sys", "proc")):
        raise UsageProblem(
            f"'{root}' is not a host's files: there is neither 'sys' nor 'proc' in it.", hint=_TOP
        )
    return host


@contextmanager
def progress(path: Path) -> Iterator[None]:
    """Show the journal's events on stderr while something long runs."""
    live = Live(path, lambda line: click.echo(line, err=True), colour=colours_wanted(sys.stderr))
    live.start()
    try:
        yield
    finally:
        live.stop()


def book(settings: Settings | None = None) -> LedgerBook:
    """Return this user's ledgers."""
    return LedgerBook((settings or Settings.load()).state_dir)


def only(ledgers: LedgerBook, name: str | None) -> Ledger:
    """Return the instance of that name, or the only one there is. Raises UsageProblem."""
    if name:
        return ledgers.get(name)
    found = ledgers.all()
    if len(found) != 1:
        what = (
            "There is no cluster instance" if not found else "There are several cluster instances"
        )
        names = ", ".join(item.name for item in found)
        raise UsageProblem(
            f"{what}{': ' + names if names else ''}.",
            hint="deepops-virtual up" if not found else "name one of them",
        )
    return found[0]
