"""What kind of host this is, as far as preparing it depends on that: distribution, CPU, interrupt
remapping, the kernels' own lists of modules.

Each fact is read below the host's root, and by no program. Whether the host is ready is for the
doctor to say. Sources: os-release(5), modules.alias and modules.builtin as depmod(8) writes them,
Documentation/ABI/testing/sysfs-class-iommu-intel-iommu, Intel's VT-d specification (DMAR table,
extended capability register).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.pci import Host, PciDevice

Family = Literal["debian", "rhel"]
Maker = Literal["intel", "amd"]

_FAMILIES: dict[str, Family] = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "rhel",
    "centos": "rhel",
    "fedora": "rhel",
}
#: Lines of /proc/cpuinfo that only one architecture has (arch/*/kernel of Linux: 'show_cpuinfo').
_ARCHITECTURES: dict[str, str] = {
    "x86": r"^vendor_id\s*:(?!\s*IBM/S390)[\s\S]*^flags\s*:",
    "Arm": r"^CPU implementer\s*:",
    "POWER": r"^revision\s*:.*\(pvr ",
    "s390": r"^vendor_id\s*:\s*IBM/S390",
    "Itanium": r"^arch\s*:\s*IA-64",
}
_MAKERS: dict[str, Maker] = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
#: The firmware's table of IOMMUs, by maker.
_TABLES: dict[str, Maker] = {"DMAR": "intel", "IVRS": "amd"}
#: Drivers that hold a device for a guest, or for nobody.
_HOLDERS = ("vfio", "pci_stub", "pci-stub", "xen_pciback")
#: What helps where the processors are of another kind.
X86_HOST: Final = "take a host with processors of Intel or AMD"
#: Where the flags are in a DMAR table, and the one for interrupt remapping.
_DMAR_FLAGS, _DMAR_INTR_REMAP = 37, 0x1
#: The bit of an Intel IOMMU's extended capabilities that says the same of one unit.
_ECAP_IR = 1 << 3


def family(host: Host) -> Family:
    """Return whether the host is of the Debian or of the RHEL family. Raises UsageProblem."""
    text = host.text("/etc/os-release") or host.text("/usr/lib/os-release")
    fields = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    names = " ".join(_unquoted(fields.get(key, "")) for key in ("ID", "ID_LIKE")).split()
    for name in names:
        if name in _FAMILIES:
            return _FAMILIES[name]
    missing = host.lacks("/etc/os-release", "/usr/lib/os-release")
    if missing:
        raise UsageProblem(
            f"{missing}, so that it is not known what this host runs.",
            hint="run this on the host itself, or copy these files as well",
        )
    what = _unquoted(fields.get("PRETTY_NAME", "")) or "a system that does not say its name"
    raise UsageProblem(
        f"This host runs {what}; only Debian, Ubuntu and the RHEL family can be prepared.",
        hint="make the changes by hand: docs/how-to/gpu-passthrough.md lists them",
    )


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value


def architecture(host: Host) -> str:
    """Return what kind of processor the host has, by /proc/cpuinfo: 'x86', 'Arm', 'POWER', 's390',
    'Itanium', or '' for another and where the file is missing."""
    text = host.text("/proc/cpuinfo")
    found = (name for name, line in _ARCHITECTURES.items() if re.search(line, text, re.MULTILINE))
    return next(found, "")


def foreign(host: Host) -> str:
    """Return that no GPU of this host can be a guest's, since its processors are of another kind
    than the guests; '' for x86 and where that cannot be told."""
    kind = architecture(host)
    if kind in ("", "x86"):
        return ""
    return f"GPUs are handed through on x86_64 alone, and this host is {kind}"


def cpu_maker(host: Host) -> Maker:
    """Return who made the CPU, by /proc/cpuinfo. Raises UsageProblem for any but Intel and AMD."""
    text = host.text("/proc/cpuinfo")
    found = re.search(r"^vendor_id\s*:\s*(\S+)", text, re.MULTILINE)
    vendor = found[1] if found else ""
    if vendor in _MAKERS:
        return _MAKERS[vendor]
    if not text:
        raise UsageProblem(
            f"'{host.path('/proc/cpuinfo')}' cannot be read, so that it is not known who made the "
            "processors.",
            hint="run this on the host itself, or copy that file as well",
        )
    kind = architecture(host)
    if kind not in ("", "x86"):
        seen = f"is of {kind} processors"
    else:
        seen = f"says '{vendor}'" if vendor else "names no vendor"
    raise UsageProblem(
        f"'{host.path('/proc/cpuinfo')}' {seen}; passthrough is prepared for Intel and AMD only.",
        hint=X86_HOST,
    )


def iommu_table(host: Host) -> str:
    """Return the firmware's ACPI table of IOMMUs: 'DMAR', 'IVRS', or ''."""
    folder = host.path("/sys/firmware/acpi/tables")
    return next((table for table in _TABLES if (folder / table).exists()), "")


