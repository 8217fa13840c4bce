"""``deepops-virtual``: the same rehearsal from a shell. One small function a command; the work is
elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import humanize
from rich.console import Console
from rich.table import Table

from deepops_fixtures import __version__, resources, signals
from deepops_fixtures.cluster import base_image, hypervisor, teardown, topology
from deepops_fixtures.cluster import box as boxes
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, age
from deepops_fixtures.cluster.providers.vagrant import choose_accelerator
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.live import Live, colours_wanted
from deepops_fixtures.proc import Deadline
from deepops_fixtures.rehearsal import Rehearsal, new_run_dir
from deepops_fixtures.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])


def setting(name: str, short: str | None = None) -> Callable[[_F], _F]:
    """Return the option of a setting, its help text taken from the settings' table."""
    field = Settings.model_fields[name]
    words = [f"--{name.replace('_', '-')}", name] + ([short] if short else [])
    if field.annotation is bool:
        return click.option(*words, is_flag=True, default=None, help=field.description)
    default = "" if field.default in (None, "") else f" [default: {field.default}]"
    return click.option(*words, default=None, help=f"{field.description}{default}")


json_option = click.option(
    "--json", "as_json", is_flag=True, help="print JSON for a script to read"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="deepops-virtual")
def cli() -> None:
    """Rehearse a DeepOps cluster on virtual machines of this host.

    \b
    A first session:
      deepops-virtual up                    three virtual machines, no deployment
      deepops-virtual deploy NAME           Slurm on them, as DeepOps lays it out
      deepops-virtual test NAME             the checks; the cluster is left running
      deepops-virtual ssh NAME virtual-login
      deepops-virtual destroy NAME

    Every setting may also be a DEEPOPS_* variable. Exit status: 0 done, 1 failed, 2 refused
    (nothing was created), 128+n ended by signal n.
    """


@contextmanager
def _progress(path: Path) -> Iterator[None]:
    """Show the journal's events on stderr while something long runs."""
    live = Live(path, lambda line: click.echo(line, err=True), colour=colours_wanted(sys.stderr))
    live.start()
    try:
        yield
    finally:
        live.stop()


def _book(settings: Settings | None = None) -> LedgerBook:
    return LedgerBook((settings or Settings.load()).state_dir)


def _only(book: LedgerBook, name: str | None) -> Ledger:
    """Return the instance of that name, or the only one there is. Raises UsageProblem."""
    if name:
        return book.get(name)
    ledgers = book.all()
    if len(ledgers) != 1:
        what = (
            "There is no cluster instance"
            if not ledgers
            else "There are several cluster instances"
        )
        names = ", ".join(item.name for item in ledgers)
        raise UsageProblem(
            f"{what}{': ' + names if names else ''}.",
            hint="deepops-virtual up" if not ledgers else "name one of them",
        )
    return ledgers[0]


@cli.command()
@setting("cluster")
@setting("name")
@setting("accelerator")
@setting("up_timeout")
@setting("boot_timeout")
@setting("reports")
@click.option("--keep-failed", is_flag=True, help="keep machines that did not come up, to look at")
@json_option
def up(as_json: bool, keep_failed: bool, **options: Any) -> None:
    """Bring a cluster's virtual machines up and leave them running."""
    settings = Settings.load({**options, "keep": "failed" if keep_failed else "never"})
    run_dir = new_run_dir(settings)
    rehearsal = Rehearsal(settings, run_dir, kept=True)
    rehearsal.preflight()
    run_dir.mkdir(parents=True)
    with _progress(rehearsal.journal.path):
        try:
            running = rehearsal.ensure_up()
        except BaseException:
            with signals.teardown():
                kept = rehearsal.down(failed=True)
            if kept:
                click.echo(f"Kept: {kept}. Next: deepops-virtual destroy {kept}", err=True)
            raise
    if as_json:
        click.echo(running.model_dump_json(indent=1))
    else:
        click.echo(
            f"Cluster '{running.name}' is up: {', '.join(node.name for node in running.nodes)} "
            f"({running.accelerator}).\nNext: deepops-virtual deploy {running.name}"
        )


@cli.command()
@click.argument("name", required=False)
@setting("source")
@setting("idempotence")
@setting("deploy_timeout")
@setting("reports")
def deploy(name: str | None, **options: Any) -> None:
    """Apply DeepOps to a cluster that is up."""
    ledger = _only(_book(), name)
    settings = Settings.load({**options, "attach": ledger.name})
    run_dir = new_run_dir(settings)
    rehearsal = Rehearsal(settings, run_dir)
    rehearsal.preflight()
    run_dir.mkdir(parents=True)
    with _progress(rehearsal.journal.path):
        rehearsal.deploy_again()
    click.echo(f"Cluster '{ledger.name}' is deployed.\nNext: deepops-virtual test {ledger.name}")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(name: str | None, pytest_arguments: tuple[str, ...]) -> None:
    """Run the checks against a cluster that is up; it is left running.

    What follows NAME goes to pytest: deepops-virtual test NAME -m slurm -x
    """
    ledger = _only(_book(), name)
    paths = [] if any(Path(word).exists() for word in pytest_arguments) else resources.checks()
    command = [sys.executable, "-m", "pytest", "--deepops-attach", ledger.name, *pytest_arguments]
    os.execv(sys.executable, [*command, *map(str, paths)])


