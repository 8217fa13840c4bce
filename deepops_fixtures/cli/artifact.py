"""Artifacts: build, list, remove."""

from __future__ import annotations

import json

import click
import humanize

from deepops_fixtures.cli.common import json_option, progress
from deepops_fixtures.deploy import artifacts
from deepops_fixtures.deploy.artifacts import Artifact
from deepops_fixtures.journal import Journal
from deepops_fixtures.settings import Settings


@click.group()
def artifact() -> None:
    """Build, list and remove what deployments take from this host: Kubernetes' programs and
    images, a store of packages."""


@artifact.command("build")
@click.argument("name", default=artifacts.KUBERNETES)
def artifact_build(name: str) -> None:
    """Build an artifact unless it is cached; the log lies beside it."""
    settings = Settings.load()
    made = Artifact(name, settings.cache_dir)
    journal = Journal(made.cache / f"{name}-build.jsonl")
    there = made.built
    if not there:
        journal.path.unlink(missing_ok=True)
        with progress(journal.path):
            made.ensure(journal)
    size = humanize.naturalsize(made.size, binary=True)
    click.echo(
        f"Artifact '{name}' was {'there already' if there else 'built'}: {made.path} ({size})"
    )


@artifact.command("list")
@json_option
def artifact_list(as_json: bool) -> None:
    """List the artifacts: recipe, whether it is built, its size."""
    cache = Settings.load().cache_dir
    known = [Artifact(name, cache) for name in artifacts.available()]
    if as_json:
        rows = [
            {
                "name": made.name,
                "about": made.recipe.about,
                "key": made.key[:16],
                "built": made.built,
                "bytes": made.size,
                "path": str(made.path),
            }
            for made in known
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    for made in known:
        state = humanize.naturalsize(made.size, binary=True) if made.built else "not built"
        click.echo(f"{made.name}  {state}  {made.recipe.about}")


@artifact.command("remove")
@click.argument("name")
def artifact_remove(name: str) -> None:
    """Forget every cached build of an artifact."""
    gone = Artifact(name, Settings.load().cache_dir).remove()
    click.echo(
        f"Artifact '{name}' is forgotten ({len(gone)} builds); it is built anew when it is needed."
    )
