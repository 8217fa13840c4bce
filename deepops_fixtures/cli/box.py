"""Boxes: build, list, remove."""

from __future__ import annotations

import json

import click

from deepops_fixtures.cli.common import book, json_option, progress
from deepops_fixtures.cluster import base_image
from deepops_fixtures.cluster import box as boxes
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.journal import Journal
from deepops_fixtures.settings import Settings


@click.group()
def box() -> None:
    """Build, list and remove the boxes that the project makes itself."""


@box.command("build")
@click.argument("name", default="debian12")
def box_build(name: str) -> None:
    """Build a box from packages unless it is cached, and register it with Vagrant."""
    settings = Settings.load()
    made = Box(name, settings.cache_dir)
    journal = Journal(settings.cache_dir / "boxes" / f"{name}-build.jsonl")
    journal.path.unlink(missing_ok=True)
    with progress(journal.path):
        built = made.ensure(journal)
    click.echo(f"Box '{name}' was {'built' if built else 'there already'}: {made.path}")


@box.command("list")
@json_option
def box_list(as_json: bool) -> None:
    """List the boxes: recipe, whether it is built, its version."""
    settings = Settings.load()
    rows = []
    for name in boxes.available():
        made = Box(name, settings.cache_dir)
        rows.append(
            {
                "name": name,
                "version": made.version,
                "built": made.path.is_file(),
                "path": str(made.path),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']}  {row['version']}  {'built' if row['built'] else 'not built'}")


@box.command("remove")
@click.argument("name")
def box_remove(name: str) -> None:
    """Forget every cached build of a box, in the cache, in Vagrant's list and in libvirt's
    pool."""
    settings = Settings.load()
    made = Box(name, settings.cache_dir)
    base_image.remove(made, Store(book(settings)).bases())
    made.remove()
    click.echo(f"Box '{name}' is forgotten; it is built anew when it is needed.")
