"""Real virtual machines for the end-to-end tests; the project's commands as a user types them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import LedgerBook, Snapshot
from deepops_fixtures.cluster.running import Nodes, RunningCluster
from deepops_fixtures.settings import Settings


@dataclass
class Ended:
    """A command that has ended."""

    status: int
    output: str
    run_dir: Path
    seconds: float

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Return test name → (outcome, message) from the run's JUnit file."""
        found = {}
        for case in ElementTree.parse(self.run_dir / "junit.xml").iter("testcase"):
            outcome, message = "passed", ""
            for kind in ("failure", "error", "skipped"):
                child = case.find(kind)
                if child is not None:
                    outcome, message = kind, f"{child.get('message')}\n{child.text}"
            found[case.get("name", "")] = (outcome, message)
        return found


@dataclass
class Started:
    """A command that runs, its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path
    reports: Path
    begin: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, *texts: str, seconds: float = 240) -> None:
        """Wait until the command has said one of these."""
        limit = time.monotonic() + seconds
        while not any(text in self.output for text in texts):
            assert self.process.poll() is None, f"it ended without {texts}:\n{self.output}"
            assert time.monotonic() < limit, f"it did not say {texts}:\n{self.output}"
            time.sleep(0.2)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 600) -> Ended:
        status = self.process.wait(timeout=seconds)
        latest = self.reports / "latest"
        return Ended(status, self.output, latest.resolve(), time.monotonic() - self.begin)


def _heed_ctrl_c() -> None:
    """A shell has its background jobs ignore SIGINT, and so would all that these tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Commands:
    """Runs pytest and deepops-virtual in an empty folder, as a user would."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self.project = project
        callers = ("DEEPOPS_", "PYTEST_XDIST_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(callers)}
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> Started:
        log = self.folder / f"{len(self._started)}.log"
        # It is told to end when this process is no more, as a worker of xdist that is killed.
        tied = ["setpriv", "--pdeathsig", "TERM", *command]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                tied, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                cwd=self.folder, env=self.env, start_new_session=True, preexec_fn=_heed_ctrl_c,
            )  # fmt: skip
        self._started.append(process)
        return Started(process, log, self.folder / "reports")

    def virtual(self, *arguments: str, seconds: float = 1500) -> Ended:
        return self.start("deepops-virtual", *arguments).wait(seconds)

    def start_pytest(self, *arguments: str) -> Started:
        return self.start(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments)

    def pytest(self, *arguments: str, seconds: float = 900) -> Ended:
        return self.start_pytest(*arguments).wait(seconds)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=120)


@pytest.fixture
def commands(tmp_path: Path, project: Path) -> Iterator[Commands]:
    """The project's commands, run in an empty folder; what still runs afterwards is ended."""
    made = Commands(tmp_path, project)
    yield made
    made.end()


def book() -> LedgerBook:
    """Return this user's ledgers."""
    return LedgerBook(Settings.load().state_dir)


@pytest.fixture
def nothing_left() -> Iterator[Callable[[], list[str]]]:
    """A function that tells what has come to this host since the test began; the test fails when
    it is anything at the end."""
    before, ledgers = hypervisor.take_snapshot(), {item.name for item in book().all()}

    def left() -> list[str]:
        now = hypervisor.take_snapshot()
        # Boxes and checkpoints stay on purpose.
        kept = {f"volume {m.pool}/{name}" for m in Store(book()).all() for name in m.volumes}
        found = [text for text in now.minus(before) if "_vagrant_box_image_" not in text]
        found = [text for text in found if text not in kept]
        found += sorted(f"process {text}" for text in now.processes - before.processes)
        found += [f"ledger {item.name}" for item in book().all() if item.name not in ledgers]
        return found

    yield left
    assert left() == []


@pytest.fixture(scope="session")
def host_before() -> Snapshot:
    """What was on this host before the first test."""
    return hypervisor.take_snapshot()


def nodes_of(name: str) -> Nodes:
    """Return the nodes of an instance, their testinfra hosts with them."""
    path = book().path(name) / "cluster.json"
    return Nodes(RunningCluster.model_validate_json(path.read_text()))


@pytest.fixture(scope="session")
def kubernetes_cluster(
    request: pytest.FixtureRequest, slurm_cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Name of the cluster with Slurm, Kubernetes put on top of it."""
    commands = Commands(tmp_path_factory.mktemp("kubernetes"), request.config.rootpath)
    (commands.folder / "test_it.py").write_text(
        "def test_it_is_deployed(kubernetes):\n    assert kubernetes.nodes\n"
    )
    try:
        run = commands.pytest(
            "--deepops-attach", slurm_cluster, "--deepops-parts", "slurm,kubernetes",
            "test_it.py", seconds=2400,
        )  # fmt: skip
        assert run.status == 0, run.output
        yield slurm_cluster
    finally:
        commands.end()


@pytest.fixture(scope="session")
def slurm_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Name of a cluster with Slurm on it, deployed once more to see that this changes nothing. It
    starts from a checkpoint where a run before has left one."""
    given = request.config.getoption("--harness-cluster")
    if given:
        yield given
        return
    commands = Commands(tmp_path_factory.mktemp("slurm"), Path(__file__).resolve().parents[3])
    name = ""
    (commands.folder / "test_it.py").write_text(
        "def test_it_is_deployed(slurm):\n    assert slurm.controller_answers\n"
    )
    try:
        run = commands.pytest(
            "--deepops-cluster", "debian", "--deepops-keep", "always", "--deepops-idempotence",
            "test_it.py", seconds=2400,
        )  # fmt: skip
        kept = re.search(r"cluster: '(\S+)' was kept", run.output)
        name = kept[1] if kept else ""
        assert run.status == 0, run.output
        yield name
    finally:
        commands.end()
        if name:
            gone = commands.virtual("destroy", name)
            assert gone.status == 0, gone.output
