"""pytest runs inside the tests: a folder of test modules, an inventory of this very host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

INVENTORY = """\
[slurm-master]
one ansible_connection=local

[slurm-node]
two ansible_connection=local
"""


@pytest.fixture
def inventory(pytester: pytest.Pytester) -> Path:
    """An inventory of two hosts, both this one."""
    return pytester.makefile(".ini", hosts=INVENTORY)


@pytest.fixture
def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Run pytest in a process of its own, in the test's folder."""
    # The folder is the home too, so that nothing is read of what this user has.
    monkeypatch.setenv("DEEPOPS_ACCELERATOR", "tcg")
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def pytest_run(*arguments: str | Path) -> pytest.RunResult:
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *map(str, arguments))

    return pytest_run


def created(folder: Path) -> list[str]:
    """Return what a run has made below its folder, Python's and pytester's own files aside."""
    ignore = (".vagrant.d", "__pycache__", ".py", ".yml", ".ini", "stdout", "stderr")
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not any(word in str(path) for word in ignore) and path.is_file()
    )
