"""``deepops-virtual impact``: what a branch of a DeepOps checkout has changed, and what that
reaches."""

from __future__ import annotations

from pathlib import Path

import click

from deepops_fixtures.cli.common import json_option
from deepops_fixtures.deepops import changes
from deepops_fixtures.deepops import impact as impacts
from deepops_fixtures.deepops.impact import Impact
from deepops_fixtures.errors import UsageProblem


@click.command()
@click.argument("ref")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="a DeepOps checkout [default: the one of this folder]",
)
@json_option
def impact(ref: str, source: Path | None, as_json: bool) -> None:
    """Say which playbooks are reached by what a branch has changed since REF: commits since it
    left REF, uncommitted changes and new files. Nothing is written to the checkout.

    pytest --deepops-changed-since REF runs the checks of these first.
    """
    tree = source.expanduser().absolute() if source else changes.top_of(Path.cwd())
    if tree is None or not (tree / "playbooks").is_dir():
        raise UsageProblem(
            f"'{tree or Path.cwd()}' is no DeepOps checkout: it has no playbooks.",
            hint="deepops-virtual impact REF --source PATH",
        )
    found = impacts.of(changes.since(tree, ref))
    click.echo(found.model_dump_json(indent=1) if as_json else "\n".join(_lines(found)))


def _lines(found: Impact) -> list[str]:
    """Return what a person reads."""
    if not found.files:
        return [f"Nothing has changed since {found.ref} ({found.base[:12]})."]
    count = len(found.files)
    lines = [
        f"{count} file{'s' if count > 1 else ''} changed since {found.ref} ({found.base[:12]}):"
    ]
    width = min(60, max(len(item.path) for item in found.files))
    for item in found.files:
        state = "" if item.state == "committed" else f" ({item.state})"
        lines.append(f"  {item.path.ljust(width)}  -> {item.told}{state}")
    if found.playbooks:
        lines.append(f"roles: {', '.join(found.roles) or 'none'}")
        lines.append(f"playbooks: {', '.join(found.playbooks)}")
    return lines
