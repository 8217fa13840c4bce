"""What ``nvidia-smi -q -x`` prints, as typed objects with units in the fields' names. Pure
functions from text to objects; nothing is run here, and nothing is judged.

The document has changed its shape with almost every branch of the driver (390 to 590, DTD v9 to
v13): elements were renamed, split and nested. Each field below lists where it has been found.
Whatever a card does not tell ('N/A', '[Not Supported]', 'Requested functionality has been
deprecated', an element that is not there) is None, never zero. Source: nvidia-smi(1).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict

from deepops_fixtures.checks.nvidia_smi_section import Section

_HEXADECIMAL = re.compile("[0-9a-f]+")
#: How the names of the reasons for low clocks begin; r535 renamed them.
_REASON = re.compile(r"clocks_(?:throttle|event)_reason_")
#: What is told of the NVLink fabric's health, and the words for all being well (NVML API
#: Reference, nvmlGpuFabricInfoV: healthMask and healthSummary).
_FABRIC_HEALTH = (
    "summary",
    "bandwidth",
    "route_recovery_in_progress",
    "route_unhealthy",
    "access_timeout_recovery",
    "incorrect_configuration",
)
_FABRIC_WELL = frozenset({"healthy", "full", "false"})


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class MigDevice(_Data):
    """A slice of a GPU that is used like a GPU (MIG)."""

    index: int
    gpu_instance: int | None
    compute_instance: int | None
    memory_mib: int | None


class GpuProcess(_Data):
    """A process that has memory on a GPU; type 'C' computes, 'G' draws, 'C+G' does both, 'M+C'
    computes through MPS."""

    pid: int
    type: str
    name: str
    memory_mib: int | None

    @property
    def computes(self) -> bool:
        """Whether it computes and does not draw."""
        return "C" in self.type.split("+") and "G" not in self.type.split("+")


class Gpu(_Data):
    """A GPU as the driver reports it. None: the card or the driver does not tell."""

    index: int
    #: Address as the kernel writes it, '0000:07:00.0'.
    address: str
    name: str
    uuid: str
    #: PCI vendor and device, '10de:20b2' ('' when not told).
    pci_id: str
    #: 'None', 'Pass-Through', 'VGPU', 'Host VGPU'.
    virtualization: str
    persistence: bool | None
    compute_mode: str
    performance_state: str

    mig: bool | None
    mig_pending: bool | None
    mig_devices: tuple[MigDevice, ...]

    ecc: bool | None
    ecc_pending: bool | None
    #: Errors since the driver was loaded.
    ecc_uncorrectable: int | None
    #: Errors in the card's whole life.
    ecc_uncorrectable_ever: int | None
    #: Before Ampere bad memory is retired page by page, since then row by row.
    retired_pages: int | None
    retirement_pending: bool | None
    remapped_rows: int | None
    remap_pending: bool | None
    remap_failed: bool | None
    #: Banks of the memory in which no row is left for a bad one.
    banks_without_spares: int | None
    #: Repairs of the memory that wait for a reset or cannot be made ('channel_repair_pending', …),
    #: and 'sram_threshold_exceeded'.
    repairs: tuple[str, ...]
    #: What the driver asks for: '' (nothing), 'Reset', 'Reboot', 'Drain and Reset', …
    recovery: str

    pcie_generation: int | None
    pcie_generation_max: int | None
    pcie_width: int | None
    pcie_width_max: int | None

    temperature_c: float | None
    #: Temperature at which the hardware slows the clocks down.
    slowdown_c: float | None
    #: Degrees left until the clocks are slowed down; what newer cards tell instead of slowdown_c.
    headroom_c: float | None
    memory_temperature_c: float | None
    memory_temperature_max_c: float | None

    power_w: float | None
    power_limit_w: float | None
    power_limit_min_w: float | None
    power_limit_max_w: float | None

    sm_clock_mhz: float | None
    sm_clock_max_mhz: float | None
    memory_clock_mhz: float | None
    #: Reasons for low clocks that are active ('hw_thermal_slowdown', 'gpu_idle', …); None when
    #: the card tells none at all.
    clock_reasons: frozenset[str] | None

    memory_total_mib: int | None
    memory_used_mib: int | None

    #: Registration with the NVLink fabric: 'Completed', 'In Progress', 'Not Started'; '' without.
    fabric_state: str
    fabric_status: str
    #: What is not well in the fabric ('route_unhealthy: True'); told since r550, by Blackwell.
    fabric_faults: tuple[str, ...]

    processes: tuple[GpuProcess, ...]
    #: Elements in which the driver says that the GPU does not answer, 'gpu_temp: GPU is lost'.
    broken: tuple[str, ...]

    @property
    def label(self) -> str:
        """The GPU as messages call it."""
        return f"GPU {self.index} ({self.address}, {self.name or 'no name'})"


class SmiReport(_Data):
    """One output of ``nvidia-smi -q -x``."""

    driver_version: str
    #: Version of CUDA that the driver speaks, '' where it is not told (before r410).
    cuda_version: str
    #: How many GPUs the driver says that there are.
    attached: int
    gpus: tuple[Gpu, ...]
    #: What stood around the document: warnings, and GPUs that could not be asked.
    remarks: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> SmiReport:
        """Return the report in this output. Raises ValueError when there is no document in it, or
        one that ends early."""
        begin, end = text.find("<?xml"), text.rfind("</nvidia_smi_log>")
        begin = text.find("<nvidia_smi_log>") if begin < 0 else begin
        if begin < 0 or end < begin:
            raise ValueError(" ".join(text.split())[:400] or "it printed nothing")
        end += len("</nvidia_smi_log>")
        try:
            top = Section(ElementTree.fromstring(text[begin:end]))
        except ElementTree.ParseError as error:
            raise ValueError(f"its XML cannot be read: {error}") from None
        around = (text[:begin] + "\n" + text[end:]).splitlines()
        gpus = tuple(_gpu(number, gpu) for number, gpu in enumerate(top.sections("gpu")))
        return cls(
            driver_version=top.text("driver_version"),
            cuda_version=top.text("cuda_version"),
            attached=top.integer("attached_gpus") or len(gpus),
            gpus=gpus,
            remarks=tuple(line.strip() for line in around if line.strip()),
        )


def _gpu(index: int, gpu: Section) -> Gpu:
    values = {**_identity(gpu), **_mig(gpu), **_memory_health(gpu), **_link(gpu)}
    values |= {**_heat_and_power(gpu), **_clocks(gpu)}
    return Gpu.model_validate(
        {
            **values,
            "index": index,
            "memory_total_mib": gpu.integer("fb_memory_usage/total"),
            "memory_used_mib": gpu.integer("fb_memory_usage/used"),
            "fabric_state": gpu.text("fabric/state"),
            "fabric_status": gpu.text("fabric/status"),
            "fabric_faults": _fabric_faults(gpu),
            "processes": _processes(gpu),
            "broken": gpu.broken(),
        }
    )


def _identity(gpu: Section) -> dict[str, object]:
    # The device comes before the vendor, in one number.
    number = gpu.text("pci/pci_device_id").lower().removeprefix("0x").zfill(8)
    told = bool(_HEXADECIMAL.fullmatch(number)) and number.strip("0")
    return {
        "address": kernel_address(gpu.element.get("id") or gpu.text("pci/pci_bus_id")),
        "name": gpu.text("product_name"),
        "uuid": gpu.text("uuid"),
        "pci_id": f"{number[4:]}:{number[:4]}" if told else "",
        "virtualization": gpu.text("gpu_virtualization_mode/virtualization_mode") or "None",
        "persistence": gpu.flag("persistence_mode"),
        "compute_mode": gpu.text("compute_mode"),
        "performance_state": gpu.text("performance_state"),
    }


def kernel_address(text: str) -> str:
    """Return an address of nvidia-smi as the kernel writes it.

    >>> kernel_address("00000000:1A:00.0")
    '0000:1a:00.0'
    """
    domain, _, rest = text.strip().lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}" if rest and _HEXADECIMAL.fullmatch(domain) else text


def _mig(gpu: Section) -> dict[str, object]:
    return {
        "mig": gpu.flag("mig_mode/current_mig"),
        "mig_pending": gpu.flag("mig_mode/pending_mig"),
        "mig_devices": tuple(
            MigDevice(
                index=part.integer("index") or 0,
                gpu_instance=part.integer("gpu_instance_id"),
                compute_instance=part.integer("compute_instance_id"),
                memory_mib=part.integer("fb_memory_usage/total"),
            )
            for part in gpu.sections("mig_devices/mig_device")
        ),
    }


def _uncorrectable(gpu: Section, below: str) -> int | None:
    """Return the errors that are counted below an element."""
    old = gpu.integer(f"{below}/double_bit/total")
    # r4xx and r5xx: SRAM and DRAM apart; since r550 SRAM's by how they were found.
    sram = "sram_uncorrectable"
    kinds = (sram, f"{sram}_parity", f"{sram}_secded", "dram_uncorrectable")
    return gpu.total(*(f"{below}/{kind}" for kind in kinds)) if old is None else old


def _memory_health(gpu: Section) -> dict[str, object]:
    # With MIG the slices count, and the GPU may not.
    places = ("ecc_errors/volatile", "mig_devices/mig_device/ecc_error_count/volatile_count")
    volatile = [_uncorrectable(gpu, place) for place in places]
    repairs = ("channel_repair_pending", "tpc_repair_pending", "unrepairable_memory")
    pages, rows = "retired_pages", "remapped_rows"
    causes = ("multiple_single_bit_retirement", "double_bit_retirement")
    found = [name for name in repairs if gpu.flag(f"ecc_errors/{name}")]
    # Since r550: more errors in the SRAM than a card may have (NVIDIA, GPU Memory Error
    # Management).
    if gpu.flag("ecc_errors/aggregate/sram_threshold_exceeded"):
        found.append("sram_threshold_exceeded")
    wanted = {"reset_required": "Reset", "drain_and_reset_recommended": "Drain and Reset"}
    reset = next(
        (word for name, word in wanted.items() if gpu.flag(f"gpu_reset_status/{name}")), ""
    )
    return {
        "ecc": gpu.flag("ecc_mode/current_ecc"),
        "ecc_pending": gpu.flag("ecc_mode/pending_ecc"),
        "ecc_uncorrectable": max((count for count in volatile if count is not None), default=None),
        "ecc_uncorrectable_ever": _uncorrectable(gpu, "ecc_errors/aggregate"),
        "retired_pages": gpu.total(*(f"{pages}/{cause}/retired_count" for cause in causes)),
        "retirement_pending": gpu.any_flag(
            f"{pages}/pending_blacklist", f"{pages}/pending_retirement"
        ),
        "remapped_rows": gpu.total(f"{rows}/remapped_row_corr", f"{rows}/remapped_row_unc"),
        "remap_pending": gpu.flag(f"{rows}/remapped_row_pending"),
        "remap_failed": gpu.flag(f"{rows}/remapped_row_failure"),
        "banks_without_spares": gpu.integer(
            f"{rows}/row_remapper_histogram/row_remapper_histogram_none"
        ),
        "repairs": tuple(found),
        "recovery": gpu.text("gpu_recovery_action") or reset,
    }


def _link(gpu: Section) -> dict[str, object]:
    link = "pci/pci_gpu_link_info"
    return {
        "pcie_generation": gpu.integer(f"{link}/pcie_gen/current_link_gen"),
        "pcie_generation_max": gpu.integer(f"{link}/pcie_gen/max_link_gen"),
        "pcie_width": gpu.integer(f"{link}/link_widths/current_link_width"),
        "pcie_width_max": gpu.integer(f"{link}/link_widths/max_link_width"),
    }


def _heat_and_power(gpu: Section) -> dict[str, object]:
    left = gpu.number("temperature/gpu_temp_tlimit")
    slow = gpu.number("temperature/gpu_temp_slow_tlimit_threshold")

    def watts(*names: str) -> float | None:
        # r535 split the readings into those of the chip and those of its module.
        places = ("gpu_power_readings", "power_readings", "module_power_readings")
        return gpu.number(*(f"{place}/{name}" for place in places for name in names))

    return {
        "temperature_c": gpu.number("temperature/gpu_temp"),
        "slowdown_c": gpu.number("temperature/gpu_temp_slow_threshold"),
        "headroom_c": None if left is None or slow is None else left - slow,
        "memory_temperature_c": gpu.number("temperature/memory_temp"),
        "memory_temperature_max_c": gpu.number("temperature/gpu_temp_max_mem_threshold"),
        "power_w": watts("average_power_draw", "power_draw", "instant_power_draw"),
        "power_limit_w": watts("current_power_limit", "enforced_power_limit", "power_limit"),
        "power_limit_min_w": watts("min_power_limit"),
        "power_limit_max_w": watts("max_power_limit"),
    }


def _clocks(gpu: Section) -> dict[str, object]:
    told: dict[str, bool] = {}
    for name in ("clocks_event_reasons", "clocks_throttle_reasons"):
        for reason in gpu.sections(f"{name}/*"):
            active = reason.flag(".")
            if active is not None:
                told[_REASON.sub("", reason.element.tag)] = active
    return {
        "sm_clock_mhz": gpu.number("clocks/sm_clock"),
        "sm_clock_max_mhz": gpu.number("max_clocks/sm_clock"),
        "memory_clock_mhz": gpu.number("clocks/mem_clock"),
        "clock_reasons": frozenset(key for key, value in told.items() if value) if told else None,
    }


def _fabric_faults(gpu: Section) -> tuple[str, ...]:
    texts = {name: gpu.text(f"fabric/health/{name}") for name in _FABRIC_HEALTH}
    return tuple(
        f"{name}: {text}"
        for name, text in texts.items()
        if text and text.lower() not in _FABRIC_WELL
    )


def _processes(gpu: Section) -> tuple[GpuProcess, ...]:
    return tuple(
        GpuProcess(
            pid=part.integer("pid") or 0,
            type=part.text("type"),
            name=part.text("process_name"),
            memory_mib=part.integer("used_memory"),
        )
        for part in gpu.sections("processes/process_info")
    )
