"""What the project's own tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]


class _OneClusterAtATime(LoadScopeScheduling):
    """One worker has the clusters' machines and one the rig, all have the rest: two clusters at
    once are too much for a small host, and what a test leaves is looked for on the whole host."""

    def _split_scope(self, nodeid: str) -> str:
        if "/e2e/" not in nodeid:
            return nodeid
        return "rig" if "/test_passthrough_rig.py" in nodeid else "machines"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _OneClusterAtATime:
    """Say how xdist deals out the project's own tests."""
    return _OneClusterAtATime(config, log)


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's own folder."""
    return ROOT


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests may have DEEPOPS_* variables, and the tests may be xdist's workers;
    no test may depend on either."""
    for name in list(os.environ):
        if name.startswith(("DEEPOPS_", "PYTEST_XDIST_")):
            monkeypatch.delenv(name)
