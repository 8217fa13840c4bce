"""The soak: kill processes of many runs at random moments, and see that nothing is left behind.

    python tests/harness/soak/soak.py --rounds 50 --seed 1

Each round starts a run on one small virtual machine, kills with SIGKILL one process of it (pytest
itself, a worker of xdist, Vagrant, QEMU, ansible-playbook, libvirtd), recovers with the next run
or with ``deepops-virtual clean``, and compares the host with what it was before. The same seed
chooses the same rounds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table

from deepops_fixtures import signals
from deepops_fixtures.live import duration
from tests.harness.soak.ground import Ground
from tests.harness.soak.rounds import Result, Round
from tests.harness.soak.scenarios import PHASES, choose, libvirtd_is_ours

_COLUMNS = ("start", *PHASES["cold"], "end", "not hit")


class Soak:
    """Plays the rounds, shows how they went, and puts the host back at the end."""

    def __init__(self, seed: int, numbers: list[int], ground: Ground, out: Console) -> None:
        self.seed = seed
        self.numbers = numbers
        self.ground = ground
        self.out = out
        self.results: list[Result] = []
        #: What was left after the soak's own clusters and checkpoints had been removed.
        self.left: list[str] = []

    def run(self, file: Path | None) -> None:
        """Play every round; what is known is in ``file`` after each."""
        libvirtd = libvirtd_is_ours()
        for place, number in enumerate(self.numbers, 1):
            scenario = choose(self.seed, number, libvirtd=libvirtd)
            title = f"round {number} ({place} of {len(self.numbers)}): {scenario}"
            with self.out.status(title) as status:

                def tell(text: str, title: str = title, status: Status = status) -> None:
                    status.update(f"{title}, {text}")

                result = Round(self.ground, scenario, tell).play()
            self.results.append(result)
            self._show(result)
            self.write(file)

    def finish(self) -> None:
        """End what runs and remove what is the soak's; keep its folder where anything is wrong."""
        self.ground.end()
        self.left = self.ground.close()
        if self.good:
            self.left = self.ground.forget()
        else:
            self._say(f"The outputs of all runs are in '{self.ground.folder}'.")

    @property
    def leaks(self) -> int:
        """How many things were left on this host."""
        return sum(len(item.leaks) for item in self.results) + len(self.left)

    @property
    def good(self) -> bool:
        """Whether nothing was left and everything recovered."""
        return not self.leaks and not any(item.findings for item in self.results)

    def write(self, file: Path | None) -> None:
        """Write all rounds so far."""
        if file:
            rounds = [asdict(item) for item in self.results]
            data = {"seed": self.seed, "rounds": rounds, "left": self.left, "leaks": self.leaks}
            file.write_text(f"{json.dumps(data, indent=1)}\n")

    # -- what is shown ----------------------------------------------------------------------

    def _say(self, text: str, style: str = "") -> None:
        self.out.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def _show(self, item: Result) -> None:
        where = f"in {item.phase} +{item.seconds:.1f} s"
        if not item.phase:
            where = f"not hit ({item.killed})" if item.killed else "not hit"
        self._say(
            f"#{item.number:<3} {item.scenario:<11} {item.victim} {where} (aimed: {item.aimed}): "
            f"{item.ended}; {item.recovered}; leaks: {len(item.leaks)}; {item.took:.0f} s",
            "red" if item.leaks or item.findings else "",
        )
        for text in item.leaks:
            self._say(f"     leak: {text}", "red")
        for text in item.findings:
            self._say(f"     finding: {text}", "red")

    def summarize(self, seconds: float) -> None:
        """Show who was killed when, and what was left."""
        counts = Counter((item.victim, item.phase or "not hit") for item in self.results)
        phases = [name for name in _COLUMNS if any(phase == name for _, phase in counts)]
        table = Table("victim", *phases, "all")
        for victim in sorted({victim for victim, _ in counts}):
            row = [counts[victim, phase] for phase in phases]
            table.add_row(victim, *(str(count or "") for count in row), str(sum(row)))
        self.out.print(table)
        for text in self.left:
            self._say(f"leak at the end: {text}", "red")
        findings = sum(len(item.findings) for item in self.results)
        hits = sum(1 for item in self.results if item.phase)
        self._say(
            f"{len(self.results)} rounds with {hits} kills in {duration(seconds)}: "
            f"{self.leaks} leaks, {findings} other findings.",
            "bold green" if self.good else "bold red",
        )


@click.command()
@click.option("--rounds", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="the same seed, the same rounds")
@click.option(
    "--only", type=int, multiple=True, metavar="ROUND", help="play these rounds of the seed alone"
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option(
    "--folder",
    default=tempfile.gettempdir(),
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="where the soak's folder is made; a short path  [default: the temporary folder]",
)
def main(rounds: int, seed: int, only: tuple[int, ...], file: Path | None, folder: Path) -> None:
    """Kill processes of runs at random moments; exit with 0 when nothing was left behind."""
    signals.install()
    begin = time.monotonic()
    numbers = list(only or range(1, rounds + 1))
    soak = Soak(seed, numbers, Ground(folder.absolute()), Console(width=None))
    status = 0
    try:
        soak.run(file)
    except KeyboardInterrupt:
        click.echo("Interrupted; ending what runs.", err=True)
        status = 130
    except signals.Ended as error:
        click.echo(f"{error}; ending what runs.", err=True)
        status = error.status
    finally:
        with signals.teardown():
            soak.finish()
            soak.write(file)
            soak.summarize(time.monotonic() - begin)
    sys.exit(status or (0 if soak.good else 1))


if __name__ == "__main__":
    main()
