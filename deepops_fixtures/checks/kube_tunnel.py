"""A way to a server behind a control plane node: an ssh forward that lives as long as it is
needed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from deepops_fixtures.cluster.ledger import MARK
from deepops_fixtures.errors import CheckFailed
from deepops_fixtures.proc import Deadline


def reachable(host: str, port: int, seconds: float = 3) -> bool:
    """Return whether a TCP connection to a port comes about."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return True
    except OSError:
        return False


def free_port() -> int:
    """Return a TCP port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tunnel:
    """A local port that leads to ``host:port`` as a node sees them.

    Raises CheckFailed when it leads nowhere after ``seconds``.
    """

    def __init__(
        self,
        config: Path,
        node: str,
        instance: str,
        host: str,
        port: int,
        seconds: float = 30,
    ) -> None:
        self.port = free_port()
        # On a connection of its own: a forward of a shared one outlives the process that asked.
        self._process = subprocess.Popen(
            ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "ControlMaster=no",
             "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", "-N",
             "-L", f"127.0.0.1:{self.port}:{host}:{port}", node],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, MARK: instance},
            start_new_session=True,
        )  # fmt: skip
        deadline = Deadline.after(seconds)
        while not reachable("127.0.0.1", self.port, 1):
            if self._process.poll() is not None or deadline.passed:
                self.close()
                told = self._process.stderr.read() if self._process.stderr else b""
                said = told.decode(errors="replace").strip()
                raise CheckFailed(
                    f"The API server at {host}:{port} is reached neither from here nor through "
                    f"'{node}': {said or f'no answer within {seconds:.0f} s'}\n"
                    f"Next: ssh -v -F {config} {node}"
                )
            time.sleep(0.2)

    def close(self) -> None:
        """End the forward."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
