"""What the unit tests share."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.ledger import Ledger, Owner


def _ledger(name: str, **changes: object) -> Ledger:
    values: dict = {
        "name": name, "owner": Owner.me(), "created": time.time(), "spec": topology.load("tiny"),
        "run_dir": Path("/nowhere"), "pool": "default", "domain_prefix": f"deepops-{name}_",
        "domains": [f"deepops-{name}_virtual-login"], "networks": [f"deepops-{name}"],
        "volumes": [], "subnets": ["10.86.1.0/24"], "socket_dir": Path("/nowhere"),
    }  # fmt: skip
    return Ledger(**{**values, **changes})


@pytest.fixture
def ledger() -> Callable[..., Ledger]:
    """Return a function that makes the ledger of an instance, owned by this process."""
    return _ledger
