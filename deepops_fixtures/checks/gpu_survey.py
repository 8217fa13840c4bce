"""The NVIDIA devices of a node as its kernel shows them, read by one shell script: sysfs, the
driver's module and /proc/driver/nvidia. No program of NVIDIA's is needed, so that it also answers
where there is no driver.

Sources: Documentation/ABI/testing/sysfs-bus-pci of the kernel; chapter 'The /proc Interface' of
the driver's README.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepops_fixtures import facts
from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

# Reading 'config' asks the device itself; the other files are what the kernel once read.
_SCRIPT = r"""
for device in /sys/bus/pci/devices/*; do
  [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ] || continue
  driver=$(readlink "$device/driver") || driver=/none
  answer=$(od -An -v -tx1 -N4 "$device/config" 2>/dev/null | tr -d ' \n')
  echo "pci $(basename "$device") $(cat "$device/class") $(cat "$device/device")" \
    "$(basename "$driver") ${answer:-unreadable}" \
    "$(cat "$(readlink -f "$device")/../max_link_width" 2>/dev/null || echo 0)"
done
[ -r /sys/module/nvidia/version ] && echo "module $(cat /sys/module/nvidia/version)"
[ -r /proc/driver/nvidia/version ] && echo "proc $(head -n 1 /proc/driver/nvidia/version)"
for known in /proc/driver/nvidia/gpus/*; do
  [ -d "$known" ] && echo "known $(basename "$known")"
done
{ [ -e /.dockerenv ] || [ -e /run/.containerenv ] || systemd-detect-virt -cq 2>/dev/null; } &&
  echo container
exit 0
"""
#: Lanes of the widest PCIe link.
MOST_LANES = 32
_PROC_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Device:
    """An NVIDIA device as sysfs shows it."""

    #: '0000:07:00.0'.
    address: str
    #: 24 bits: class, subclass, programming interface.
    class_code: int
    #: PCI vendor and device, '10de:1db1'.
    pci_id: str
    #: '' when no driver has it.
    driver: str
    #: False when reading its configuration gives ones only: it is no longer on the bus.
    answers: bool
    #: Lanes of the port that it is plugged into, 0 where there is none to be seen.
    slot_width: int

    @property
    def is_gpu(self) -> bool:
        """Whether it is a display controller: VGA, 3D or other."""
        return self.class_code >> 16 == 0x03

    @property
    def is_nvswitch(self) -> bool:
        """Whether it is an NVSwitch: a bridge of the class 'other', of a number from the first
        NVSwitch's on; the bridges of NVIDIA's old chipsets have lower ones."""
        return self.class_code >> 8 == 0x0680 and int(self.pci_id[5:], 16) >= facts.FIRST_NVSWITCH

    def __str__(self) -> str:
        return f"{self.address} [{self.pci_id}]"


@dataclass(frozen=True)
class Survey:
    """What one look at a node's kernel showed."""

    devices: tuple[Device, ...]
    #: Version of the module nvidia, '' when it is not loaded.
    module_version: str
    #: Version in /proc/driver/nvidia/version, '' when there is none.
    proc_version: str
    #: Addresses of the GPUs that the driver has taken.
    known: frozenset[str]
    #: In a container sysfs shows the whole machine's devices.
    container: bool

    @property
    def nvswitches(self) -> list[Device]:
        """The NVSwitches."""
        return [device for device in self.devices if device.is_nvswitch]

    @property
    def kept_for_guests(self) -> list[Device]:
        """The GPUs that are bound to vfio-pci: this node hands them on and does not use them."""
        return [each for each in self.devices if each.is_gpu and each.driver == "vfio-pci"]

    @property
    def gpus(self) -> list[Device]:
        """The GPUs that are this node's own to use."""
        return [
            device
            for device in self.devices
            if device.is_gpu
            and device.driver != "vfio-pci"
            and (not self.container or device.address in self.known)
        ]

    @classmethod
    def take(cls, node: Node) -> Survey:
        """Look at a node. Raises CheckFailed when the script does not run."""
        __tracebackhide__ = True
        done = node.host.run("sh -c %s", _SCRIPT)
        if done.rc != 0:
            raise CheckFailed(
                f"The PCI devices of '{node.name}' cannot be read: {done.stderr.strip()}"
            )
        return cls.parse(done.stdout)

    @classmethod
    def parse(cls, text: str) -> Survey:
        """Return what the script's output says."""
        said: dict[str, list[str]] = {}
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            said.setdefault(word, []).append(rest)
        version = _PROC_VERSION.search(" ".join(said.get("proc", [])))
        return cls(
            devices=tuple(map(_device, said.get("pci", []))),
            module_version=" ".join(said.get("module", [])).strip(),
            proc_version=version[1] if version else "",
            known=frozenset(each.strip().lower() for each in said.get("known", [])),
            container="container" in said,
        )


def _device(line: str) -> Device:
    address, class_code, number, driver, answer, lanes = line.split()
    return Device(
        address=address.lower(),
        class_code=int(class_code, 16),
        pci_id=f"10de:{int(number, 16):04x}",
        driver="" if driver == "none" else driver,
        answers=answer != "ffffffff",
        # 255: the port does not tell.
        slot_width=int(lanes) if lanes.isdigit() and int(lanes) <= MOST_LANES else 0,
    )
