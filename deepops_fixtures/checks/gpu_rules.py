"""What makes a GPU unfit, as rules: pure functions from what the driver reports to sentences.

A rule returns what is wrong, [] for nothing, and raises Untold where the card does not tell what
the rule needs: what was not seen is never counted as good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from deepops_fixtures import facts
from deepops_fixtures.checks.nvidia_smi_data import Gpu, kernel_address

#: Part of the limit by which a reading of the power may lie above it; the driver steers to the
#: limit and averages.
POWER_TOLERANCE = 0.05
#: Retired pages with which a card before Ampere fails NVIDIA's diagnostics (DCGM's source,
#: DCGM_LIMIT_MAX_RETIRED_PAGES, which follows the field diagnostic).
MOST_RETIRED_PAGES = 63
_CORRUPTED = re.compile(r"infoROM is corrupted at gpu ([0-9a-fA-F:.]+)", re.IGNORECASE)
#: Reasons for low clocks that heat or the supply of power is the cause of (nvidia-smi(1)).
HARDWARE_REASONS = {
    "hw_thermal_slowdown": "the hardware slows it down for its heat",
    "hw_power_brake_slowdown": "the power supply asks it to slow down",
    "sw_thermal_slowdown": "the driver slows it down for its heat",
}


class Untold(Exception):
    """The card or its driver does not tell what a rule needs."""


class VerdictWarning(UserWarning):
    """What is no fault and yet worth knowing; ``-W error::deepops_fixtures.checks.VerdictWarning``
    makes it a failure."""


@dataclass(frozen=True)
class Verdict:
    """What a check found on a node: what is wrong, and what could not be judged and why."""

    node: str
    faults: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    #: How many things were judged, well or badly.
    judged: int = 0
    #: What is no fault and yet worth knowing.
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = self.faults or (() if self.judged else self.unjudged)
        return f"{self.node}: {'; '.join(said) or 'nothing to complain of'}"


Rule = Callable[[Gpu], Sequence[str]]


def judge(node: str, gpus: Iterable[Gpu], rule: Rule) -> Verdict:
    """Return what a rule says of each GPU."""
    faults: list[str] = []
    unjudged: list[str] = []
    judged = 0
    for gpu in gpus:
        try:
            faults += [f"{gpu.label} {text}" for text in rule(gpu)]
            judged += 1
        except Untold as error:
            unjudged.append(f"{gpu.label} {error}")
    return Verdict(node, tuple(dict.fromkeys(faults)), tuple(dict.fromkeys(unjudged)), judged)


def memory(gpu: Gpu) -> list[str]:
    """Errors of the memory that could not be corrected, and repairs that are due or failed."""
    told = (gpu.ecc_uncorrectable, gpu.retirement_pending, gpu.remap_pending, gpu.remap_failed)
    if all(each is None for each in told) and not gpu.repairs and not gpu.recovery:
        raise Untold("tells nothing of errors in its memory")
    found = []
    if gpu.ecc_uncorrectable:
        found.append(
            f"had {gpu.ecc_uncorrectable} memory error(s) that ECC could not correct since the "
            "driver was loaded"
        )
    if gpu.retirement_pending:
        found.append("has bad pages that are retired at its next reset")
    if (gpu.retired_pages or 0) >= MOST_RETIRED_PAGES:
        found.append(
            f"has retired {gpu.retired_pages} pages; NVIDIA's diagnostics fail it from "
            f"{MOST_RETIRED_PAGES} on"
        )
    if gpu.remap_pending:
        found.append("has bad rows that are remapped at its next reset")
    if gpu.banks_without_spares:
        found.append(f"has {gpu.banks_without_spares} bank(s) of memory with no spare row left")
    if gpu.remap_failed:
        found.append("could not remap a bad row of its memory; NVIDIA replaces a card for that")
    found += [f"reports '{name}'" for name in gpu.repairs]
    if gpu.recovery:
        found.append(f"is to be recovered, says the driver: '{gpu.recovery}'")
    return found


def inforom(remarks: Iterable[str]) -> Rule:
    """Return the rule on the infoROM, for what nvidia-smi says around its report. Where it is
    corrupted, what is told of retired pages and remapped rows need not be true, and NVIDIA's
    diagnostics fail (dcgmi diag -r 1)."""
    found = {kernel_address(match[1]) for match in map(_CORRUPTED.search, remarks) if match}

    def rule(gpu: Gpu) -> list[str]:
        if gpu.address not in found:
            return []
        return ["has a corrupted infoROM, where the record of its bad memory is kept"]

    return rule


def unseen_rows(gpu: Gpu) -> list[str]:
    """Rows of the memory that the driver does not tell of: with MIG it knows the errors alone
    (NVML API Reference, nvmlDeviceGetRemappedRows)."""
    known = gpu.remap_pending is not None or gpu.ecc_uncorrectable is None
    return [] if known or not gpu.mig else ["does not tell of its remapped rows while MIG is on"]


def repaired(gpu: Gpu) -> list[str]:
    """Memory that was taken out of use for good, however long ago: it works, and it wears out.

    NVIDIA replaces no card for remapped rows, but for a remapping that failed (GPU Memory Error
    Management, RMA Policy).
    """
    found = []
    if gpu.remapped_rows:
        found.append(f"has remapped {gpu.remapped_rows} row(s) of its memory in its life")
    if gpu.retired_pages:
        found.append(f"has retired {gpu.retired_pages} page(s) of its memory in its life")
    return found


def heat(gpu: Gpu) -> list[str]:
    """Temperatures that have come to where clocks are slowed down. °C."""
    if gpu.headroom_c is None and (gpu.temperature_c is None or gpu.slowdown_c is None):
        raise Untold("does not tell how far it is from slowing down for its heat")
    found = []
    if gpu.headroom_c is not None:
        if gpu.headroom_c <= 0:
            found.append(f"is {-gpu.headroom_c:.0f} °C past where it slows down for its heat")
    elif (gpu.temperature_c or 0) >= (gpu.slowdown_c or 0):
        found.append(f"is at {gpu.temperature_c:.0f} °C and slows down at {gpu.slowdown_c:.0f} °C")
    is_at, most = gpu.memory_temperature_c, gpu.memory_temperature_max_c
    if is_at is not None and most is not None and is_at >= most:
        found.append(f"has memory at {is_at:.0f} °C, allowed: {most:.0f} °C")
    return found


def power(gpu: Gpu) -> list[str]:
    """More power drawn than the limit allows. W."""
    if gpu.power_w is None or gpu.power_limit_w is None:
        raise Untold("does not tell its power and limit")
    if gpu.power_w > gpu.power_limit_w * (1 + POWER_TOLERANCE):
        return [f"draws {gpu.power_w:.0f} W, its limit is {gpu.power_limit_w:.0f} W"]
    return []


def clocks(seen: Sequence[Gpu]) -> Rule:
    """Return the rule on low clocks, for the same GPU may have been seen several times.

    'hw_slowdown' alone may be a change of clocks that was going on (nvidia-smi(1)): it has to be
    there each time.
    """

    def rule(gpu: Gpu) -> list[str]:
        reasons = [
            each.clock_reasons
            for each in seen
            if each.address == gpu.address and each.clock_reasons is not None
        ]
        if not reasons:
            raise Untold("does not tell why its clocks are what they are")
        every = frozenset().union(*reasons)
        found = [text for name, text in HARDWARE_REASONS.items() if name in every]
        if not found and all("hw_slowdown" in each for each in reasons):
            found.append("is slowed down by the hardware")
        return [f"has low clocks: {text}" for text in found]

    return rule


def link(loaded: Sequence[Gpu], slots: dict[str, int]) -> Rule:
    """Return the rule on the PCIe link, for GPUs seen under load; idle ones lower its speed.
    ``slots``: address → lanes of the slot, which nvidia-smi does not always take into account."""

    def rule(gpu: Gpu) -> list[str]:
        seen = [each for each in loaded if each.address == gpu.address]
        generations = [each.pcie_generation for each in seen if each.pcie_generation]
        widths = [each.pcie_width for each in seen if each.pcie_width]
        most = gpu.pcie_generation_max
        lanes = [n for n in (gpu.pcie_width_max, slots.get(gpu.address)) if n]
        if not generations or not widths or not most or not lanes:
            raise Untold("does not tell its PCIe link under load")
        generation, width = max(generations), max(widths)
        if generation >= most and width >= min(lanes):
            return []
        text = (
            f"has a PCIe link of generation {generation}, width x{width} under load, "
            f"possible: generation {most}, x{min(lanes)}"
        )
        if gpu.virtualization == "Pass-Through":
            text += (
                f" (a guest cannot see its slot: compare with 'lspci -vv -d {gpu.pci_id}' there)"
            )
        return [text]

    return rule


def persistence(gpu: Gpu) -> list[str]:
    """Persistence mode that is off: the driver forgets the GPU when nobody uses it."""
    if gpu.persistence is None:
        raise Untold("does not tell its persistence mode")
    return [] if gpu.persistence else ["is not in persistence mode (nvidia-smi -pm 1)"]


def mig(gpu: Gpu) -> list[str]:
    """A MIG mode that is not in force yet, or that leaves nothing to use."""
    if gpu.mig is None:
        raise Untold("has no MIG")
    if gpu.mig_pending is not None and gpu.mig != gpu.mig_pending:
        words = {True: "on", False: "off"}
        return [f"has MIG {words[gpu.mig]}, and {words[gpu.mig_pending]} after its next reset"]
    if gpu.mig and not gpu.mig_devices:
        return ["has MIG on and no MIG device, so that nobody can use it"]
    return []


def fabric(gpu: Gpu) -> list[str]:
    """An NVLink fabric that the GPU has not joined, or that is not well."""
    if not gpu.fabric_state:
        raise Untold("is in no NVLink fabric")
    if gpu.fabric_state.lower() == "completed" and gpu.fabric_status.lower() in ("", "success"):
        unwell = ", ".join(gpu.fabric_faults)
        return [f"is in an NVLink fabric that is not well ({unwell})"] if unwell else []
    said = " ".join(filter(None, (gpu.fabric_state, gpu.fabric_status)))
    text = f"has not joined the NVLink fabric: '{said}'"
    return [f"{text} (CUDA_ERROR_SYSTEM_NOT_READY follows; look at nvidia-fabricmanager)"]


def nvlinks(links: dict[int, dict[int, float | None]], switched: bool, peers: int) -> Rule:
    """Return the rule on NVLinks. ``switched``: there are NVSwitches; ``peers``: other GPUs on
    the node."""

    def rule(gpu: Gpu) -> list[str]:
        mine = links.get(gpu.index, {})
        up = {number: speed for number, speed in mine.items() if speed}
        card = facts.CARDS.get(gpu.pci_id)
        if card is None or card.nvlinks is None:
            raise Untold(f"is of a kind whose NVLinks depend on its board ({len(up)} are up)")
        if not switched and not up and not peers:
            raise Untold("has no other GPU to be linked with")
        if not switched and gpu.virtualization == "Pass-Through" and len(up) < card.nvlinks:
            raise Untold(
                "is in a guest, which may not have been given the GPUs that it is linked to"
            )
        if len(up) < card.nvlinks:
            down = sorted(set(range(card.nvlinks)) - set(up))
            return [f"has {len(up)} of {card.nvlinks} NVLinks up; down: {_numbers(down)}"]
        best = max(up.values())
        slow = sorted(number for number, speed in up.items() if speed < 0.95 * best)
        return [f"has slow NVLinks: {_numbers(slow)} (the others {best} GB/s)"] if slow else []

    return rule


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
