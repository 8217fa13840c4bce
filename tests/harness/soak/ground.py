"""Where the soak takes place: its folder, the commands that its rounds run there, libvirtd.

Not for what a round does with them: see ``rounds``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.settings import Settings
from tests.harness.soak.audit import MARK, Audit
from tests.harness.soak.scenarios import (
    Scenario,
    libvirtd_is_ours,
    write_playbook,
    write_project,
)

ROOT = Path(__file__).resolve().parents[3]
#: Variables of the caller that a round heeds; the others would make it another round.
_HEEDED = frozenset(f"DEEPOPS_{name}" for name in ("CACHE_DIR", "DEBIAN_MIRROR", "ACCELERATOR"))
_PID_FILE = Path("/run/libvirtd.pid")
#: Seconds that a command may take, and that it may go on after a SIGTERM.
RUN, AFTER_TERM = 600.0, 120.0


class Ground:
    """The soak's folder, with everything that its rounds write, and the commands that they run."""

    def __init__(self, parent: Path) -> None:
        self.token = f"soak{secrets.token_hex(2)}"
        # A short path: the sockets of ssh lie beneath it.
        self.folder = parent / self.token
        self.state = self.folder / "state"
        self.temporary = self.folder / "t"
        self.project = self.folder / "project"
        write_project(self.project, self.token)
        self.temporary.mkdir()
        self.book = LedgerBook(self.state)
        self.store = Store(self.book)
        cache = Settings.load().cache_dir
        self.audit = Audit(self.token, self.state, cache, self.temporary)
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], log: Path, playbook: Path) -> subprocess.Popen[bytes]:
        """Start a command of a round, its output in a file."""
        env = {k: v for k, v in os.environ.items() if k[:8] != "DEEPOPS_" or k in _HEEDED}
        env.pop("XDG_RUNTIME_DIR", None)
        env |= {
            "PATH": f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}",
            "DEEPOPS_STATE_DIR": str(self.state),
            "TMPDIR": str(self.temporary),
            "SOAK_PLAYBOOK": str(playbook),
            MARK: self.token,
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                cwd=self.project, env=env, start_new_session=True,
            )  # fmt: skip
        self._running.append(process)
        return process

    def pytest(self, scenario: Scenario, folder: Path) -> subprocess.Popen[bytes]:
        """Start the run of a round."""
        command = [sys.executable, "-m", "pytest", "--deepops-cluster", f"{self.token}.yml"]
        command += ["--deepops-reports", str(folder), "--basetemp", str(folder / "basetemp")]
        command += ["--deepops-reuse", "never" if scenario.kind == "cold" else "auto"]
        command += ["-n", str(scenario.workers)] if scenario.workers else []
        return self.start(command, folder / "output.log", self._playbook(scenario))

    def _playbook(self, scenario: Scenario) -> Path:
        if scenario.kind != "deploy":
            return self.project / "playbook" / "site.yml"
        # One that no checkpoint fits to, so that the run deploys.
        return write_playbook(self._round(scenario) / "playbook", f"round {scenario.number}")

    def _round(self, scenario: Scenario) -> Path:
        return self.folder / "rounds" / str(scenario.number)

    def round(self, scenario: Scenario, name: str) -> Path:
        """Return the folder for what one command of a round writes."""
        return self._round(scenario) / name

    def virtual(self, *arguments: str, log: Path) -> tuple[int, str]:
        """Run ``deepops-virtual`` to its end; return its exit status and output."""
        process = self.start(["deepops-virtual", *arguments], log, self.project)
        process.wait(timeout=RUN)
        return process.returncode, log.read_text(errors="replace")

    def end(self) -> None:
        """End what still runs, in order: a run tears its cluster down on SIGTERM."""
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=AFTER_TERM)
            if process.poll() is None:
                process.kill()
                process.wait()
        self._running.clear()

    def close(self) -> list[str]:
        """Remove everything of the soak from this host; return what stayed."""
        restart_libvirtd()
        log = self.folder / "close.log"
        self.virtual("clean", log=log)
        self.virtual("checkpoint", "drop", "--all", log=log)
        leaks = [f"checkpoint {item.id}" for item in self.store.all()]
        return leaks + self.audit.leaks()

    def forget(self) -> list[str]:
        """Remove the soak's folder; return it where it stayed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        return [f"folder {self.folder}"] if self.folder.exists() else []


def restart_libvirtd() -> None:
    """Start libvirtd again, as ``setup.sh`` does, unless it runs or is not ours to start."""
    if libvirtd_is_ours() and libvirtd() is None:
        subprocess.run(
            [ROOT / "setup.sh", "true"], cwd=ROOT, check=True, capture_output=True, timeout=RUN
        )


def libvirtd() -> psutil.Process | None:
    """Return this host's libvirtd, None while there is none. By its pid file: a container may have
    one of its own, which is seen from here too."""
    with suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(_PID_FILE.read_text()))
        if process.name() == "libvirtd" and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None
