"""The BIOS: which settings passthrough needs, where each machine's menu has them, and whether they
are on as far as Linux can tell.

The menus are those of the DeepOps Virtual README, word for word. A DGX names itself to DMI as
'DGX-1', 'DGX-1 with V100', 'DGX-1 with V100-32', 'DGX-2' or 'DGX Station', some with 'NVIDIA '
before it. Later ones ('DGXA100 920-23687-2531-001', 'DGXH100') are not in the README, and get the
names that any BIOS has for the settings. Nothing here can change a setting: firmware is changed by
hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Question, Verdict, ok, skip, warn

Setting = Literal["VT-x", "VT-d", "MMIO above 4G"]
SETTINGS: Final[tuple[Setting, ...]] = ("VT-x", "VT-d", "MMIO above 4G")


@dataclass(frozen=True)
class Menus:
    """Where the SBIOS of a machine has each setting; '' where the README leaves it open."""

    machine: str
    product: re.Pattern[str]
    paths: dict[Setting, str]
    #: What else the README sets, which Linux cannot see.
    besides: str = ""


MACHINES: Final = (
    Menus(
        "DGX-2",
        re.compile(r"\bDGX-2H?\b"),
        {"VT-x": "enable", "VT-d": "enable", "MMIO above 4G": "enable"},
        besides="Intel AMT: disable",
    ),
    Menus(
        "DGX-1/1V",
        re.compile(r"\bDGX-1V?\b"),
        {
            "VT-x": "Intel RC Setup -> Processor Configuration -> VMX",
            "VT-d": "Intel RC Setup -> IIO Configuration -> VT-d",
            "MMIO above 4G": "Advanced -> PCI Subsystem Setting -> Above 4G Encoding",
        },
    ),
    # Later ones are other machines: the DGX Station A100 has a processor of AMD, the GB300 Arm's.
    Menus(
        "DGX Station",
        re.compile(r"\bDGX Station\b(?! (?:A100|GB\d))"),
        {
            "VT-x": "",
            "VT-d": "",
            "MMIO above 4G": "verify virtualization support is enabled in the BIOS",
        },
    ),
)

#: What other machines call these settings, by the processor's maker.
_NAMES: Final[dict[str, dict[Setting, str]]] = {
    "intel": {
        "VT-x": "Intel VT-x",
        "VT-d": "Intel VT-d",
        "MMIO above 4G": "'MMIO above 4G' ('Above 4G encoding', 'Above 4G decoding')",
    },
    "amd": {
        "VT-x": "AMD-V ('SVM mode')",
        "VT-d": "AMD-Vi ('IOMMU')",
        "MMIO above 4G": "'Above 4G decoding'",
    },
}
#: What does the same for a virtual machine, on the host that runs it.
_BENEATH: Final[dict[Setting, str]] = {
    "VT-x": "kvm_intel nested=1 (kvm_amd nested=1), and the CPU 'host-passthrough'",
    "VT-d": "an IOMMU for this machine (QEMU: -device intel-iommu,intremap=on,caching-mode=on)",
    "MMIO above 4G": "a larger 64-bit PCI window (OVMF: -fw_cfg opt/ovmf/X-PciMmio64Mb)",
}


def machine(case: Case) -> Menus | None:
    """Return the menus of this machine, None when they are not on record."""
    return next((item for item in MACHINES if item.product.search(case.product)), None)


def menu(case: Case, setting: Setting) -> str:
    """Return where to turn a setting on, as a fix."""
    return _menus(case, [setting])


def _menus(case: Case, settings: list[Setting]) -> str:
    known = machine(case)
    if known:
        lines = "; ".join(_line(known, setting) for setting in settings)
        return f"{known.machine} SBIOS, then restart: {lines}"
    if "hypervisor" in case.cpu_flags:
        wanted = "; ".join(_BENEATH[name] for name in settings)
        return f"on the host beneath this virtual machine: {wanted}"
    makers = [case.vendor] if case.vendor else list(_NAMES)
    names = (" or ".join(_NAMES[maker][name] for maker in makers) for name in settings)
    return f"enable in the BIOS, then restart: {', '.join(names)}"


def _line(known: Menus, setting: Setting) -> str:
    return f"{setting}: {known.paths[setting] or 'enable (its menu is not on record)'}"


def _seen(case: Case, setting: Setting) -> bool | None:
    """Return whether a setting is on, None where nothing tells."""
    if setting == "VT-x":
        return bool({"vmx", "svm"} & case.cpu_flags) if case.cpu_flags else None
    if setting == "VT-d":
        return bool(case.iommu_table) or case.iommu_on if case.has_acpi else None
    large = [bar for device in case.devices for bar in device.bars if bar.above_4g]
    return True if large else None


def settings(case: Case) -> Verdict:
    """Say which machine this is and which of its settings are seen to be on."""
    if not case.product:
        return skip("the firmware does not say which machine this is (DMI)")
    known = machine(case)
    name = f"'{case.product}'" + ("" if known else ", whose menus are not on record")
    seen = {setting: _seen(case, setting) for setting in SETTINGS}
    on = ", ".join(setting for setting, value in seen.items() if value) or "nothing"
    off = [setting for setting, value in seen.items() if value is False]
    dark = [setting for setting, value in seen.items() if value is None]
    parts = [f"{name}: {on} seen to be on"]
    if off:
        parts.append(f"off: {', '.join(off)}")
    if dark:
        parts.append(f"not to be seen from here: {', '.join(dark)}")
    if known and known.besides:
        parts.append(f"see to it yourself: {known.besides}")
    detail = "; ".join(parts)
    if not off:
        return ok(detail)
    fix = _menus(case, off)
    return warn(detail, f"{fix}; {known.besides}" if known and known.besides else fix)


QUESTIONS = (Question("bios", settings, about="passthrough", preflight=False),)
