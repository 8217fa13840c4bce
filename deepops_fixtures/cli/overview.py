"""What there is on this host: clusters known to a ledger, cluster files; and cleaning up."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import humanize
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from deepops_fixtures.cli.common import book, json_option
from deepops_fixtures.cli.life import destroy_instance
from deepops_fixtures.cluster import hypervisor, topology, volumes
from deepops_fixtures.cluster.accelerator import choose_accelerator
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, age
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.settings import Settings


def _status_of(ledger: Ledger, ledgers: LedgerBook) -> dict[str, Any]:
    states = hypervisor.domain_states(ledger)
    addresses = {lease.node: lease.address for lease in ledger.leases}
    with hypervisor.connect() as connection:
        disks = volumes.signatures(connection, ledger.pool, Store(ledgers).own_volumes(ledger))
    return {
        "name": ledger.name,
        "cluster": ledger.spec.name,
        "state": ledger.state,
        "parts": ledger.parts,
        "airgap": ledger.airgap,
        "kept": ledger.kept,
        "abandoned": ledger.abandoned,
        "owner": {"pid": ledger.owner.pid, "user": ledger.owner.user, "alive": ledger.owner.alive},
        "age_seconds": round(age(ledger)),
        "memory_bytes": hypervisor.memory_of(ledger.name),
        "disk_bytes": sum(item.allocation for item in disks.values()),
        "checkpoint": ledger.checkpoint,
        "run": str(ledger.run_dir),
        "subnets": ledger.subnets,
        "nodes": {
            node: {
                "state": state,
                "address": addresses.get(node, ""),
                "devices": [str(device) for device in ledger.gpus.get(node, [])],
            }
            for node, state in states.items()
        },
    }


def _described(item: dict[str, Any]) -> str:
    """Return the lines that tell a person of one instance."""
    pid = item["owner"]["pid"]
    if item["abandoned"]:
        owner = click.style(f"ABANDONED, its process {pid} is gone", fg="yellow")
    else:
        alive = f"process {pid}" if item["owner"]["alive"] else ""
        owner = ", ".join(text for text in ("kept" if item["kept"] else "", alive) if text)
    memory, disk = (
        humanize.naturalsize(item[name], binary=True) for name in ("memory_bytes", "disk_bytes")
    )
    age = humanize.naturaldelta(item["age_seconds"])
    parts = f" ({', '.join(item['parts'])})" if item["parts"] else ""
    air = ", airgapped" if item["airgap"] else ""
    lines = [
        f"{click.style(item['name'], bold=True)}: {item['state']}{parts}{air}, {owner}",
        f"  {age} old, {memory} of memory, {disk} of disk",
    ]
    width = max(map(len, item["nodes"]))
    for name, node in item["nodes"].items():
        lines.append(f"  {name.ljust(width)}  {node['state'].ljust(8)}  {node['address']}")
        lines += [f"  {' ' * width}  has {device}" for device in node["devices"]]
    return "\n".join(lines)


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show every cluster of yours on this host, whose it is, what it takes, and the accelerator
    new ones would get."""
    settings = Settings.load()
    verdict = choose_accelerator(settings)
    ledgers = book(settings)
    instances = [_status_of(ledger, ledgers) for ledger in ledgers.all()]
    if as_json:
        data = {
            "accelerator": verdict.model_dump(),
            "instances": instances,
            "unreadable": ledgers.rejected,
        }
        click.echo(json.dumps(data, indent=1))
        return
    click.echo(f"accelerator: {verdict}")
    for text in ledgers.rejected:
        click.echo(f"{click.style('warning', fg='yellow')}: {text}", err=True)
    if not instances:
        click.echo("No cluster instances. Next: deepops-virtual up")
        return
    for item in instances:
        click.echo(_described(item))
    if any(item["abandoned"] for item in instances):
        click.echo("The process of a cluster is gone. Next: deepops-virtual clean")


@click.command()
@click.option("--all", "everything", is_flag=True, help="also clusters that were kept; asks first")
@click.option("--yes", "-y", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="say what would be destroyed and change nothing")
@json_option
def clean(everything: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Destroy the clusters whose process is gone (a run that was killed), and what a killed run
    left of a checkpoint. Clusters that somebody runs or keeps are left alone."""
    settings = Settings.load()
    ledgers = book(settings)
    victims = [
        item
        for item in ledgers.all()
        if item.abandoned or (everything and item.kept and not item.owner.alive)
    ]
    names = [ledger.name for ledger in victims]
    kept = [ledger.name for ledger in victims if not ledger.abandoned]
    if kept and not yes and not dry_run:
        if as_json or not sys.stdin.isatty():
            raise UsageProblem(
                f"'--all' would destroy clusters that were kept: {', '.join(kept)}.",
                hint="deepops-virtual clean --all --yes",
            )
        click.confirm(f"Destroy {', '.join(names)}, kept ones among them?", abort=True, err=True)
    failed = [] if dry_run else _destroy_all(settings, victims)
    collected = [] if dry_run else _collect(ledgers)
    done = [name for name in names if name not in failed]
    if as_json:
        word = "would_destroy" if dry_run else "destroyed"
        click.echo(json.dumps({word: done, "failed": failed, "collected": collected}))
    else:
        verb = "Would destroy" if dry_run else "Destroyed"
        if done or not (collected or failed):
            click.echo(f"{verb}: {', '.join(done)}." if done else "Nothing to clean.")
        if collected:
            click.echo(f"Unfinished or unfit checkpoints removed: {', '.join(collected)}.")
    for text in ledgers.rejected:
        click.echo(f"{click.style('warning', fg='yellow')}: {text}", err=True)
    if failed:
        raise SystemExit(1)


def _collect(ledgers: LedgerBook) -> list[str]:
    """Remove what a killed process left of a ledger or a checkpoint; not of one whose taking
    begins now."""
    with ledgers.locked():
        ledgers.collect()
        return Store(ledgers).collect()


def _destroy_all(settings: Settings, victims: list[Ledger]) -> list[str]:
    """Destroy these; one that resists keeps none of the others. Return the names of those."""
    failed = []
    for ledger in victims:
        try:
            destroy_instance(settings, ledger)
        except DeepopsError as error:
            click.echo(f"{click.style('error', fg='red')}: {error}", err=True)
            failed.append(ledger.name)
    return failed


@click.command()
@json_option
def clusters(as_json: bool) -> None:
    """List the clusters that come with the project; --json shows their nodes."""
    specs = [topology.load(name) for name in topology.available()]
    if as_json:
        click.echo(json.dumps([spec.model_dump() for spec in specs], indent=1))
        return
    # Three columns of two lines and more, so that a terminal of 80 columns has room for them.
    whole = [Column(name, no_wrap=True) for name in ("cluster\ndeployed on it", "takes up to")]
    table = Table(*whole, "what it is\nits nodes", show_lines=True)
    for spec in specs:
        memory = humanize.naturalsize(spec.memory * 2**20, binary=True)
        table.add_row(
            f"[bold]{escape(spec.name)}[/]\n{', '.join(spec.deployment) or 'nothing'}",
            f"{memory} of memory\n{spec.disk} GiB of disk",
            escape(f"{spec.description}\n{', '.join(spec.nodes)}"),
        )
    Console().print(table)


COMMANDS = (status, clean, clusters)
