"""What PCI devices and classes are called: the host's pci.ids, or a small table without one.

For people to read; nothing is decided by a name. Source of both tables: the PCI ID repository
(https://pci-ids.ucw.cz).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

#: The classes that stand next to a GPU in its group, by class and subclass.
CLASSES: Final[dict[int, str]] = {
    0x0100: "SCSI storage controller",
    0x0104: "RAID bus controller",
    0x0106: "SATA controller",
    0x0107: "Serial Attached SCSI controller",
    0x0108: "Non-Volatile memory controller",
    0x0200: "Ethernet controller",
    0x0207: "Infiniband controller",
    0x0280: "Network controller",
    0x0300: "VGA compatible controller",
    0x0302: "3D controller",
    0x0380: "Display controller",
    0x0403: "Audio device",
    0x0500: "RAM memory",
    0x0580: "Memory controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0680: "Bridge",
    0x0880: "System peripheral",
    0x0C03: "USB controller",
    0x0C05: "SMBus",
    0x0C80: "Serial bus controller",
    0x1200: "Processing accelerators",
}

#: Cards of data centres and the switches between them, by vendor and device.
DEVICES: Final[dict[tuple[int, int], str]] = {
    (0x10DE, 0x1AC1): "GV100 [NVSwitch]",
    (0x10DE, 0x1AF1): "GA100 [A100 NVSwitch]",
    (0x10DE, 0x22A3): "GH100 [H100 NVSwitch]",
    (0x10DE, 0x102D): "GK210GL [Tesla K80]",
    (0x10DE, 0x15F8): "GP100GL [Tesla P100 PCIe 16GB]",
    (0x10DE, 0x15F9): "GP100GL [Tesla P100 SXM2 16GB]",
    (0x10DE, 0x1B38): "GP102GL [Tesla P40]",
    (0x10DE, 0x1BB3): "GP104GL [Tesla P4]",
    (0x10DE, 0x1DB1): "GV100GL [Tesla V100 SXM2 16GB]",
    (0x10DE, 0x1DB2): "GV100GL [Tesla V100 DGXS 16GB]",
    (0x10DE, 0x1DB3): "GV100GL [Tesla V100 FHHL 16GB]",
    (0x10DE, 0x1DB4): "GV100GL [Tesla V100 PCIe 16GB]",
    (0x10DE, 0x1DB5): "GV100GL [Tesla V100 SXM2 32GB]",
    (0x10DE, 0x1DB6): "GV100GL [Tesla V100 PCIe 32GB]",
    (0x10DE, 0x1DB7): "GV100GL [Tesla V100 DGXS 32GB]",
    (0x10DE, 0x1DB8): "GV100GL [Tesla V100 SXM3 32GB]",
    (0x10DE, 0x1EB8): "TU104GL [Tesla T4]",
    (0x10DE, 0x20B0): "GA100 [A100 SXM4 40GB]",
    (0x10DE, 0x20B2): "GA100 [A100 SXM4 80GB]",
    (0x10DE, 0x20B5): "GA100 [A100 PCIe 80GB]",
    (0x10DE, 0x20F1): "GA100 [A100 PCIe 40GB]",
    (0x10DE, 0x2235): "GA102GL [A40]",
    (0x10DE, 0x2236): "GA102GL [A10]",
    (0x10DE, 0x26B5): "AD102GL [L40]",
    (0x10DE, 0x27B8): "AD104GL [L4]",
    (0x10DE, 0x2330): "GH100 [H100 SXM5 80GB]",
    (0x10DE, 0x2331): "GH100 [H100 PCIe]",
    (0x10DE, 0x2335): "GH100 [H200 SXM 141GB]",
    (0x10DE, 0x2901): "GB100 [B200]",
}


def class_name(class_code: int) -> str:
    """Return what a class code (24 bits) means, as in 'Audio device'; 'Class 0b40' if unknown."""
    return CLASSES.get(class_code >> 8, f"Class {class_code >> 8:04x}")


class Names:
    """Devices' names, from the first of these pci.ids files that can be read; read once."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files

    def of(self, vendor: int, device: int) -> str:
        """Return a device's name, '' when neither file nor table knows it."""
        return self._listed.get((vendor, device)) or DEVICES.get((vendor, device), "")

    @cached_property
    def _listed(self) -> dict[tuple[int, int], str]:
        text = next(filter(None, map(_text, self._files)), "")
        found: dict[tuple[int, int], str] = {}
        vendor: int | None = None
        for line in text.splitlines():
            if not line or line.startswith(("#", "\t\t")):
                continue
            number = _hexadecimal(line.strip()[:4])
            if not line.startswith("\t"):
                # A line 'C 03' begins the classes.
                vendor = number if line[4:5] == " " else None
            elif vendor is not None and number is not None:
                found[vendor, number] = line.strip()[4:].strip()
        return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
