"""Sends ``remote/gpu_probe.py`` to a node and reads what it found, as typed objects.

The probe talks to the driver's own libraries; this module knows how it gets there and what it
answers, and judges nothing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from deepops_fixtures import facts
from deepops_fixtures.checks.nvidia_smi_data import SmiReport
from deepops_fixtures.checks.remote.gpu_probe import MARK
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Seconds of load on all GPUs, and how long the whole probe may take: it waits for its turn, and
#: a GPU that nobody keeps awake takes seconds to come up.
LOAD_SECONDS = 6
PATIENCE = 600
_SOURCE = Path(__file__).with_name("remote") / "gpu_probe.py"
_SCRIPT = """\
for python in python3 /usr/libexec/platform-python; do
  command -v $python >/dev/null && break
done
LD_LIBRARY_PATH=$(ls -d {root}/usr/lib/*-linux-gnu {root}/usr/lib64 2>/dev/null | tr '\\n' ':')
export LD_LIBRARY_PATH
{prefix}$python - {arguments} <<'GPU_PROBE_ENDS'
{source}
GPU_PROBE_ENDS
"""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class NvmlCard(_Answer):
    """A GPU that NVML counts; error: why it cannot be asked ('' when it can)."""

    uuid: str
    error: str


class NvmlView(_Answer):
    """What NVML counts on a node; error: why it counts nothing ('' when it does)."""

    driver_version: str = ""
    gpus: tuple[NvmlCard, ...] = ()
    error: str = ""


class CudaCard(_Answer):
    """What one GPU did under CUDA. Bandwidths are GB/s (10**9 bytes)."""

    address: str
    name: str
    #: Error of CUDA by its name, '' for none.
    error: str
    #: What was wrong with the kernel's result, '' for nothing.
    wrong: str
    #: Of the memory, measured by copies within it.
    bandwidth: float
    #: Of the memory by its clock and width, as the driver tells them; 0 where it does not.
    peak: float


class CudaView(_Answer):
    """What all GPUs of a node did, and nvidia-smi's reports while they were busy."""

    gpus: tuple[CudaCard, ...] = ()
    reports: tuple[str, ...] = ()
    load_errors: tuple[str, ...] = ()
    error: str = ""

    @property
    def loaded(self) -> list[SmiReport]:
        """The reports under load that can be read."""
        found = []
        for text in self.reports:
            try:
                found.append(SmiReport.parse(text))
            except ValueError:
                continue
        return found


def look(node: Node, prefix: str = "") -> NvmlView:
    """Return what NVML counts on a node. Raises CheckFailed when the probe does not answer."""
    __tracebackhide__ = True
    text = _probe(node, prefix, "look")
    return NvmlView.model_validate(text)


def compute(node: Node, prefix: str = "", seconds: int = LOAD_SECONDS) -> CudaView:
    """Have every GPU of a node compute and return what came of it. Raises CheckFailed when the
    probe does not answer."""
    __tracebackhide__ = True
    return CudaView.model_validate(_probe(node, prefix, f"compute {seconds}"))


def _probe(node: Node, prefix: str, arguments: str) -> object:
    __tracebackhide__ = True
    script = _SCRIPT.format(
        root=facts.DRIVER_CONTAINER, prefix=prefix, arguments=arguments, source=_SOURCE.read_text()
    )
    try:
        text = node.run_script(script, PATIENCE)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise CheckFailed(f"The GPU probe on '{node.name}' did not end: {error}") from None
    for line in text.splitlines():
        if line.startswith(MARK):
            try:
                return json.loads(line[len(MARK) :])
            except ValueError:
                break
    said = "\n".join(text.strip().splitlines()[-8:]) or "it printed nothing"
    raise CheckFailed(f"The GPU probe on '{node.name}' gave no answer:\n{said}")