def _status_of(ledger: Ledger) -> dict[str, Any]:
    states = hypervisor.domain_states(ledger)
    addresses = hypervisor.addresses(ledger)
    return {
        "name": ledger.name,
        "cluster": ledger.spec.name,
        "state": ledger.state,
        "kept": ledger.kept,
        "owner": {"pid": ledger.owner.pid, "user": ledger.owner.user, "alive": ledger.owner.alive},
        "age_seconds": round(age(ledger)),
        "run": str(ledger.run_dir),
        "subnets": ledger.subnets,
        "nodes": {
            node: {"state": state, "address": addresses.get(node, "")}
            for node, state in states.items()
        },
    }


@cli.command()
@json_option
def status(as_json: bool) -> None:
    """Show the cluster instances of this user, and the accelerator new ones would get."""
    settings = Settings.load()
    verdict = choose_accelerator(settings)
    instances = [_status_of(ledger) for ledger in _book(settings).all()]
    if as_json:
        click.echo(
            json.dumps({"accelerator": verdict.model_dump(), "instances": instances}, indent=1)
        )
        return
    click.echo(f"accelerator: {verdict}")
    if not instances:
        click.echo("No cluster instances. Next: deepops-virtual up")
        return
    table = Table("instance", "state", "age", "owner", "nodes")
    for item in instances:
        owner = "kept" if item["kept"] else ("running" if item["owner"]["alive"] else "GONE")
        nodes = "\n".join(f"{k}  {v['state']}  {v['address']}" for k, v in item["nodes"].items())
        table.add_row(
            item["name"], item["state"], humanize.naturaldelta(item["age_seconds"]), owner, nodes
        )
    Console().print(table)
    if any(not item["kept"] and not item["owner"]["alive"] for item in instances):
        click.echo("An owner is gone. Next: deepops-virtual clean")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, node: str, command: tuple[str, ...]) -> None:
    """Log in to a node of a cluster, or run a command on it."""
    book = _book()
    ledger = book.get(name)
    if node not in ledger.spec.nodes:
        raise UsageProblem(
            f"Cluster '{name}' has no node '{node}'; it has {', '.join(ledger.spec.nodes)}.",
            hint=f"deepops-virtual ssh {name} {next(iter(ledger.spec.nodes))}",
        )
    if hypervisor.domain_states(ledger)[node] != "running":
        raise UsageProblem(f"Node '{node}' does not run.", hint="deepops-virtual status")
    config = book.path(name) / "ssh_config"
    if not config.exists():
        raise UsageProblem(f"Cluster '{name}' is not up yet.", hint="deepops-virtual status")
    os.execvp("ssh", ["ssh", "-F", str(config), node, *command])


def _destroy(settings: Settings, ledger: Ledger) -> None:
    if ledger.owner.alive and not ledger.kept and ledger.owner.pid != os.getpid():
        raise UsageProblem(
            f"Cluster '{ledger.name}' belongs to process {ledger.owner.pid}, which still runs.",
            hint=f"end it first: kill -TERM {ledger.owner.pid}   (it tears its cluster down)",
        )
    folder = settings.state_dir / "destroyed"
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / f"{ledger.name}.jsonl")
    journal.path.unlink(missing_ok=True)
    with _progress(journal.path):
        teardown.destroy(
            ledger.name,
            _book(settings),
            journal,
            folder / f"{ledger.name}.log",
            Deadline.after(settings.down_timeout),
        )


@cli.command()
@click.argument("name", required=False)
@setting("down_timeout")
def destroy(name: str | None, **options: Any) -> None:
    """Destroy a cluster instance: exactly what its ledger names, then an audit."""
    settings = Settings.load(options)
    ledger = _only(_book(settings), name)
    _destroy(settings, ledger)
    click.echo(f"Cluster '{ledger.name}' is gone.")


@cli.command()
@click.option("--all", "everything", is_flag=True, help="also instances that were kept on purpose")
@click.option("--dry-run", is_flag=True, help="say what would be destroyed and change nothing")
@json_option
def clean(everything: bool, dry_run: bool, as_json: bool) -> None:
    """Destroy the instances whose owner is gone (a run that was killed)."""
    settings = Settings.load()
    book = _book(settings)
    victims = [
        item for item in book.all() if not item.owner.alive and (everything or not item.kept)
    ]
    if not dry_run:
        for ledger in victims:
            _destroy(settings, ledger)
    names = [ledger.name for ledger in victims]
    if as_json:
        click.echo(json.dumps({"destroyed" if not dry_run else "would_destroy": names}))
    else:
        verb = "Would destroy" if dry_run else "Destroyed"
        click.echo(f"{verb}: {', '.join(names)}." if names else "Nothing to clean.")


@cli.group()
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
    with _progress(journal.path):
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
    base_image.remove(made)
    made.remove()
    click.echo(f"Box '{name}' is forgotten; it is built anew when it is needed.")


@cli.command()
@json_option
def clusters(as_json: bool) -> None:
    """List the clusters that come with the project; --json shows their nodes."""
    specs = [topology.load(name) for name in topology.available()]
    if as_json:
        click.echo(json.dumps([spec.model_dump() for spec in specs], indent=1))
        return
    table = Table("cluster", "nodes", "memory", "disk up to", "deployment", "description")
    for spec in specs:
        table.add_row(
            spec.name,
            "\n".join(spec.nodes),
            humanize.naturalsize(spec.memory * 2**20, binary=True),
            f"{spec.disk} GiB",
            spec.deployment,
            spec.description,
        )
    Console().print(table)


def main() -> None:
    """Run the command line; every error a user can meet ends as a message and an exit status."""
    signals.install()
    try:
        cli.main(standalone_mode=False)
    except DeepopsError as error:
        click.echo(f"{click.style('error', fg='red')}: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except signals.Ended as error:
        click.echo(f"{error}", err=True)
        sys.exit(error.status)
    except subprocess.SubprocessError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
