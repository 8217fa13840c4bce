"""Only what this repository's own tests need."""

import pytest

pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the project's own tests."""
    parser.addoption(
        "--harness-cluster",
        default="",
        metavar="NAME",
        help="deployed cluster instance on which tests/harness/e2e try the faults, instead of one "
        "that they make themselves",
    )
    parser.addoption(
        "--harness-all-faults",
        action="store_true",
        help="also play the rounds of Kubernetes' faults that are left out to save time: fifteen "
        "minutes on two cores",
    )
