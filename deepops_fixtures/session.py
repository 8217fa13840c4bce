"""What the plugin knows during one pytest run, kept in the config's stash: no globals.

Joins the rehearsal with what a test did on the nodes. A run that asks for no cluster never loads
the rehearsal and what it stands on. Not for hooks: those are in ``plugin``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deepops_fixtures.isolation import Isolation, breaks, wants_pristine
from deepops_fixtures.parts import Parts, named_by
from deepops_fixtures.records import CheckOutcome, CommandRecord
from deepops_fixtures.settings import Settings

if TYPE_CHECKING:
    from deepops_fixtures.changed import Change
    from deepops_fixtures.cluster.running import Nodes, RunningCluster
    from deepops_fixtures.cluster.topology import ClusterSpec
    from deepops_fixtures.deploy.sources import PlaybookSource
    from deepops_fixtures.errors import DeepopsError
    from deepops_fixtures.rehearsal import Rehearsal
    from deepops_fixtures.report.remarks import Remark

#: Where a run's session is in the stash of pytest's config.
KEY = pytest.StashKey["Session"]()
#: Fixtures that need a running cluster; a test that uses none of them needs none.
CLUSTER_FIXTURES = frozenset(
    {
        "virtual_cluster",
        "pristine_cluster",
        "deepops",
        "slurm",
        "kubernetes",
        "login_host",
        "mgmt_host",
        "gpu_hosts",
        "node",
        "host",
        "units",
        "munge",
        "clocks",
        "nfs",
        "rsyslog",
        "access",
    }
)


#: Of these, the ones that want the machines and no deployment.
_UP_ALONE = frozenset({"virtual_cluster"})


class Session:
    """One pytest run: settings, the run's folder, the rehearsal, the commands of the current
    test."""

    def __init__(
        self, settings: Settings, run_dir: Path, worker: str = "", controller: int = 0
    ) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.worker = worker
        self._controller = controller or os.getpid()
        self.commands: list[CommandRecord] = []
        #: How many tests have failed in this process.
        self.failures = 0
        #: Set by the controller when something outside the tests failed (teardown, interruption).
        self.problems: list[str] = []
        self.kept = ""
        #: How the tests ended; known where the reports come together, not in xdist's workers.
        self.outcomes: list[CheckOutcome] = []
        #: What runs on the cluster: {'Slurm': '22.05.8', …}.
        self.versions: dict[str, str] = {}
        #: What the run says beside the outcome of its checks; gathered at its end.
        self.remarks: list[Remark] = []
        #: Why the run cannot be, where that came out while tests were collected.
        self.refused: DeepopsError | None = None
        #: The parts of DeepOps that tests have named.
        self.named: Parts = ()
        #: How many tests were left out because no change asks for them, by what they are about.
        self.left_out: dict[str, int] = {}
        #: Whether the HTML report is ours, or the user named a file for it.
        self.own_html = False

    @cached_property
    def spec(self) -> ClusterSpec | None:
        """The cluster to rehearse on, None for existing hosts. Raises UsageProblem."""
        from deepops_fixtures import subject

        return subject.cluster(self.settings)

    @cached_property
    def change(self) -> Change | None:
        """What has changed in the checkout, where the tests are to be chosen by it. Raises
        UsageProblem."""
        from deepops_fixtures import changed

        return changed.of_run(self)

    @property
    def sources(self) -> tuple[PlaybookSource, ...]:
        """The playbooks to deploy, as far as the parts are known in this process; none when the
        hosts are checked as they are. Raises UsageProblem."""
        return self.rehearsal.sources()

    def read_request(self) -> None:
        """Refuse a cluster, hosts or an inventory that is not there, a part that the cluster does
        not carry, and a change that cannot be looked at, for a process that collects no tests.
        Raises UsageProblem."""
        _known = self.spec, self.sources, self.change and self.change.selection
        if self.settings.existing or self.settings.attach:
            _known_too = self.rehearsal.planned_nodes()

    @cached_property
    def rehearsal(self) -> Rehearsal:
        """The life of this run's cluster."""
        from deepops_fixtures.cluster.ledger import Owner
        from deepops_fixtures.rehearsal import Rehearsal

        return Rehearsal(self.settings, self.run_dir, owner=Owner.of(self._controller))

    @cached_property
    def isolation(self) -> Isolation:
        """Who may use the cluster now, and when it is put back."""
        return Isolation(self.rehearsal)

    def look_at(self, items: list[pytest.Item]) -> None:
        """Learn from the tests that ask for the cluster how far they want it, which parts of
        DeepOps on it, and whether any wants it put back. Raises UsageProblem."""
        asked = {
            name for item in items for name in getattr(item, "fixturenames", ())
        } & CLUSTER_FIXTURES
        self.rehearsal.target = "deployed" if asked - _UP_ALONE else "up"
        # Where only those are left that name no part, those that were left out have named it.
        self.named = named_by(items) or self.named
        self.rehearsal.chosen.settle(self.named)
        self.rehearsal.goes_back = any(breaks(item) or wants_pristine(item) for item in items)

    def why_no_gpus(self, expression: str) -> str:
        """Return why new virtual machines will have no GPU to check, '' where they may have one.

        Where tests of GPUs are asked for by name (``-m gpu``) and this host has GPUs, one for each
        GPU node is asked for, as ``--deepops-gpu auto`` does; a host that is not ready for that is
        refused like any other request. Raises UsageProblem.
        """
        from deepops_fixtures.cluster.gpus import requested
        from deepops_fixtures.passthrough import pci

        settings = self.settings
        if settings.existing or settings.attach or requested(settings):
            return ""
        if settings.gpu:
            return f"no GPU is handed through: --deepops-gpu {settings.gpu}"
        devices = pci.Host().devices.values()
        if not any(device.is_gpu and device.vendor == pci.NVIDIA for device in devices):
            return "this host has no NVIDIA GPU to hand through (deepops-virtual gpu list)"
        if "gpu" not in re.findall(r"\w+", expression):
            return "no GPU was asked for: --deepops-gpu auto, or -m gpu"
        self.settings = settings.model_copy(update={"gpu": "auto"})
        # What was planned without GPUs is planned anew.
        for planned in ("rehearsal", "isolation"):
            vars(self).pop(planned, None)
        return ""

    @property
    def used(self) -> bool:
        """Whether any process of this run asked for the cluster."""
        return (self.run_dir / "stages").is_dir() or (self.run_dir / "cluster.json").exists()

    def once(self, name: str, work: Callable[[], int]) -> int:
        """Return the number that ``work`` gave to the first process of this run that asked."""
        from filelock import FileLock

        path = self.run_dir / "stages" / name
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                path.write_text(str(work()))
            return int(path.read_text())

    def nodes(self, running: RunningCluster) -> Nodes:
        """Return the nodes, their commands recorded for the test that runs them."""
        from deepops_fixtures.cluster.running import Nodes

        return Nodes(running, record=self.commands.append)


def session_of(config: pytest.Config) -> Session:
    """Return the session of this run."""
    return config.stash[KEY]


def remember(config: pytest.Config, session: Session) -> None:
    """Keep the session for the rest of the run."""
    config.stash[KEY] = session


def needs_cluster(item: pytest.Item) -> bool:
    """Return whether a test asks for the cluster."""
    return bool(CLUSTER_FIXTURES & set(getattr(item, "fixturenames", ())))


def runs_on_cluster(item: pytest.Item) -> bool:
    """Return whether a test asks for the cluster and is not to be skipped anyway."""
    return needs_cluster(item) and not item.get_closest_marker("skip")
