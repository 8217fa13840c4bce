"""The fixtures come with the plugin; these three lines make one more of them."""

import pytest


@pytest.fixture(scope="session")
def batch(slurm):
    return slurm.partitions["batch"]
