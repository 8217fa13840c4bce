"""Checkpoints: list, drop, gc."""

from __future__ import annotations

import json
from typing import Any

import click
import humanize
from rich.console import Console
from rich.table import Column, Table

from deepops_fixtures.cli.common import book, json_option, setting
from deepops_fixtures.cluster.checkpoints import Manifest, Store
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.settings import Settings


@click.group()
def checkpoint() -> None:
    """See and remove the checkpoints that later runs start from.

    A run takes one after each stage ('up', 'deployed') and the next run of the same cluster starts
    from it, as long as nothing that it was made from has changed.
    """


def _row(store: Store, item: Manifest) -> dict[str, Any]:
    users = store.users(item)
    return {
        "id": item.id,
        "cluster": item.spec.name,
        "instance": item.instance,
        "stage": item.stage,
        "parts": item.parts,
        "kind": item.kind,
        "nodes": list(item.spec.nodes),
        "age_seconds": round(item.age),
        "used_at": round(store.last_used(item)),
        "bytes": store.size([item]),
        "key": item.key,
        "used_by": users[0].name if users else "",
        "flaw": store.flaw(item),
    }


@checkpoint.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the checkpoints: stage, age, size, who uses one, and whether it can be trusted.

    Checkpoints of one instance share disks; the total counts those once.
    """
    settings = Settings.load()
    store = Store(book(settings))
    manifests = store.all()
    rows = [_row(store, item) for item in manifests]
    total = store.size(manifests)
    if as_json:
        data = {
            "checkpoints": rows,
            "bytes": total,
            "budget_bytes": settings.checkpoint_bytes,
            "set_aside": [{"id": name, "why": why} for name, why in store.rejected],
        }
        click.echo(json.dumps(data, indent=1))
        return
    for name, why in store.rejected:
        click.echo(f"{click.style('warning', fg='yellow')}: '{name}' was set aside: {why}.")
    if not rows:
        click.echo("No checkpoints. A run with --deepops-reuse auto (the default) takes them.")
        return
    first = Column("checkpoint", no_wrap=True)
    short = [Column(name, no_wrap=True) for name in ("stage", "age", "size")]
    state = Column("state", overflow="fold")
    table = Table(first, *short, state, box=None, pad_edge=False)
    for row, item in zip(rows, manifests, strict=True):
        what = f"in use by {row['used_by']}" if row["used_by"] else row["flaw"] or "ready"
        table.add_row(
            row["id"],
            item.told,
            humanize.naturaldelta(item.age),
            humanize.naturalsize(row["bytes"], binary=True),
            what,
        )
    Console().print(table)
    budget = humanize.naturalsize(settings.checkpoint_bytes, binary=True)
    click.echo(f"{humanize.naturalsize(total, binary=True)} of {budget} in all.")


def _ago(store: Store, item: Manifest) -> float:
    return max(0.0, item.age - (store.last_used(item) - item.created))


@checkpoint.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="every checkpoint that is not in use")
@json_option
def drop(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove checkpoints by name; one in use is refused."""
    if bool(names) == everything:
        raise UsageProblem("Give names, or --all.", hint="deepops-virtual checkpoint list")
    store = Store(book())
    with store.book.locked():
        if everything:
            chosen = [item for item in store.all() if not store.users(item)]
        else:
            chosen = [store.get(name) for name in names]
        left = [text for item in chosen for text in store.drop(item)]
    _tell(as_json, [item.id for item in chosen], left)


@checkpoint.command()
@setting("checkpoint_budget")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="also these")
@json_option
def gc(older_than: float | None, as_json: bool, **options: Any) -> None:
    """Remove what cannot be used any more: unfinished and unfit checkpoints, then the ones not
    used for longest until the rest fits into the budget. None in use is touched."""
    settings = Settings.load(options)
    store = Store(book(settings))
    with store.book.locked():
        for item in store.all():
            flaw = store.flaw(item)
            if flaw and not store.users(item):
                store.set_aside(item.id, flaw)
        gone = store.collect()
        old = [
            item
            for item in store.all()
            if older_than is not None
            and _ago(store, item) > older_than * 86400
            and not store.users(item)
        ]
        left = [text for item in old for text in store.drop(item)]
        gone += [item.id for item in old]
        gone += [item.id for item in store.make_room(settings.checkpoint_bytes)]
    _tell(as_json, gone, left)


def _tell(as_json: bool, gone: list[str], left: list[str]) -> None:
    if as_json:
        click.echo(json.dumps({"removed": gone, "left": left}))
    else:
        click.echo(f"Removed: {', '.join(gone)}." if gone else "Nothing to remove.")
        for text in left:
            click.echo(f"{click.style('error', fg='red')}: {text}", err=True)
    if left:
        raise SystemExit(1)
