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


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests may have DEEPOPS_* variables, and the tests may be xdist's workers;
    no test may depend on either."""
    for name in list(os.environ):
        if name.startswith(("DEEPOPS_", "PYTEST_XDIST_")):
            monkeypatch.delenv(name)
