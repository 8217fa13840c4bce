"""What the checks of GPUs stand on."""

from collections.abc import Callable

import pytest

from deepops_fixtures.checks import Gpus, Verdict


@pytest.fixture
def working_gpus(gpus: Gpus) -> Gpus:
    """The GPUs of a node whose driver answers; a driver that does not has a check of its own that
    is red then."""
    if gpus.obstacle:
        pytest.skip(f"the GPUs cannot be asked: {gpus.obstacle}")
    return gpus


@pytest.fixture
def settle() -> Callable[[Verdict], None]:
    """A function that fails with what a verdict complains of, and skips where nothing could be
    judged: what was not seen does not pass."""

    def settled(verdict: Verdict) -> None:
        __tracebackhide__ = True
        print(*verdict.unjudged, sep="\n")
        assert not verdict.faults, str(verdict)
        if not verdict.judged:
            pytest.skip(str(verdict))

    return settled
