"""Whether the IOMMU is on: the firmware's table, the groups, the kernel's command line, the boot
loader's, interrupt remapping, and large windows above 4 GiB.

Not for the vfio drivers: see `vfio`. Sources: Documentation/arch/x86/iommu.rst and
admin-guide/kernel-parameters.txt of the kernel, ABI/testing/sysfs-class-iommu-intel-iommu,
drivers/vfio/vfio_iommu_type1.c (what it refuses without interrupt remapping).
"""

from __future__ import annotations

import re

import humanize

from deepops_fixtures.doctor import bios
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Question, Verdict, fail, ok, skip, warn
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import boot_entries, grub, platform_facts, preparation
from deepops_fixtures.passthrough.kernel_line import Parameters, cmdline_parameters
from deepops_fixtures.passthrough.pci import NVIDIA, Bar, PciDevice

_REMAPPING_IN_LOG = re.compile(
    r"DMAR-IR: Enabled IRQ remapping|AMD-Vi: Interrupt remapping enabled"
)
_UNSAFE = "vfio_iommu_type1.allow_unsafe_interrupts"
#: A window of this size or more finds no place below 4 GiB once there are several.
_LARGE = 256 * 1024**2


def table(case: Case) -> Verdict:
    """Look for the firmware's table of IOMMUs: DMAR (Intel VT-d) or IVRS (AMD-Vi)."""
    if case.iommu_table:
        return ok(f"the firmware has an ACPI table {case.iommu_table}")
    if case.iommu_on:
        return ok("no ACPI table DMAR or IVRS, and the kernel found an IOMMU all the same")
    if not case.has_acpi:
        return skip("there is no '/sys/firmware/acpi/tables' to look into")
    return fail(
        "the firmware has no ACPI table DMAR or IVRS: its IOMMU is off, or there is none",
        bios.menu(case, "VT-d"),
    )


def groups(case: Case) -> Verdict:
    """Look for IOMMU groups, which the kernel makes when it drives the IOMMU."""
    if case.iommu_on:
        return ok(f"{len(case.host.groups)} IOMMU groups")
    if case.groups_missing:
        return skip(f"{case.groups_missing}, so that it is not known whether the IOMMU is on")
    if not case.iommu_table:
        fix = bios.menu(case, "VT-d")
    elif _switched_on(case) and not _switched_off(case):
        fix = "see what the kernel says of it: sudo dmesg | grep -e DMAR -e AMD-Vi"
    else:
        fix = case.prepare
    return fail("'/sys/kernel/iommu_groups' is empty: the kernel does not use the IOMMU", fix)


def _wanted(case: Case) -> str:
    """Return the parameter that turns this host's IOMMU on."""
    return "amd_iommu=on" if case.iommu_maker == "amd" else "intel_iommu=on"


def _switched_on(case: Case) -> bool:
    """Return whether the running kernel was told to use the IOMMU; AMD's is on unless told not
    to."""
    return case.iommu_maker == "amd" or "on" in _elements(case, "intel_iommu")


def _switched_off(case: Case) -> list[str]:
    """Return the parameters of the running kernel that turn the IOMMU off."""
    return [
        f"{name}=off"
        for name in ("iommu", f"{case.iommu_maker or 'intel'}_iommu")
        if "off" in _elements(case, name)
    ]


def _elements(case: Case, name: str) -> list[str]:
    """Return the elements of a parameter's last value, as in 'on,sm_on'."""
    return case.parameters.get(name, ("",))[-1].split(",")


def command_line(case: Case) -> Verdict:
    """Look at what the running kernel was told about the IOMMU."""
    if not case.parameters:
        return skip("'/proc/cmdline' cannot be read")
    if not case.iommu_maker:
        return skip("neither '/proc/cpuinfo' nor the firmware tells whose IOMMU it is")
    off = " ".join(_switched_off(case))
    if off and not case.iommu_on:
        return fail(f"the kernel was started with '{off}'", case.prepare)
    wanted = _wanted(case)
    if _switched_on(case):
        return ok(
            f"the kernel was started with '{wanted}'"
            if case.iommu_maker != "amd"
            else f"nothing says otherwise than '{wanted}', the default"
        )
    if case.iommu_on:
        return ok(f"without '{wanted}': this kernel turns the IOMMU on by itself")
    return fail(f"the kernel was started without '{wanted}'", case.prepare)


def boot_loader(case: Case) -> Verdict:
    """Compare what the boot loader is set to give the kernel with what the running one got."""
    try:
        lines = _configured(case)
        parameters = preparation.wanted_parameters(case.host)
    except UsageProblem as error:
        return skip(error.message)
    # 'iommu=pt' is for speed alone.
    wanted = [item for item in parameters if item.name != "iommu"]
    words = " ".join(map(str, wanted))
    now = all(item.met_by(case.parameters) for item in wanted)
    then = all(item.met_by(line) for item in wanted for line in lines)
    if now and then:
        return ok(f"the boot loader gives '{words}', and the kernel was started so")
    if now:
        return warn(
            f"the kernel was started with '{words}', which the boot loader's settings lack: it is "
            "gone after the next boot",
            case.prepare,
        )
    judge = warn if case.iommu_on else fail
    if then:
        return judge(
            f"the boot loader's settings have '{words}', and the kernel was started without: this "
            "host was not rebooted since",
            "sudo update-grub, then reboot" if _has_grub(case) else "reboot",
        )
    if case.iommu_on:
        return ok(f"without '{words}': this kernel turns the IOMMU on by itself")
    return fail(f"the boot loader's settings lack '{words}'", case.prepare)


