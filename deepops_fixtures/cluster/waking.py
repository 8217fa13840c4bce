"""Guests that have stood still: their clocks are late by as long as that was, each by another
time.

That is so after a restore, and after the moment for which a checkpoint stops them. Not for guests
that boot: they read the hardware's clock.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from deepops_fixtures.cluster import ssh
from deepops_fixtures.errors import ProvisionError, StepTimeout
from deepops_fixtures.proc import Deadline

#: Those who judge other nodes by the clock. They stand still until every node has its time: a
#: chronyd that asked a node whose clock is still late would set its own back; a slurmctld that
#: pings one refuses its answer (munge: expired), and counts the silence from before the jump, so
#: that the node is down at the next ping (slurm.conf: SlurmdTimeout).
_JUDGES = "chronyd slurmctld"
#: Sets its clock when it is told the time, and tells what it has made of it. A guest without
#: networkd or chrony has nothing to renew there.
_WAKE = f"""\
for name in {_JUDGES}; do pkill -STOP -x $name; done
echo ready
while read -r word value; do
  case $word in
    set) date -u -s "@$value" >/dev/null && date +%s.%N ;;
    go) break ;;
  esac
done
for name in {_JUDGES}; do pkill -CONT -x $name; done
(networkctl renew eth0; chronyc -a 'burst 4/4') </dev/null >/dev/null 2>&1 &
"""
#: Seconds that a clock may be off after it was set, and how often that is tried: on a busy host a
#: guest may be told the time seconds before it comes to set it.
_CLOSE, _TRIES = 0.3, 8


def wake(config: Path, name: str, nodes: list[str], deadline: Deadline) -> None:
    """Set every guest's clock to this host's and let it renew its lease, all at once.

    Raises StepTimeout or ProvisionError naming the node. A clock may be off by some 0.1 s where
    the guest is emulated, by more on a host so busy that guests come to nothing.
    """
    shells = {node: ssh.root_shell(config, name, node, _WAKE) for node in nodes}
    timer = threading.Timer(deadline.left, _kill_all, [shells.values()])
    timer.start()
    try:
        with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
            said = dict(zip(nodes, pool.map(_set_clock, shells.values()), strict=True))
        for shell in shells.values():
            # They go on when all have the time.
            shell.communicate("go\n")
    finally:
        timer.cancel()
        _kill_all(shells.values())
    for node, words in said.items():
        hint = f"ssh -v -F {config} {node}"
        if words != "set" and deadline.passed:
            raise StepTimeout(
                f"No answer over ssh within {deadline.seconds:.0f} s from '{node}'.", hint=hint
            )
        if words != "set":
            why = words or "no answer"
            raise ProvisionError(f"The clock of '{node}' could not be set: {why}.", hint=hint)


def _kill_all(shells: Iterable[subprocess.Popen[str]]) -> None:
    for shell in shells:
        shell.kill()


def _set_clock(shell: subprocess.Popen[str]) -> str:
    """Tell a shell that runs the wake script the time until it has it right; return 'set', or what
    the shell said instead."""
    assert shell.stdin and shell.stdout
    said = shell.stdout.readline().strip()
    if said != "ready":
        return said
    lag = 0.0
    for _ in range(_TRIES):
        sent = time.time()
        with suppress(BrokenPipeError):
            shell.stdin.write(f"set {sent + lag:.6f}\n")
            shell.stdin.flush()
        said, back = shell.stdout.readline().strip(), time.time()
        try:
            late = (sent + back) / 2 - float(said)
        except ValueError:
            return said
        if abs(late) + (back - sent) / 2 < _CLOSE:
            break
        # What it took the last time is what it may take this time.
        lag = min(5.0, max(0.0, lag + late))
    return "set"
