"""The driver has the GPUs, all parts of it are one version, and everybody counts the same."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import GpuCensus, Gpus, Verdict
from deepops_fixtures.cluster.running import Node

pytestmark = [pytest.mark.gpu, pytest.mark.nodes()]
Settle = Callable[[Verdict], None]


def test_the_driver_has_every_gpu_and_is_one_version(gpus: Gpus, settle: Settle):
    settle(gpus.driver())


def test_no_gpu_is_lost(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.lost())


def test_everybody_counts_the_same_gpus(
    node: Node, gpus_seen: dict[str, Gpus], gpu_census: GpuCensus, settle: Settle
):
    # A node without any GPU is counted too: Slurm or Kubernetes may think that it has some.
    gpus = gpus_seen.setdefault(node.name, Gpus(node))
    if not gpus.absent and gpus.obstacle:
        pytest.skip(f"the GPUs cannot be asked: {gpus.obstacle}")
    settle(gpu_census.counts(gpus))


def test_the_kernel_log_has_no_xid(gpus: Gpus, settle: Settle):
    settle(gpus.xids())


def test_the_gpus_are_in_persistence_mode(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.persistence())


def test_mig_is_laid_out_as_configured(working_gpus: Gpus, settle: Settle):
    settle(working_gpus.mig())


def test_mig_is_laid_out_as_kubernetes_was_told(
    working_gpus: Gpus, gpu_census: GpuCensus, settle: Settle
):
    settle(gpu_census.mig_label(working_gpus))