def _has_grub(case: Case) -> bool:
    return platform_facts.family(case.host) == "debian"


def _configured(case: Case) -> list[Parameters]:
    """Return the parameters of each kernel that the boot loader may start. Raises UsageProblem
    where its settings are not understood."""
    if _has_grub(case):
        texts = [grub.command_line(preparation.grub_sources(case.host))]
    else:
        texts = list(boot_entries.entry_options(case.host))
    return [cmdline_parameters(text) for text in texts]


def interrupt_remapping(case: Case) -> Verdict:
    """Look for interrupt remapping, without which vfio refuses a guest its device.

    A guest could raise any interrupt of the host through a device's MSI otherwise.
    """
    if not case.iommu_on:
        return skip(case.groups_missing or "the IOMMU is off")
    interrupts = case.host.text("/proc/interrupts")
    if re.search(r"\bIR-(IO-APIC|PCI-MSI)", interrupts):
        return ok("interrupts go through the IOMMU ('IR-' in /proc/interrupts)")
    line = next(filter(_REMAPPING_IN_LOG.search, case.kernel_log), "")
    if line:
        return ok(f"the kernel log says '{line.partition('] ')[2] or line}'")
    able = platform_facts.interrupt_remapping(case.host)
    if able and not interrupts:
        return ok("the hardware can remap interrupts; whether the kernel does is not seen here")
    why = "the hardware could, the kernel does not" if able else "not seen"
    if case.unsafe_interrupts:
        return warn(
            f"interrupt remapping: {why}; '{_UNSAFE}' is set, so that a guest could disturb this "
            "host",
            "hand devices to guests you trust alone, or turn VT-d's interrupt remapping on",
        )
    if not interrupts and not case.kernel_log:
        return skip("neither /proc/interrupts nor a kernel log is here to tell")
    return fail(
        f"interrupt remapping: {why}; vfio refuses devices without it",
        f"{bios.menu(case, 'VT-d')} (with interrupt remapping or x2APIC, no 'intremap=off'); "
        f"for guests you trust: {_UNSAFE}=1 on the kernel's command line",
    )


def large_windows(case: Case) -> Verdict:
    """Look whether the large windows of the devices found a place, above 4 GiB."""
    if not case.devices:
        return skip("there is no device to look at")
    homeless = [text for device in case.devices for text in _without_place(device)]
    if homeless:
        return fail(f"no address for {', '.join(homeless)}", bios.menu(case, "MMIO above 4G"))
    large = [(device, bar) for device in case.devices for bar in device.bars if bar.size >= _LARGE]
    if not large:
        return ok(f"none of the {len(case.devices)} devices has a window of 256 MiB or more")
    high = sum(bar.above_4g for _, bar in large)
    device, bar = max(large, key=lambda item: item[1].size)
    return ok(
        f"all {len(large)} large windows have an address, {high} above 4 GiB "
        f"(the largest: {_size(bar)} of '{device.bdf}')"
    )


def _without_place(device: PciDevice) -> list[str]:
    """Return what of a device neither firmware nor kernel found an address for."""
    lost = [
        f"BAR {bar.index} of '{device.bdf}' ({_size(bar)})"
        for bar in device.bars
        if bar.is_memory and not bar.assigned
    ]
    # The kernel may also wipe out a window that it found no place for.
    is_card = device.is_gpu and device.vendor == NVIDIA and not device.physfn
    memory = _memory_bar(device)
    if is_card and all(bar.index != memory for bar in device.bars):
        lost.append(f"BAR {memory} of '{device.bdf}'")
    return lost


def _memory_bar(device: PciDevice) -> int:
    """Return which BAR is a GPU's memory ('BAR1' in NVIDIA's documents, the second window).

    Since Hopper the registers before it are a 64-bit window, which takes two of the numbers.
    """
    registers_are_wide = any(bar.index == 0 and bar.is_64bit for bar in device.bars)
    return 2 if registers_are_wide else 1


def _size(bar: Bar) -> str:
    return humanize.naturalsize(bar.size, binary=True, format="%.0f")


QUESTIONS = (
    Question("iommu-table", table, about="passthrough"),
    Question("iommu-groups", groups, about="passthrough"),
    Question("kernel-command-line", command_line, about="passthrough"),
    Question("boot-loader", boot_loader, about="passthrough"),
    Question("interrupt-remapping", interrupt_remapping, about="passthrough"),
    Question("mmio-above-4g", large_windows, about="passthrough"),
)
