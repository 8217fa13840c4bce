"""The GPUs of a node reach one another: NVLinks, NVSwitches, the topology that is told."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import Gpus, Verdict

pytestmark = [pytest.mark.gpu, pytest.mark.nodes()]
Settle = Callable[[Verdict], None]


def test_every_nvlink_is_up_at_full_speed(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.nvlinks())


def test_every_gpu_has_joined_the_nvlink_fabric(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.fabric())


def test_every_pair_of_gpus_is_connected(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.topology())
