"""What the doctor is asked about: a host, a cluster, the GPUs wanted; and the facts of that host
which several checks need.

Facts are read from files below the host's root, so that a saved tree can be looked at like a
living host. Nothing is judged here: the checks do that.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from deepops_fixtures.cluster import gpus
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import modprobe, platform_facts, preparation
from deepops_fixtures.passthrough.candidates import Unit, units
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.kernel_line import cmdline_parameters
from deepops_fixtures.passthrough.pci import IOMMU_GROUPS, NVIDIA, Bdf, Host, PciDevice
from deepops_fixtures.passthrough.selection import Placement, Request, choose
from deepops_fixtures.settings import Settings

#: Where lists of modules to load at boot lie (modules-load.d(5), initramfs-tools(7)).
_MODULE_LISTS = ("/etc/modules", "/etc/initramfs-tools/modules")
_MODULE_FOLDERS = ("/etc/modules-load.d", "/run/modules-load.d", "/usr/lib/modules-load.d")
_LOGS = ("/var/log/dmesg", "/var/log/kern.log", "/var/log/messages")


@dataclass(frozen=True)
class Case:
    """One examination: the host, the settings of the run, its cluster, the GPUs it wants."""

    host: Host
    settings: Settings
    spec: ClusterSpec | None = None
    asked: Request = field(default_factory=lambda: Request(""))

    # -- the machine ------------------------------------------------------------------------

    @cached_property
    def cpu_flags(self) -> frozenset[str]:
        """The flags of all processors; empty where /proc/cpuinfo cannot be read."""
        lines = self._cpuinfo("flags")
        return frozenset(word for line in lines for word in line.split())

    @cached_property
    def cpus(self) -> int:
        """How many processors the kernel runs; 0 where /proc/cpuinfo cannot be read."""
        return len(self._cpuinfo("processor"))

    @cached_property
    def vendor(self) -> str:
        """The processors' maker: 'intel', 'amd', '' for another."""
        with suppress(UsageProblem):
            return platform_facts.cpu_maker(self.host)
        return ""

    @cached_property
    def foreign(self) -> str:
        """Why no GPU can be a guest's, since the processors are of another kind; '' for x86."""
        return platform_facts.foreign(self.host)

    def _cpuinfo(self, name: str) -> list[str]:
        pattern = re.compile(rf"^{name}\s*:\s*(.*)$", re.MULTILINE)
        return pattern.findall(self.host.text("/proc/cpuinfo"))

    @cached_property
    def product(self) -> str:
        """What the firmware calls this machine (DMI), as in 'DGX-1 with V100'."""
        return self.host.text("/sys/class/dmi/id/product_name").strip()

    # -- the kernel -------------------------------------------------------------------------

    @cached_property
    def parameters(self) -> dict[str, tuple[str, ...]]:
        """The running kernel's command line: every value of each parameter, in order."""
        return cmdline_parameters(self.host.text("/proc/cmdline"))

    @cached_property
    def kernel_log(self) -> list[str]:
        """The kernel's messages since the last boot, as far as they can be read."""
        if self.host.is_this_host:
            with suppress(OSError, subprocess.SubprocessError):
                done = subprocess.run(["dmesg"], capture_output=True, timeout=5, check=True)
                return done.stdout.decode(errors="replace").splitlines()
        for name in _LOGS:
            lines = self.host.text(name).splitlines()
            boots = [number for number, line in enumerate(lines) if "Linux version " in line]
            if lines:
                return lines[boots[-1] if boots else 0 :]
        return []

    @cached_property
    def iommu_table(self) -> str:
        """The firmware's ACPI table of IOMMUs: 'DMAR', 'IVRS', or ''."""
        return platform_facts.iommu_table(self.host)

    @cached_property
    def iommu_maker(self) -> str:
        """Whose IOMMU it is: 'intel', 'amd', '' where it cannot be told."""
        with suppress(UsageProblem):
            return platform_facts.iommu_maker(self.host)
        return ""

    @property
    def has_acpi(self) -> bool:
        """Whether the firmware's tables are there to look at; a saved tree may lack them."""
        return self.host.path("/sys/firmware/acpi/tables").is_dir()

    @property
    def iommu_on(self) -> bool:
        """Whether the kernel has put devices into IOMMU groups."""
        return bool(self.host.groups)

    @property
    def groups_missing(self) -> str:
        """That a saved tree has no groups' files, so that they are not known; '' when they are."""
        return "" if self.iommu_on else self.host.lacks(IOMMU_GROUPS)

    @cached_property
    def unsafe_interrupts(self) -> bool:
        """Whether vfio was told to do without interrupt remapping."""
        name = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
        told = self.parameters.get("vfio_iommu_type1.allow_unsafe_interrupts", ("",))[-1]
        return self.host.text(name).strip() == "Y" or told.lower() in ("1", "y", "on")

    # -- modules ----------------------------------------------------------------------------

    @cached_property
    def _built_in(self) -> frozenset[str]:
        release = self.host.text("/proc/sys/kernel/osrelease").strip()
        lines = self.host.text(f"/lib/modules/{release}/modules.builtin").splitlines()
        return frozenset(modprobe.module_name(Path(line).name.split(".")[0]) for line in lines)

    def has_module(self, name: str) -> bool:
        """Return whether a module is in the running kernel, loaded or built in."""
        return name in self._built_in or self.host.path(f"/sys/module/{name}").is_dir()

    @property
    def module_lists_missing(self) -> str:
        """That a saved tree has no lists of modules; '' when it has one."""
        return self.host.lacks(_MODULE_LISTS[0], _MODULE_FOLDERS[0])

    @cached_property
    def modules_at_boot(self) -> frozenset[str]:
        """The modules that are loaded at boot because a list says so, or that are built in."""
        names = list(_MODULE_LISTS)
        for folder in _MODULE_FOLDERS:
            names += [f"{folder}/{path.name}" for path in self.host.path(folder).glob("*.conf")]
        texts = map(self.host.text, names)
        return self._built_in.union(*map(modprobe.listed_modules, texts))

    @cached_property
    def modprobe_files(self) -> Mapping[str, str]:
        """What modprobe is told: text by file, in the order in which it reads the files."""
        return preparation.modprobe_files(self.host)

    @cached_property
    def vfio_ids(self) -> frozenset[str]:
        """The vendor:device that vfio-pci is told to take at boot: by the command line where that
        names any or the driver is built in, else by modprobe.d."""
        name = modprobe.ids_file(self.modprobe_files)
        if self.vfio_ids_on_command_line:
            told = modprobe.split_ids(self.parameters.get("vfio_pci.ids", ("",))[-1])
        else:
            told = (modprobe.vfio_ids(self.modprobe_files[name]) or ()) if name else ()
        return frozenset(":".join(word.split(":")[:2]) for word in told)

    @cached_property
    def vfio_ids_on_command_line(self) -> bool:
        """Whether the kernel's command line alone says what vfio-pci takes."""
        built_in = platform_facts.built_in(self.host, modprobe.VFIO)
        return built_in or bool(self.parameters.get("vfio_pci.ids"))

    # -- the GPUs ---------------------------------------------------------------------------

    @cached_property
    def _taken(self) -> tuple[Mapping[int, Holder], Mapping[Bdf, str], bool]:
        # That libvirt does not answer is told by a check of its own.
        return gpus.taken(self.host)

    @property
    def holders(self) -> Mapping[int, Holder]:
        """Who holds which IOMMU group."""
        return self._taken[0]

    @property
    def guests(self) -> Mapping[Bdf, str]:
        """Which devices running virtual machines have, as far as libvirt tells."""
        return self._taken[1]

    def placement(self, *, leases_end: bool = False) -> Placement:
        """Return which node would get what; with ``leases_end`` once nobody holds any. Raises
        UsageProblem."""
        return choose(
            self.host,
            self.asked,
            self.spec.gpu_nodes if self.spec else [],
            self.holders,
            guests=self.guests,
            leases_end=leases_end,
        )

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What the checks look at: what a run would get, else what it asks for, else all
        GPUs but the screen's."""
        if self.asked:
            with suppress(UsageProblem):
                return self.placement(leases_end=True).units
        found = units(self.host, self.asked.extra_ids)
        if self.asked.bdfs:
            return tuple(unit for unit in found if any(bdf in unit for bdf in self.asked.bdfs))
        if self.asked.device:
            return tuple(
                unit for unit in found if any(it.id == self.asked.device for it in unit.wanted)
            )
        # The screen of this host stays what it is; virtual functions are given when named.
        spare = [
            unit
            for unit in found
            if not unit.is_virtual and not any(it.boot_vga for it in unit.devices)
        ]
        if self.asked:
            spare = [unit for unit in spare if any(gpu.vendor == NVIDIA for gpu in unit.gpus)]
        return tuple(spare)

    @cached_property
    def devices(self) -> tuple[PciDevice, ...]:
        """Every function of these units, audio functions among them, bridges not."""
        return tuple(device for unit in self.units for device in unit.devices)

    @property
    def device_ids(self) -> list[str]:
        """Their vendor:device, each once."""
        return list(dict.fromkeys(device.id for device in self.devices))

    @property
    def prepare(self) -> str:
        """The command that prepares this host for these devices, as a fix."""
        return prepare(self.device_ids or ["VENDOR:DEVICE"])


def prepare(ids: Iterable[str]) -> str:
    """Return the command that prepares a host for these vendor:device, as a fix."""
    words = " ".join(f"--device {item}" for item in ids)
    return f"sudo deepops-virtual gpu prepare {words} --apply, then reboot"
