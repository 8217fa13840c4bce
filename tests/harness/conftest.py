"""What the project's own tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's own folder."""
    return ROOT


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests with machines in one worker, one after the other: they compare the whole host
    before and after. The rig makes nothing on this host's libvirt, so it may run beside them."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "harness" / "e2e"):
            group = "rig" if "rig" in item.path.name else "machines"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests may have DEEPOPS_* variables, and the tests may be xdist's workers;
    no test may depend on either."""
    for name in list(os.environ):
        if name.startswith(("DEEPOPS_", "PYTEST_XDIST_")):
            monkeypatch.delenv(name)
