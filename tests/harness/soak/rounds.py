"""One round of the soak: start a run, kill one process of it at the chosen moment, recover, audit.

Only processes of the round itself are killed, and libvirtd where the soak may start it again. Not
for choosing what is killed: see ``scenarios``; nor for what counts as left behind: see ``audit``.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import libvirt
import psutil

from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.journal import Event, Journal
from tests.harness.soak.audit import marked
from tests.harness.soak.ground import AFTER_TERM, RUN, Ground, libvirtd, restart_libvirtd
from tests.harness.soak.scenarios import PHASES, Scenario

#: Seconds that a run may go on after the kill.
_AFTER_KILL = 180.0
_WORKER = "exec(eval(sys.stdin.readline()))"
#: What no output of ours may ever have in it.
_FORBIDDEN = (
    "Traceback (most recent call last)",
    "INTERNALERROR",
    "During handling of the above exception",
    # As the message of a failure, not as the line of the test that pytest shows with another one.
    "AssertionError: DAMAGE SEEN",
)


@dataclass
class Result:
    """How a round went."""

    number: int
    scenario: str
    victim: str
    aimed: str
    #: Where the run was when the victim died: phase, seconds since its begin; '' when it was not
    #: hit.
    phase: str = ""
    seconds: float = 0.0
    killed: str = ""
    ended: str = ""
    recovered: str = ""
    took: float = 0.0
    leaks: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


class Watch:
    """Follows the journal of the one run below a folder of reports."""

    def __init__(self, reports: Path) -> None:
        self._reports = reports

    def _events(self) -> list[Event]:
        for path in self._reports.glob("2*/events.jsonl"):
            return Journal(path).events()
        return []

    def began(self, phase: str) -> bool:
        """Whether a phase has begun; the checks have when the first of them has ended."""
        return any(event.phase == phase for event in self._events())

    def now(self) -> tuple[str, float]:
        """Return the phase that the run is in and for how many seconds it has been."""
        phase, since = "start", 0.0
        for event in self._events():
            new = {"box": "up", "audit": "down"}.get(event.phase, event.phase)
            if event.kind == "end":
                new = {"revert": "checks", "down": "end"}.get(new, new)
            if new in (*PHASES["cold"], "end") and new != phase:
                phase, since = new, event.time
        return phase, round(time.time() - since, 1) if since else 0.0

    def instance(self) -> str:
        """Return the name of the run's cluster, '' while it has none."""
        for path in self._reports.glob("2*/instance"):
            return path.read_text().strip()
        return ""


