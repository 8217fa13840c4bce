"""Documents as ``nvidia-smi -q -x`` prints them, made from a few values in the shape of each
version of its DTD (v9 of r390 to v13 of r590). The values are ours; the shapes are those of
nvidia-smi."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from xml.sax.saxutils import escape

#: Version of the DTD → a driver that prints it.
DRIVERS = {9: "390.94", 10: "440.33.01", 11: "515.105.01", 12: "535.54.03", 13: "590.44.01"}
HARDWARE = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
REASONS = ("gpu_idle", "sw_power_cap", *HARDWARE, "sw_thermal_slowdown")


@dataclass(frozen=True)
class Card:
    """A healthy V100; ``but`` gives another with some values changed."""

    bus: str = "07"
    name: str = "Tesla V100-SXM2-16GB"
    uuid: str = "GPU-1"
    device: str = "1DB110DE"
    persistence: str = "Enabled"
    virtualization: str = "None"
    mig: tuple[str, str] = ("N/A", "N/A")
    slices: int = 0
    #: Uncorrectable errors in the SRAM of each slice.
    sliced_errors: str = "0"
    ecc: str = "Enabled"
    uncorrectable: str = "0"
    retired: str = "0"
    retirement_pending: str = "No"
    rows: str = "0"
    no_spares: str = "0"
    remap_pending: str = "No"
    remap_failure: str = "No"
    generation: tuple[int, int] = (3, 3)
    width: tuple[int, int] = (16, 16)
    temperature: str = "34 C"
    slowdown: int = 85
    draw: str = "52.10 W"
    limit: str = "300.00 W"
    active: tuple[str, ...] = ("gpu_idle",)
    fabric: tuple[str, str] = ("N/A", "N/A")
    #: What the driver says of the fabric's health: element → text.
    fabric_health: dict[str, str] = field(default_factory=dict)
    addressing: str = "None"
    recovery: str = "None"
    #: What came before the recovery: 'reset_required', 'drain_and_reset_recommended'.
    reset: str = ""
    sram_threshold: str = "No"
    #: (pid, type, name)
    processes: tuple[tuple[int, str, str], ...] = field(default_factory=tuple)

    def but(self, **changes: object) -> Card:
        """Return the same card with these values."""
        return replace(self, **changes)


def tag(name: str, *inner: str | int) -> str:
    return f"<{name}>{''.join(map(str, inner))}</{name}>"


def document(*cards: Card, dtd: int = 12, driver: str = "") -> str:
    """Return the document of these cards in the shape of this DTD."""
    cuda = tag("cuda_version", "12.2") if dtd > 9 else ""
    body = "".join(_gpu(card, dtd) for card in cards)
    return (
        '<?xml version="1.0" ?>\n'
        f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v{dtd}.dtd">\n'
        f"<nvidia_smi_log>\n{tag('driver_version', driver or DRIVERS[dtd])}{cuda}"
        f"{tag('attached_gpus', len(cards))}\n{body}</nvidia_smi_log>\n"
    )


def _gpu(card: Card, dtd: int) -> str:
    gone = "Requested functionality has been deprecated"
    address = f"00000000:{card.bus.upper()}:00.0"
    pci = tag("pci_device_id", card.device) + tag("pci_bus_id", address)
    inner = [
        tag("product_name", escape(card.name)),
        tag("display_mode", gone if dtd > 12 else "Disabled"),
        tag("persistence_mode", card.persistence),
        tag("addressing_mode", card.addressing) if dtd > 11 else "",
        _mig(card) if dtd > 10 else "",
        tag("uuid", card.uuid),
        tag("gpu_virtualization_mode", tag("virtualization_mode", card.virtualization)),
        tag("gpu_recovery_action", card.recovery) if dtd > 12 else "",
        _reset(card, dtd) if dtd > 11 else "",
        tag("pci", pci, _link(card, dtd)),
        tag("performance_state", "P0"),
        _reasons(card, dtd),
        tag("fb_memory_usage", tag("total", "16160 MiB"), tag("used", "3 MiB")),
        tag("compute_mode", "Default"),
        tag("ecc_mode", tag("current_ecc", card.ecc), tag("pending_ecc", card.ecc)),
        _errors(card, dtd),
        _repairs(card, dtd),
        _temperature(card, dtd),
        _power(card, dtd),
        tag("clocks", tag("sm_clock", "1290 MHz"), tag("mem_clock", "877 MHz")),
        tag("max_clocks", tag("sm_clock", "1530 MHz")),
        _fabric(card),
        tag("processes", *(_process(*process) for process in card.processes)),
    ]
    return f'<gpu id="{address}">' + "\n".join(inner) + "</gpu>\n"


def _mig(card: Card) -> str:
    mode = tag("mig_mode", tag("current_mig", card.mig[0]), tag("pending_mig", card.mig[1]))
    sram = tag("sram_uncorrectable", card.sliced_errors)
    devices = [
        tag(
            "mig_device",
            tag("index", number),
            tag("gpu_instance_id", number + 1),
            tag("compute_instance_id", 0),
            tag("ecc_error_count", tag("volatile_count", sram)),
            tag("fb_memory_usage", tag("total", "4864 MiB")),
        )
        for number in range(card.slices)
    ]
    return mode + tag("mig_devices", *devices or ["\n\t\t\tNone\n\t\t"])


def _fabric(card: Card) -> str:
    health = tag("health", *(tag(name, text) for name, text in card.fabric_health.items()))
    return tag("fabric", tag("state", card.fabric[0]), tag("status", card.fabric[1]), health)


def _link(card: Card, dtd: int) -> str:
    generation = tag("max_link_gen", card.generation[1]) + tag(
        "current_link_gen", card.generation[0]
    )
    if dtd > 11:
        generation += tag("max_device_link_gen", 5) + tag("max_host_link_gen", 4)
    width = tag("max_link_width", f"{card.width[1]}x") + tag(
        "current_link_width", f"{card.width[0]}x"
    )
    return tag("pci_gpu_link_info", tag("pcie_gen", generation), tag("link_widths", width))


def _reasons(card: Card, dtd: int) -> str:
    word = "event" if dtd > 11 else "throttle"
    told = [
        tag(f"clocks_{word}_reason_{name}", "Active" if name in card.active else "Not Active")
        for name in REASONS
    ]
    return tag(f"clocks_{word}_reasons", *told)


def _reset(card: Card, dtd: int) -> str:
    gone = "Requested functionality has been deprecated"
    names = ("reset_required", "drain_and_reset_recommended")
    now = {name: "Yes" if card.reset == name else "No" for name in names}
    return tag("gpu_reset_status", *(tag(n, gone if dtd > 12 else now[n]) for n in names))


def _errors(card: Card, dtd: int) -> str:
    if dtd < 10:
        bits = tag("double_bit", tag("device_memory", "0"), tag("total", card.uncorrectable))
        spans = [tag(span, tag("single_bit", tag("total", "7")), bits) for span in _SPANS]
    else:
        kinds = ("parity", "secded") if dtd > 12 else ("",)
        none = "N/A" if card.uncorrectable == "N/A" and card.slices else "0"
        sram = [tag(f"sram_uncorrectable{'_' * bool(kind)}{kind}", none) for kind in kinds]
        dram = tag("dram_correctable", "7") + tag("dram_uncorrectable", card.uncorrectable)
        limit = tag("sram_threshold_exceeded", card.sram_threshold) if dtd > 12 else ""
        spans = [tag(span, *sram, dram, limit * (span == "aggregate")) for span in _SPANS]
    more = tag("channel_repair_pending", "No") if dtd > 12 else ""
    return tag("ecc_errors", *spans, more)


_SPANS = ("volatile", "aggregate")


def _repairs(card: Card, dtd: int) -> str:
    pages = "N/A" if dtd > 11 else card.retired
    causes = [
        tag(cause, tag("retired_count", count))
        for cause, count in (
            ("multiple_single_bit_retirement", pages if pages == "N/A" else "0"),
            ("double_bit_retirement", pages),
        )
    ]
    pending = "N/A" if dtd > 11 else card.retirement_pending
    # r410 and later have both; a page waits when either says so.
    old = [tag("pending_blacklist", "N/A" if dtd > 11 else "No")] if dtd > 9 else []
    retired = tag("retired_pages", *causes, *old, tag("pending_retirement", pending))
    if dtd < 11:
        return retired
    if card.rows == "N/A":
        return retired + tag("remapped_rows", "N/A")
    rows = [
        tag("remapped_row_corr", "0"),
        tag("remapped_row_unc", card.rows),
        tag("remapped_row_pending", card.remap_pending),
        tag("remapped_row_failure", card.remap_failure),
        _banks(card.no_spares),
    ]
    return retired + (tag("remapped_rows", *rows) if dtd > 11 else tag("remapped_rows", "N/A"))


def _banks(none_left: str) -> str:
    kinds = {"max": "640", "high": "0", "partial": "0", "low": "0", "none": none_left}
    told = (tag(f"row_remapper_histogram_{kind}", f"{n} bank(s)") for kind, n in kinds.items())
    return tag("row_remapper_histogram", *told)


def _temperature(card: Card, dtd: int) -> str:
    now = tag("gpu_temp", card.temperature)
    if dtd < 13:
        return tag("temperature", now, tag("gpu_temp_slow_threshold", f"{card.slowdown} C"))
    degrees = card.temperature.split()[0]
    # What is left counts from a temperature two degrees below the one that slows down.
    left = str(card.slowdown - 2 - int(degrees)) + " C" if degrees.isdigit() else "N/A"
    return tag(
        "temperature",
        now,
        tag("gpu_temp_tlimit", left),
        tag("gpu_temp_slow_tlimit_threshold", "-2 C"),
        tag("memory_temp", "N/A"),
    )


def _power(card: Card, dtd: int) -> str:
    if dtd < 12:
        limits = tag("power_limit", card.limit) + tag("enforced_power_limit", card.limit)
        return tag("power_readings", tag("power_draw", card.draw), limits)
    draw = tag("average_power_draw" if dtd > 12 else "power_draw", card.draw)
    chip = tag("gpu_power_readings", draw, tag("current_power_limit", card.limit))
    return chip + tag("module_power_readings", tag("power_draw", "N/A"))


def _process(pid: int, kind: str, name: str) -> str:
    told = tag("pid", pid) + tag("type", kind) + tag("process_name", escape(name))
    return tag("process_info", told, tag("used_memory", "312 MiB"))
