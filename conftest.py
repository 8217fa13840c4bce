"""Only what this repository's own tests need."""

import pytest

pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option of the project's own tests."""
    parser.addoption(
        "--harness-cluster",
        default="",
        metavar="NAME",
        help="deployed cluster instance on which tests/harness/e2e try the faults, instead of one "
        "that they make themselves",
    )
