"""``deepops-virtual``: the same rehearsal from a shell. One small function a command; the work is
elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys

import click

from deepops_fixtures import __version__, signals
from deepops_fixtures.cli import (
    artifact,
    box,
    checkpoint,
    doctor,
    gpu,
    gpu_prepare,
    impact,
    life,
    overview,
    timing,
)
from deepops_fixtures.errors import DeepopsError, of_system


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


for command in (
    *life.COMMANDS,
    *overview.COMMANDS,
    checkpoint.checkpoint,
    box.box,
    artifact.artifact,
    gpu.gpu,
    doctor.doctor,
    impact.impact,
    timing.timing,
):
    cli.add_command(command)
gpu.gpu.add_command(gpu_prepare.prepare)


def main() -> None:
    """Run the command line; every error a user can meet ends as a message and an exit status."""
    signals.install()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no '…', and names of files that are no text.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        cli.main(standalone_mode=False)
    except OSError as error:
        click.echo(f"{click.style('error', fg='red')}: {of_system(error)}", err=True)
        sys.exit(1)
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