class Round:
    """A scenario, played on the soak's ground."""

    def __init__(self, ground: Ground, scenario: Scenario, tell: Callable[[str], None]) -> None:
        self.ground = ground
        self.scenario = scenario
        self._tell = tell
        self._checkpoints: set[str] = set()
        self.result = Result(scenario.number, str(scenario), scenario.victim, scenario.moment)

    def play(self) -> Result:
        """Run the round to its end."""
        begin = time.monotonic()
        self._prepare()
        self._checkpoints = {item.id for item in self.ground.store.all()}
        self._first()
        if self.scenario.way == "next":
            self._next()
        self._clean()
        self._tell("looking for what is left")
        self.result.leaks = self.ground.audit.leaks()
        self.result.took = round(time.monotonic() - begin, 1)
        return self.result

    # -- before -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """See to it that there are the checkpoints that the kind of run begins with."""
        kind = self.scenario.kind
        folder = self.ground.round(self.scenario, "before")
        if kind == "take":
            self._virtual(folder / "drop.log", "checkpoint", "drop", "--all")
        wanted = {"warm": "deployed", "deploy": "up"}.get(kind)
        if not wanted or wanted in {item.stage for item in self.ground.store.all()}:
            return
        self._tell("making the checkpoints to start from")
        made = replace(self.scenario, kind="take", workers=0)
        self._whole_run(made, folder, "the run before")

    def _whole_run(self, scenario: Scenario, folder: Path, what: str) -> int:
        """Let a run come to its end undisturbed, which has to be a good one."""
        process = self.ground.pytest(scenario, folder)
        try:
            status = process.wait(timeout=RUN)
        except subprocess.TimeoutExpired:
            self._finding(f"{what} did not end within {RUN:.0f} s")
            status = self._stop(process)
        if status != 0:
            self._finding(f"{what} ended with status {status}: {folder / 'output.log'}")
        self._read(folder / "output.log", what)
        return status

    # -- the run that is hit ----------------------------------------------------------------

    def _first(self) -> None:
        folder = self.ground.round(self.scenario, "first")
        watch = Watch(folder)
        self._tell(f"waiting to kill {self.scenario.victim} at {self.scenario.moment}")
        begin = time.monotonic()
        process = self.ground.pytest(self.scenario, folder)
        hit = self._strike(process, watch)
        self._tell("waiting for the run to end" if hit else "was not hit")
        killed = time.monotonic()
        if hit and self.scenario.victim == "libvirtd" and self.scenario.at_once:
            restart_libvirtd()
        try:
            status = process.wait(timeout=_AFTER_KILL if hit else RUN)
        except subprocess.TimeoutExpired:
            self._finding(f"the run did not end within {time.monotonic() - killed:.0f} s")
            status = self._stop(process)
        if hit and self.scenario.victim == "libvirtd" and not self.scenario.at_once:
            restart_libvirtd()
        took = time.monotonic() - begin
        self.result.ended = f"{_status(status)} after {took:.0f} s"
        self._read(folder / "output.log", "the run")
        if self.scenario.victim not in ("controller", "libvirtd") or not hit:
            left = ", ".join(item.name for item in self.ground.book.all())
            if left:
                self._finding(f"the run lived and did not take its cluster down: {left}")

    def _strike(self, process: subprocess.Popen[bytes], watch: Watch) -> bool:
        """Kill the victim at its moment; return whether it was there to be killed."""
        phase, limit = self.scenario.phase, time.monotonic() + RUN
        while phase and not watch.began(phase):
            if process.poll() is not None or time.monotonic() > limit:
                return False
            time.sleep(0.02)
        moment = time.monotonic() + self.scenario.delay
        while time.monotonic() < limit and process.poll() is None:
            victim = self._victim(process, watch) if time.monotonic() >= moment else None
            if victim is None:
                time.sleep(0.02)
                continue
            try:
                command = " ".join(victim.cmdline())[:80]
                victim.kill()
            except psutil.Error:
                continue
            self.result.phase, self.result.seconds = watch.now()
            self.result.killed = f"{victim.pid} {command}"
            if self.scenario.victim == "libvirtd":
                with suppress(psutil.TimeoutExpired):
                    victim.wait(timeout=10)
            return True
        return False

    def _victim(self, process: subprocess.Popen[bytes], watch: Watch) -> psutil.Process | None:
        """Return the process to kill, None while it is not there."""
        kind = self.scenario.victim
        with suppress(psutil.Error):
            if kind == "controller":
                return psutil.Process(process.pid)
            if kind == "libvirtd":
                if not self._others():
                    return libvirtd()
                self.result.killed = "nothing: libvirtd serves other clusters"
                return None
            if kind == "qemu":
                name = watch.instance()
                guest = f"guest=deepops-{name}"
                return _first(marked(self.ground.token), guest) if name else None
            below = psutil.Process(process.pid).children(recursive=True)
            words = {"worker": _WORKER, "vagrant": "/vagrant ", "ansible": "/ansible-playbook "}
            return _first(below, words[kind])
        return None

    def _others(self) -> bool:
        """Whether libvirtd serves other clusters than the soak's, which must not be disturbed."""
        with suppress(DeepopsError), hypervisor.connect() as connection:
            active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            return any(self.ground.token not in domain.name() for domain in active)
        return False

    def _stop(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=AFTER_TERM)
        except subprocess.TimeoutExpired:
            self._finding(f"the run did not end within {AFTER_TERM:.0f} s after SIGTERM")
            process.kill()
            return process.wait()

    # -- recovery ---------------------------------------------------------------------------

    def _next(self) -> None:
        self._tell("the next run")
        begin = time.monotonic()
        folder = self.ground.round(self.scenario, "next")
        status = self._whole_run(self.scenario, folder, "the next run")
        took = time.monotonic() - begin
        self.result.recovered = f"next run: {_status(status)} after {took:.0f} s; "

    def _clean(self) -> None:
        self._tell("deepops-virtual clean")
        folder = self.ground.round(self.scenario, "clean")
        names = [item.name for item in self.ground.book.all()]
        self._virtual(folder / "clean.log", "clean")
        left = ", ".join(item.name for item in self.ground.book.all())
        if left:
            self._finding(f"'clean' left a ledger: {left}: {folder / 'clean.log'}")
        self.result.recovered += f"clean: {', '.join(names)}" if names else "nothing to clean"
        self._drop_own()

    def _drop_own(self) -> None:
        """Drop the checkpoints that fit to this round's own playbook alone."""
        mine = [
            item.id
            for item in self.ground.store.all()
            if item.stage != "up" and item.id not in self._checkpoints
        ]
        if self.scenario.kind == "deploy" and mine:
            log = self.ground.round(self.scenario, "clean") / "drop.log"
            self._virtual(log, "checkpoint", "drop", *mine)

    def _virtual(self, log: Path, *arguments: str) -> None:
        what = f"'deepops-virtual {' '.join(arguments[:2])}'"
        status, _ = self.ground.virtual(*arguments, log=log)
        if status != 0:
            self._finding(f"{what} ended with status {status}: {log}")
        self._read(log, what)

    # -- what is wrong ----------------------------------------------------------------------

    def _read(self, log: Path, what: str) -> None:
        text = log.read_text(errors="replace")
        for word in _FORBIDDEN:
            if word in text:
                self._finding(f"{what} printed '{word}': {log}")

    def _finding(self, text: str) -> None:
        self.result.findings.append(text)


def _first(processes: list[psutil.Process], word: str) -> psutil.Process | None:
    """Return the oldest of these processes whose command has this word in it."""
    found = [process for process in processes if word in f"{' '.join(_command(process))} "]
    return min(found, key=lambda item: item.create_time(), default=None)


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def _status(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit {status}"
