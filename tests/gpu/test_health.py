"""The GPUs are healthy: memory, heat, power, clocks, and who uses them."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import Gpus, Verdict

pytestmark = [pytest.mark.gpu, pytest.mark.nodes()]
Settle = Callable[[Verdict], None]


def test_no_memory_error_was_left_uncorrected(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.memory())


def test_the_gpus_stay_below_the_heat_that_slows_them_down(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.heat())


def test_the_gpus_draw_no_more_power_than_they_may(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.power())


def test_the_hardware_does_not_hold_the_clocks_down(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.clocks())


def test_no_process_was_left_on_the_gpus(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.leftovers())