def iommu_maker(host: Host) -> Maker:
    """Return whose IOMMU this is: by the firmware's table, else by the CPU. Raises UsageProblem.

    Virtual machines have AMD processors with an Intel IOMMU and the other way round; where the
    IOMMU is off in the BIOS there is no table.
    """
    table = iommu_table(host)
    return _TABLES[table] if table else cpu_maker(host)


def interrupt_remapping(host: Host) -> bool | None:
    """Return whether the platform can remap interrupts; None when it cannot be told.

    Told by the IOMMUs where they are on (Intel: a bit of 'ecap'; AMD's all can), else by the flags
    of the firmware's DMAR table, which only root may read.
    """
    units = list(host.path("/sys/class/iommu").glob("*"))
    registers = [host.text(f"/sys/class/iommu/{unit.name}/intel-iommu/ecap") for unit in units]
    if any(registers):
        return all(_bit(text, _ECAP_IR) for text in registers if text)
    if any((unit / "amd-iommu").is_dir() for unit in units):
        return True
    try:
        table = host.path("/sys/firmware/acpi/tables/DMAR").read_bytes()
    except OSError:
        return None
    if len(table) <= _DMAR_FLAGS:
        return None
    return bool(table[_DMAR_FLAGS] & _DMAR_INTR_REMAP)


def _bit(text: str, bit: int) -> bool:
    try:
        return bool(int(text, 16) & bit)
    except ValueError:
        return False


def boot_id(host: Host) -> str:
    """Return what tells this start of the host from its others; '' for a tree without it."""
    return host.text("/proc/sys/kernel/random/boot_id").strip()


# -- the kernels' modules -------------------------------------------------------------------


def kernels(host: Host) -> tuple[Path, ...]:
    """Return the folders with the modules of the installed kernels."""
    places = (host.path("/usr/lib/modules"), host.path("/lib/modules"))
    folder = next((path for path in places if path.is_dir()), None)
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir())) if folder else ()


def built_in(host: Host, module: str) -> bool:
    """Return whether any installed kernel has this module built in: options in modprobe.d do
    nothing for such a one."""
    name = "[-_]".join(map(re.escape, re.split("[-_]", module)))
    pattern = re.compile(rf"/{name}\.ko$", re.MULTILINE)
    return any(pattern.search(_text(folder / "modules.builtin")) for folder in kernels(host))


def modalias(device: PciDevice) -> str:
    """Return the name by which the kernel looks for a device's driver.

    >>> modalias(v100)
    'pci:v000010DEd00001DB1sv000010DEsd00001212bc03sc02i00'
    """
    sub = f"sv{device.subsystem_vendor or 0:08X}sd{device.subsystem_device or 0:08X}"
    code = device.class_code
    kind = f"bc{code >> 16:02X}sc{code >> 8 & 0xFF:02X}i{code & 0xFF:02X}"
    return f"pci:v{device.vendor:08X}d{device.device:08X}{sub}{kind}"


def rival_modules(host: Host, devices: Iterable[PciDevice]) -> tuple[str, ...]:
    """Return the modules of the host that would take these devices if they came before vfio-pci.

    By the kernels' modules.alias, and by the drivers that have the devices now.
    """
    devices = tuple(devices)
    names = {modalias(item) for item in devices}
    vendors = tuple({"alias pci:v*", *(f"alias {name[: len('pci:v000010DE')]}" for name in names)})
    found = {_module_of(host, item) for item in devices}
    for folder in kernels(host):
        for line in _text(folder / "modules.alias").splitlines():
            if line.startswith(vendors):
                _, pattern, module = line.split(maxsplit=2)
                found |= {module for name in names if fnmatchcase(name, pattern)}
    return tuple(sorted(name for name in found if name and not name.startswith(_HOLDERS)))


def _module_of(host: Host, device: PciDevice) -> str:
    """Return the module of the driver that a device has; '' for a driver that is built in."""
    if not device.driver:
        return ""
    folder = host.path(f"/sys/bus/pci/drivers/{device.driver}")
    link = folder / "module"
    if link.is_symlink():
        return link.readlink().name
    known = host.path(f"/sys/module/{device.driver}").is_dir()
    return device.driver if known or not host.path("/sys/module").is_dir() else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
