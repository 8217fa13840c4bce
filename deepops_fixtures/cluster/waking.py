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

#: Says when it is ready, so that the time it is given is not older than one way over the wire.
#: chronyd stands still until every node has its time: one that asked a node whose clock is still
#: late would set its own back. A guest without networkd or chrony has nothing to renew there.
_WAKE = """\
pkill -STOP -x chronyd
echo ready; read -r now; date -u -s "@$now" >/dev/null || exit 1; echo set; read -r go
pkill -CONT -x chronyd
(networkctl renew eth0; chronyc -a 'burst 4/4') </dev/null >/dev/null 2>&1 &
"""


def wake(config: Path, name: str, nodes: list[str], deadline: Deadline) -> None:
    """Set every guest's clock to this host's and let it renew its lease, all at once.

    Raises StepTimeout or ProvisionError naming the node. How far off a clock may be is the time
    of one way to the guest: some 0.1 s where it is emulated.
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
    """Tell a shell that runs the wake script the time; return 'set', or what it said instead."""
    assert shell.stdin and shell.stdout
    said = shell.stdout.readline().strip()
    if said == "ready":
        with suppress(BrokenPipeError):
            shell.stdin.write(f"{time.time():.6f}\n")
            shell.stdin.flush()
        said = shell.stdout.readline().strip()
    return said
