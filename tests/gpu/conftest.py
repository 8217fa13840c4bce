"""What the checks of GPUs stand on."""

import pytest

from deepops_fixtures.checks import Gpus


@pytest.fixture
def working_gpus(gpus: Gpus) -> Gpus:
    """The GPUs of a node whose driver answers; a driver that does not has a check of its own that
    is red then."""
    if gpus.obstacle:
        pytest.skip(f"the GPUs cannot be asked: {gpus.obstacle}")
    return gpus
