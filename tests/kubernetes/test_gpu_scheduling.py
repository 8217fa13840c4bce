"""Kubernetes gives each GPU once. With --deepops-simulated-gpus these run on a cluster without
GPUs too, and are called SIMULATED then."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import GpuPods, Verdict

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.gpu,
    pytest.mark.usefixtures("working_kubernetes"),
]
Settle = Callable[[Verdict], None]


def test_a_pod_that_asks_for_a_gpu_runs_where_one_is(gpu_pods: GpuPods, settle: Settle):
    settle(gpu_pods.runs())


def test_a_pod_that_asks_for_more_gpus_than_there_are_waits(gpu_pods: GpuPods, settle: Settle):
    settle(gpu_pods.too_many())


def test_two_pods_do_not_share_a_gpu(gpu_pods: GpuPods, settle: Settle):
    settle(gpu_pods.exclusive())


def test_a_job_has_a_gpu_on_several_nodes_at_the_same_time(gpu_pods: GpuPods, settle: Settle):
    if len(gpu_pods.free) < 2:
        pytest.skip(f"one node alone has free GPUs: {', '.join(gpu_pods.free)}")
    settle(gpu_pods.everywhere())
