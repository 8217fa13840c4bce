"""A node that answers commands from a table, and what a healthy node with GPUs answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from deepops_fixtures.checks.remote.gpu_probe import MARK
from tests.harness.unit.smi_documents import Card, document


@dataclass(frozen=True)
class Reply:
    """What a command gives."""

    stdout: str = ""
    rc: int = 0
    stderr: str = ""


@dataclass
class Host:
    """A node and its testinfra host in one: the first pattern of the table that a command, with
    its arguments, matches gives the reply. What is in no table fails as an unknown command."""

    table: dict[str, Reply]
    name: str = "gpu01"
    groups: list[str] = field(default_factory=list)
    #: Words after the probe's '-' → what it finds.
    probe: dict[str, dict] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    @property
    def host(self) -> Host:
        return self

    def run(self, command: str, *arguments: str) -> Reply:
        line = command % arguments if arguments else command
        self.commands.append(line)
        found = (reply for text, reply in self.table.items() if re.search(text, line, re.DOTALL))
        return next(found, Reply(rc=127, stderr=f"not in the table: {line}"))

    def run_script(self, script: str, _seconds: float) -> str:
        for words, found in self.probe.items():
            if f"python - {words}" in script:
                return f"motd\n{MARK}{json.dumps(found)}\n"
        return "sh: 1: python3: not found\n"


#: Two V100, an A100, and how messages call the first V100.
TWO = (Card(), Card(bus="08", uuid="GPU-2"))
A100 = Card(name="NVIDIA A100-SXM4-40GB", device="20B010DE", mig=("Disabled", "Disabled"))
LABEL = "GPU 0 (0000:07:00.0, Tesla V100-SXM2-16GB)"

#: Patterns of the commands of the checks, in the order in which a table tries them.
SURVEY, REPORT, LIST = "sys/bus/pci", "-q -x$", "-L$"
LINKS, TOPOLOGY, LOG, MIG = "nvlink -s$", "topo -m$", "dmesg", "nvidia-mig-parted"
OWNERS, FABRIC = "/proc/.pid/cgroup", "nv-fabricmanage"


def survey(
    cards: tuple[Card, ...],
    *,
    driver: str = "nvidia",
    answer: str = "de10b11d",
    slot: int = 16,
) -> str:
    """Return what the survey's script prints for these cards."""
    lines = [
        f"pci 0000:{card.bus}:00.0 0x030200 0x{card.device[:4].lower()} {driver} {answer} {slot}"
        for card in cards
    ]
    lines += ["pci 0000:07:00.1 0x040300 0x10f0 snd_hda_intel de10f010 16"]
    if driver == "nvidia":
        lines += [
            "module 535.54.03",
            "proc NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 2023",
        ]
        lines += [f"known 0000:{card.bus}:00.0" for card in cards]
    return "\n".join(lines) + "\n"


def nvml(*cards: Card, driver: str = "535.54.03") -> dict:
    """Return what the probe's 'look' finds."""
    gpus = [{"uuid": card.uuid, "error": ""} for card in cards]
    return {"driver_version": driver, "gpus": gpus, "error": ""}


def cuda(*cards: Card, bandwidth: float = 780.0, **changes: object) -> dict:
    """Return what the probe's 'compute' finds; the load leaves the cards as they are."""
    gpus = [
        {
            "address": f"0000:{card.bus}:00.0",
            "name": card.name,
            "error": "",
            "wrong": "",
            "bandwidth": bandwidth,
            "peak": 898.0,
        }
        for card in cards
    ]
    found = {"gpus": gpus, "reports": [document(*cards)], "load_errors": [], "error": ""}
    return {**found, **changes}


def healthy(*cards: Card, **changes: Reply) -> Host:
    """Return a node with these GPUs (one V100) of which all is well; a reply may be another one,
    by the name of its pattern in lower case."""
    cards = cards or (Card(),)
    names = {"survey": SURVEY, "mig": MIG, "links": LINKS, "topology": TOPOLOGY, "log": LOG,
             "owners": OWNERS, "fabric": FABRIC, "report": REPORT, "listed": LIST}  # fmt: skip
    numbers = range(len(cards))
    heads = "\t".join(f"GPU{number}" for number in numbers)
    rows = [
        f"GPU{one}\t"
        + "\t".join(" X " if one == other else "NV2" for other in numbers)
        + "\t0-9\t0"
        for one in numbers
    ]
    links = "".join(f"\t Link {link}: 25.781 GB/s\n" for link in range(6))
    table = {
        "survey": Reply(survey(cards)),
        "mig": Reply(rc=77),
        "links": Reply("".join(f"GPU {number}: V100\n{links}" for number in numbers)),
        "topology": Reply("\n".join([f"\t{heads}\tCPU Affinity\tNUMA Affinity", *rows])),
        "log": Reply("readable\n"),
        "owners": Reply(),
        "fabric": Reply(rc=3),
        "report": Reply(document(*cards)),
        "listed": Reply("".join(f"GPU {number}: V100\n" for number in numbers)),
    }
    table |= changes
    return Host(
        {names[name]: reply for name, reply in table.items()},
        probe={"look": nvml(*cards), "compute": cuda(*cards)},
    )
