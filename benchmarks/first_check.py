"""pytest plugin of ``second_run``: writes down when the first test's own body begins.

By then Python has started, the tests are collected, and the cluster that the test asked for is up.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

#: Environment variable with the path of the file to write to.
VARIABLE = "BENCHMARK_FIRST_CHECK"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call() -> None:
    """Write the seconds since the epoch, the first time."""
    path = Path(os.environ[VARIABLE])
    if not path.exists():
        path.write_text(repr(time.time()))
