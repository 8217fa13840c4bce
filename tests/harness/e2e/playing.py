"""Plays a round of faults: break, check, put back, compare what turned red with the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepops_fixtures.rehearsal import Rehearsal
from deepops_fixtures.settings import Settings
from tests.harness.e2e.conftest import Commands, Ended, nodes_of
from tests.harness.e2e.fault_table import Fault


def rehearsal_of(cluster: str, folder: Path) -> Rehearsal:
    """Return the rehearsal that puts a cluster back to how it is now."""
    made = Rehearsal(Settings.load({"attach": cluster}), folder)
    made.ensure_baseline()
    return made


def play(
    faults: Sequence[Fault], cluster: str, rehearsal: Rehearsal, commands: Commands, *checks: str
) -> Ended:
    """Break a cluster, run checks on it, and put it back to the rehearsal's baseline.

    Asserts that exactly the checks turned red that the faults name, each with the cause in its
    message; returns the run.
    """
    nodes = nodes_of(cluster)
    try:
        for fault in faults:
            for name, command in {fault.node: fault.break_it, **fault.then}.items():
                nodes[name].host.run_expect([0], command)
        run = commands.pytest(*checks, "--deepops-attach", cluster, "-n", "3", "-q")
    finally:
        rehearsal.go_back()
    outcomes = run.outcomes()
    red = {name: text for name, (kind, text) in outcomes.items() if kind in ("failure", "error")}
    expected = {name: cause for fault in faults for name, cause in fault.red.items()}
    assert set(red) == set(expected), run.output
    silent = {name: red[name] for name, cause in expected.items() if cause not in red[name]}
    assert not silent, "red without the cause in the message"
    assert run.status == 1
    assert (run.run_dir / "bundle.tar.gz").is_file()
    return run
