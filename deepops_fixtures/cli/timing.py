"""``deepops-virtual timing``: which tasks of a run's deployment took longer than before."""

from __future__ import annotations

import json

import click

from deepops_fixtures.cli.common import json_option, setting
from deepops_fixtures.deploy import timing as times
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.live import duration
from deepops_fixtures.settings import Settings

_COLOURS = {"slower": "red", "faster": "green"}


@click.command()
@click.argument("run", default="latest")
@click.argument("base", required=False)
@setting("reports")
@json_option
def timing(run: str, base: str | None, reports: str | None, as_json: bool) -> None:
    """Compare the times of a run's tasks with those of run BASE, else of the newest earlier run
    that deployed the same playbook to the same cluster. RUN and BASE are folders of reports, or
    their names.

    Listed are tasks that took 1.5 times as long and 5 s more, and the other way round.
    """
    folder = Settings.load({"reports": reports}).reports
    this = times.folder_of(run, folder)
    other = times.folder_of(base, folder) if base else None
    found = times.against_earlier(this, other)
    if not found:
        what = f"run '{other.name}'" if other else "an earlier run"
        raise UsageProblem(
            f"Nothing in {what} can be compared with run '{this.name}': cluster, accelerator, "
            "source, playbook and what was deployed before all have to be the same, and both "
            "have to have gone through.",
            hint="deepops-virtual timing RUN BASE, with another BASE",
        )
    if as_json:
        click.echo(json.dumps([item.model_dump() for item in found], indent=1))
        return
    for item in found:
        click.echo(item.verdict)
        for word, tasks in item.lists.items():
            for task in tasks:
                before, after = (
                    "-" if seconds is None else duration(seconds)
                    for seconds in (task.before, task.after)
                )
                coloured = click.style(word.ljust(6), fg=_COLOURS.get(word))
                where = f"  ({task.where})" if task.where else ""
                click.echo(
                    f"  {coloured} {before.rjust(10)} {after.rjust(10)}  {task.task}{where}"
                )
