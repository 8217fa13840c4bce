"""The GPUs compute: a kernel with a checked result, memory and PCIe at their speed."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import Gpus, Verdict

pytestmark = [pytest.mark.gpu, pytest.mark.nodes()]
Settle = Callable[[Verdict], None]


def test_every_gpu_runs_a_kernel_with_the_right_result(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.kernel())


def test_the_memory_is_as_fast_as_its_card_can_be(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.bandwidth())


def test_the_pcie_link_is_at_its_best_under_load(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.link())
