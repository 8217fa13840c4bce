"""The life of one cluster: up, deploy, test, ssh, destroy."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from deepops_fixtures import facts, resources, signals
from deepops_fixtures.cli.common import book, json_option, only, progress, setting
from deepops_fixtures.cluster import hypervisor, teardown
from deepops_fixtures.cluster.ledger import MARK, Ledger
from deepops_fixtures.cluster.vagrant_tool import environment
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.rehearsal import Rehearsal
from deepops_fixtures.settings import Settings
from deepops_fixtures.subject import new_run_dir


@click.command()
@setting("cluster")
@setting("box")
@setting("name")
@setting("parts")
@setting("airgap")
@setting("accelerator")
@setting("gpu")
@setting("gpu_hide_kvm")
@setting("gpu_wait")
@setting("reuse")
@setting("checkpoint_budget")
@setting("wait")
@setting("up_timeout")
@setting("boot_timeout")
@setting("reports")
@click.option("--keep-failed", is_flag=True, help="keep machines that did not come up, to look at")
@json_option
def up(as_json: bool, keep_failed: bool, **options: Any) -> None:
    """Bring a cluster's virtual machines up and leave them running."""
    settings = Settings.load({**options, "keep": "failed" if keep_failed else "never"})
    if settings.existing:
        raise UsageProblem(
            f"What '{settings.existing}' describes is not ours to bring up.",
            hint="bring it up yourself and check it with pytest; or name a cluster: --cluster",
        )
    for text in settings.chosen_by:
        click.echo(f"DeepOps' variables: {text}", err=True)
    run_dir = new_run_dir(settings)
    rehearsal = Rehearsal(settings, run_dir, kept=True)
    rehearsal.preflight()
    run_dir.mkdir(parents=True)
    with progress(rehearsal.journal.path):
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
        parts = f" --parts {settings.parts}" if settings.parts else ""
        click.echo(
            f"Cluster '{running.name}' is up: {', '.join(node.name for node in running.nodes)} "
            f"({running.accelerator}).\nNext: deepops-virtual deploy {running.name}{parts}"
        )


@click.command()
@click.argument("name", required=False)
@setting("source")
@setting("repository")
@setting("playbook")
@setting("tags")
@setting("limit")
@setting("extra_vars")
@setting("parts")
@setting("idempotence")
@setting("deploy_timeout")
@setting("reports")
def deploy(name: str | None, **options: Any) -> None:
    """Apply DeepOps to a cluster that is up: all parts that its file names, or some of them."""
    ledger = only(book(), name)
    settings = Settings.load({**options, "attach": ledger.name})
    run_dir = new_run_dir(settings)
    rehearsal = Rehearsal(settings, run_dir)
    rehearsal.preflight()
    run_dir.mkdir(parents=True)
    with progress(rehearsal.journal.path):
        rehearsal.deploy_again()
    after = rehearsal.book.get(ledger.name)
    parts = ", ".join(
        f"{part} ({', '.join(after.pieces[part]) or 'no piece that is checked'})"
        if part in after.pieces
        else part
        for part in after.parts
    )
    for source in rehearsal.sources()[:1]:
        if source.driving:
            click.echo(f"DeepOps: {source.driving.checkout.provenance}.")
    click.echo(
        f"Cluster '{ledger.name}' is deployed: {parts}.\nNext: deepops-virtual test {ledger.name}"
    )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(name: str | None, pytest_arguments: tuple[str, ...]) -> None:
    """Run the checks against a cluster that is up; it is left running.

    Without a path or a marker these are the checks of what is deployed on it. What follows NAME
    goes to pytest: deepops-virtual test NAME -m slurm -x
    """
    ledger = only(book(), name)
    ours: list[str] = []
    if not any(Path(word).exists() for word in pytest_arguments):
        # A part that is named is deployed where it is missing.
        chosen = any(word.startswith("-m") for word in pytest_arguments)
        paths = resources.checks(facts.PARTS if chosen or not ledger.parts else ledger.parts)
        # Modules of two folders have one name, and beside an installed package no ini file.
        ours = ["--import-mode=importlib", *map(str, paths)]
    command = [sys.executable, "-m", "pytest", "--deepops-attach", ledger.name, *pytest_arguments]
    os.execv(sys.executable, [*command, *ours])


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, node: str, command: tuple[str, ...]) -> None:
    """Log in to a node of a cluster, or run a command on it."""
    ledgers = book()
    ledger = ledgers.get(name)
    if node not in ledger.spec.nodes:
        raise UsageProblem(
            f"Cluster '{name}' has no node '{node}'; it has {', '.join(ledger.spec.nodes)}.",
            hint=f"deepops-virtual ssh {name} {next(iter(ledger.spec.nodes))}",
        )
    if hypervisor.domain_states(ledger)[node] != "running":
        raise UsageProblem(f"Node '{node}' does not run.", hint="deepops-virtual status")
    config = ledgers.path(name) / "ssh_config"
    if not config.exists():
        raise UsageProblem(f"Cluster '{name}' is not up yet.", hint="deepops-virtual status")
    os.execvp("ssh", ["ssh", "-F", str(config), node, *command])


@click.command()
@click.argument("name", required=False)
def env(name: str | None) -> None:
    """Print the variables that point Vagrant at a cluster's machines, for a shell to read.

    \b
      eval "$(deepops-virtual env NAME)"
      vagrant status
    """
    ledgers = book()
    ledger = only(ledgers, name)
    variables = environment(ledger, ledgers)
    # A shell that has it would count as one of the cluster's own processes, and end with it.
    variables.pop(MARK)
    for key, value in variables.items():
        click.echo(f"export {key}={shlex.quote(value)}")


def destroy_instance(settings: Settings, ledger: Ledger) -> None:
    """Destroy an instance and audit. Raises UsageProblem while another process works with it,
    LeakError when something is left."""
    if ledger.owner.alive and not ledger.kept and ledger.owner.pid != os.getpid():
        raise UsageProblem(
            f"Cluster '{ledger.name}' belongs to process {ledger.owner.pid}, which still runs.",
            hint=f"end it first: kill -TERM {ledger.owner.pid}   (it tears its cluster down)",
        )
    folder = settings.state_dir / "destroyed"
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / f"{ledger.name}.jsonl")
    journal.path.unlink(missing_ok=True)
    with progress(journal.path):
        teardown.destroy_left(ledger, book(settings), journal)


@click.command()
@click.argument("name", required=False)
def destroy(name: str | None) -> None:
    """Destroy a cluster instance: exactly what its ledger names, then an audit."""
    settings = Settings.load()
    ledger = only(book(settings), name)
    destroy_instance(settings, ledger)
    click.echo(f"Cluster '{ledger.name}' is gone.")


COMMANDS = (up, deploy, test, ssh, env, destroy)
