"""nvidia-smi on a node: its report as objects, the NVLinks and the topology.

It finds the program where the GPU operator keeps the driver in a container, and it asks from
outside the login session where DeepOps hides the GPUs from those (``slurm_login_on_compute`` sets
DeviceAllow on the ssh unit). It judges nothing: that is ``Gpus``.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts
from deepops_fixtures.checks.nvidia_smi_data import Gpu, SmiReport
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Runs a command as a service, outside the cgroup of the login session (systemd-run(1)).
OUTSIDE = "systemd-run --quiet --collect --pipe --wait "
_SMI = (
    f"smi=nvidia-smi; root={facts.DRIVER_CONTAINER}; "
    'command -v nvidia-smi >/dev/null || { [ -x "$root/usr/bin/nvidia-smi" ] && '
    'smi="chroot $root nvidia-smi"; }; '
    "exec timeout 120 $smi "
)
_NO_DEVICES = re.compile(r"no devices were found|insufficient permissions", re.IGNORECASE)
_CARD = re.compile(r"GPU (\d+):")
_LINK = re.compile(r"\s*Link (\d+):\s*(?:([\d.]+) GB/s)?")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class NvidiaSmi:
    """What nvidia-smi says on a node (nvidia-smi(1)).

    >>> smi = checks.NvidiaSmi(node)
    >>> [(gpu.name, gpu.temperature_c) for gpu in smi.gpus]
    [('Tesla V100-SXM2-16GB', 34.0)]
    >>> smi.driver_version
    '535.183.01'
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    def run(self, arguments: str) -> Any:
        """Run nvidia-smi with these arguments and return testinfra's result, whatever its
        status."""
        return self.node.host.run(f"{self.prefix}sh -c %s", _SMI + arguments)

    @cached_property
    def prefix(self) -> str:
        """What to put before a command that uses GPUs: '' or the words that take it out of a login
        session from which the GPUs are hidden."""
        here = self.node.host.run("sh -c %s", _SMI + "-L")
        if here.rc == 0 or not _NO_DEVICES.search(here.stdout + here.stderr):
            return ""
        outside = self.node.host.run(f"{OUTSIDE}sh -c %s", _SMI + "-L")
        return OUTSIDE if outside.rc == 0 and _CARD.search(outside.stdout) else ""

    @property
    def hidden_from_logins(self) -> bool:
        """Whether a login session sees none of the GPUs that a service sees."""
        return bool(self.prefix)

    @cached_property
    def report(self) -> SmiReport:
        """The report, read once. Raises CheckFailed with nvidia-smi's own words."""
        __tracebackhide__ = True
        return self.read()

    def read(self) -> SmiReport:
        """Read the report anew. Raises CheckFailed with nvidia-smi's own words."""
        __tracebackhide__ = True
        done = self.run("-q -x")
        try:
            report = SmiReport.parse(done.stdout)
        except ValueError as error:
            said = done.stderr.strip() or str(error)
            raise CheckFailed(
                f"nvidia-smi on '{self.node.name}' gives no report (exit status {done.rc}): {said}"
            ) from None
        extra = tuple(line.strip() for line in done.stderr.splitlines() if line.strip())
        return report.model_copy(update={"remarks": report.remarks + extra})

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs, in the driver's order."""
        return self.report.gpus

    @property
    def driver_version(self) -> str:
        """The driver's version, '535.183.01'."""
        return self.report.driver_version

    @cached_property
    def nvlinks(self) -> dict[int, dict[int, float | None]]:
        """GPU → link → GB/s in each direction, None for a link that is down. A GPU without NVLink
        has none."""
        return parse_nvlinks(self.run("nvlink -s").stdout)

    @cached_property
    def topology(self) -> dict[tuple[int, int], str]:
        """Pair of GPUs → how they are connected: 'NV18' (that many NVLinks), 'PIX', 'PXB', 'PHB',
        'NODE', 'SYS'."""
        return parse_topology(self.run("topo -m").stdout)


def parse_nvlinks(text: str) -> dict[int, dict[int, float | None]]:
    """Return the links of ``nvidia-smi nvlink -s``.

    >>> parse_nvlinks("GPU 0: V100\\n\\t Link 0: 25.781 GB/s\\n\\t Link 1: <inactive>\\n")
    {0: {0: 25.781, 1: None}}
    """
    found: dict[int, dict[int, float | None]] = {}
    links: dict[int, float | None] = {}
    for line in text.splitlines():
        card, link = _CARD.match(line), _LINK.match(line)
        if card:
            links = found.setdefault(int(card[1]), {})
        elif link:
            links[int(link[1])] = float(link[2]) if link[2] else None
    return found


def parse_topology(text: str) -> dict[tuple[int, int], str]:
    """Return the pairs of ``nvidia-smi topo -m``, each in both directions; network cards and what
    follows them are left out."""
    lines = [_ESCAPE.sub("", line).split() for line in text.splitlines()]
    header = next((words for words in lines if words[:1] == ["GPU0"] and "X" not in words), [])
    columns = [int(word[3:]) for word in header if re.fullmatch(r"GPU\d+", word)]
    found: dict[tuple[int, int], str] = {}
    for words in lines:
        if len(words) > len(columns) and re.fullmatch(r"GPU\d+", words[0]) and words != header:
            row = int(words[0][3:])
            found |= {(row, column): words[1 + at] for at, column in enumerate(columns)}
    return {pair: how for pair, how in found.items() if pair[0] != pair[1]}
