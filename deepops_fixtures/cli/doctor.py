"""Whether this host is ready: every check on a line, and what mends the failing ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from deepops_fixtures.cli.common import json_option, root_option, saved_host, setting
from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.gpus import requested
from deepops_fixtures.doctor import run
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Check, Report
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.settings import Settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_WIDTH = max(len(question.name) for question in run.QUESTIONS)


@click.command()
@setting("cluster")
@setting("box")
@setting("gpu")
@root_option("look at the files of another host, saved below DIR: sys, proc, etc, dev")
@json_option
def doctor(root: Path, as_json: bool, **options: Any) -> None:
    """Say whether this host is ready for a cluster, and what mends it where it is not.

    \b
    Examples:
      deepops-virtual doctor                         this host, the default cluster
      deepops-virtual doctor --gpu auto              with one GPU for each GPU node
      deepops-virtual doctor --gpu 08:00.0,0a:00.0   with these two GPUs
      deepops-virtual doctor --root /tmp/dump --gpu 10de:1db1 --json
                                                     another host, by its saved files

    Without --gpu the checks of GPU passthrough only warn: a cluster without GPUs needs none of it.

    Exit status: 0 ready, 1 not ready, 2 the question itself is wrong. A warning does not keep a
    host from being ready. What mends passthrough: deepops-virtual gpu prepare.
    """
    settings = Settings.load(options)
    asked = requested(settings)
    host = saved_host(root)
    _read(host, needed=bool(asked))
    case = Case(host, settings, topology.load(settings.cluster, settings.box), asked)
    checks = []
    for check in run.examine(case):
        checks.append(check)
        if not as_json:
            click.echo(_line(check))
    report = Report(checks=checks)
    if as_json:
        click.echo(json.dumps(report.data(), indent=1))
    else:
        _conclude(report, case)
    if not report.ok:
        sys.exit(1)


def _read(host: Host, *, needed: bool) -> None:
    """Read the devices, so that malformed files are refused before anything is said, and missing
    ones where the question is about GPUs. Raises UsageProblem."""
    if needed or host.has_devices:
        _ = host.devices


def _line(check: Check) -> str:
    word = click.style(check.status.ljust(4), fg=_COLOURS[check.status])
    return f"{word}  {check.name.ljust(_WIDTH)}  {check.detail}"


def _conclude(report: Report, case: Case) -> None:
    """Tell what mends the failing checks and the warnings, then the conclusion in a sentence."""
    here = case.host.is_this_host
    for title, status in (("To mend:", "fail"), ("Not in the way, and may be mended:", "warn")):
        fixes: dict[str, list[str]] = {}
        for check in report.checks:
            if check.status == status and check.fix:
                fixes.setdefault(check.fix, []).append(check.name)
        if fixes:
            click.echo(f"\n{click.style(title, bold=True)}")
        for fix, names in fixes.items():
            # What root types changes a host, and a saved tree is none.
            there = "on that host: " if fix.startswith("sudo ") and not here else ""
            click.echo(f"  {', '.join(names)}:\n    {there}{fix}")
    this = "This host" if here else f"The host in '{case.host.root}'"
    count = len(report.failed)
    if count:
        verb = "check fails" if count == 1 else "checks fail"
        click.echo(f"\n{this} is not ready: {count} {verb}.")
        return
    with_gpus = f" with GPUs ('{case.asked.text}')" if case.asked else ""
    cluster = case.spec.name if case.spec else ""
    limit = "" if here else ", as far as its files tell"
    click.echo(f"\n{this} is ready for cluster '{cluster}'{with_gpus}{limit}.")
