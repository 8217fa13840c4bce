"""Whether the vfio drivers are there, now and after the next boot, and whether they have the
devices: /etc/modules, modules-load.d, modprobe.d, 'Kernel driver in use', the kernel log.

Not for the IOMMU beneath them: see `iommu`; not for choosing among devices: see `gpus`. Sources:
modules-load.d(5), modprobe.d(5), Documentation/driver-api/vfio.rst of the kernel.
"""

from __future__ import annotations

from deepops_fixtures.doctor.case import Case, prepare
from deepops_fixtures.doctor.model import Question, Verdict, fail, ok, skip, warn
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import modprobe, preparation, prepared
from deepops_fixtures.passthrough.pci import PciDevice
from deepops_fixtures.passthrough.platform_facts import rival_modules

#: What vfio cannot do without; the README's list has more.
_NEEDED = ("vfio", "vfio_iommu_type1", "vfio_pci")


def loaded(case: Case) -> Verdict:
    """Look for the vfio modules in the running kernel, loaded or built in."""
    missing = [name for name in _NEEDED if not case.has_module(name)]
    if missing and (lacking := case.host.lacks("/sys/module")):
        return skip(f"{lacking}, so that it is not known which modules are loaded")
    if not missing:
        return ok("vfio, vfio_iommu_type1 and vfio_pci are there")
    return fail(f"not loaded: {', '.join(missing)}", "sudo modprobe vfio-pci")


def etc_modules(case: Case) -> Verdict:
    """Look for the README's lines in /etc/modules, or in modules-load.d, which does the same."""
    if case.module_lists_missing:
        return skip(f"{case.module_lists_missing}, so that it is not known what is loaded at boot")
    # Which of KVM's modules it is cannot be told without '/proc/cpuinfo'.
    whole = case.vendor != ""
    wanted = preparation.boot_modules(case.host) if whole else preparation.BOOT_MODULES
    missing = [name for name in wanted if name not in case.modules_at_boot]
    if not missing:
        return ok("every module that passthrough needs is loaded at boot")
    detail = f"neither '/etc/modules' nor modules-load.d has {', '.join(missing)}"
    if any(name in _NEEDED and not case.has_module(name) for name in missing):
        return fail(detail, case.prepare)
    return warn(f"{detail}; what vfio needs is there now", case.prepare)


def on_boot(case: Case) -> Verdict:
    """Look whether vfio-pci itself is loaded at boot."""
    if "vfio_pci" in case.modules_at_boot:
        return ok("vfio-pci is loaded at boot, or built into the kernel")
    if case.module_lists_missing:
        return skip(f"{case.module_lists_missing}, so that it is not known what is loaded at boot")
    detail = "vfio-pci is not loaded at boot: no file of '/etc/modules-load.d' has it"
    if case.has_module("vfio_pci"):
        return warn(f"{detail}; it is there now", case.prepare)
    return fail(detail, case.prepare)


def ids(case: Case) -> Verdict:
    """Look whether vfio-pci is told to take these devices: 'options vfio-pci ids=…', or the
    kernel's command line."""
    if not case.devices:
        return skip("there is no device to look at")
    missing = [item for item in case.device_ids if item not in case.vfio_ids]
    if not missing:
        return ok(f"vfio-pci takes {', '.join(case.device_ids)} at boot")
    lacking = case.host.lacks(*preparation.MODPROBE_FOLDERS[:1])
    if lacking and not case.vfio_ids_on_command_line:
        return skip(f"{lacking}, so that it is not known what vfio-pci takes")
    where = f"no 'options vfio-pci ids=' in '/etc/modprobe.d' has {', '.join(missing)}"
    if case.vfio_ids_on_command_line:
        where = (
            f"'vfio-pci.ids=' on the kernel's command line lacks {', '.join(missing)}, and counts "
            "alone here"
        )
    if any(_is_held(item) for item in case.devices if item.id in missing):
        return fail(where, case.prepare)
    return warn(f"{where}; nothing is in the way until the next boot", case.prepare)


def rivals(case: Case) -> Verdict:
    """Look for drivers that would take the devices before vfio-pci: a softdep holds them back."""
    if not case.devices:
        return skip("there is no device to look at")
    found = rival_modules(case.host, case.devices)
    if not found:
        return ok("no other driver competes for the devices")
    if lacking := case.host.lacks(*preparation.MODPROBE_FOLDERS[:1]):
        return skip(f"{lacking}, so that it is not known whether others wait for vfio-pci")
    loose = [item.module for item in modprobe.missing_softdeps(case.modprobe_files, found)]
    if not loose:
        return ok(f"held back in '/etc/modprobe.d': {', '.join(found)}")
    names = ", ".join(f"'{name}'" for name in loose)
    detail = f"driver {names} may take the devices first: no softdep, no blacklist"
    if any(_is_held(device) for device in case.devices):
        return fail(detail, case.prepare)
    return warn(detail, case.prepare)


def _is_held(device: PciDevice) -> bool:
    """Return whether a driver of the host has a GPU or switch.

    libvirt moves other devices to vfio-pci when a guest starts; the drivers of GPUs do not let go
    while a console, a daemon or a program uses them.
    """
    return (device.is_gpu or device.is_nvswitch) and device.driver not in ("", "vfio-pci")


def in_use(case: Case) -> Verdict:
    """Look at the 'Kernel driver in use' of each device."""
    if not case.devices:
        return skip("there is no device to look at")
    other = [device for device in case.devices if device.driver not in ("", "vfio-pci")]
    if not other and (lacking := case.host.lacks("/sys/bus/pci/drivers")):
        return skip(f"{lacking}, so that it is not known which drivers have the devices")
    bind = _bind(case)
    if other:
        judge = fail if any(map(_is_held, other)) else warn
        return judge(
            f"kernel driver in use: {_by_driver(other)} instead of vfio-pci",
            f"{case.prepare}; or until the next boot: {bind}",
        )
    free = [str(device.bdf) for device in case.devices if not device.driver]
    if free:
        return warn(f"no driver has {', '.join(free)}", bind)
    return ok(f"kernel driver in use: vfio-pci for all {len(case.devices)} devices")


def _bind(case: Case) -> str:
    """Return the command that moves the devices to vfio-pci until the next boot."""
    units = [
        unit for unit in case.units if any(item.driver != "vfio-pci" for item in unit.devices)
    ]
    named = [unit.wanted[0] for unit in units]
    others = {item.id for item in named if not (item.is_gpu or item.is_nvswitch)}
    words = [f"--device {item}" for item in sorted(others)] + [str(item.bdf) for item in named]
    return f"sudo deepops-virtual gpu bind {' '.join(words)}"


def _by_driver(devices: list[PciDevice]) -> str:
    found: dict[str, list[str]] = {}
    for device in devices:
        found.setdefault(device.driver, []).append(str(device.bdf))
    return "; ".join(f"'{driver}' for {', '.join(bdfs)}" for driver, bdfs in found.items())


def claims(case: Case) -> Verdict:
    """Look for what vfio-pci said at boot: 'vfio_pci: add [10de:1db1[…]] …'."""
    if not case.devices:
        return skip("there is no device to look at")
    if not case.kernel_log:
        return skip("the kernel log cannot be read here (dmesg as root)")
    said = [
        item
        for item in case.device_ids
        if any(f"vfio_pci: add [{item}[" in line for line in case.kernel_log)
    ]
    silent = [item for item in case.device_ids if item not in said]
    if not silent:
        return ok(f"the kernel log says 'vfio_pci: add' for {', '.join(said)}")
    detail = f"the kernel log says no 'vfio_pci: add' for {', '.join(silent)}"
    if all(device.driver == "vfio-pci" for device in case.devices):
        return ok(f"{detail}, but vfio-pci has the devices")
    return warn(detail, case.prepare)


def preparation_state(case: Case) -> Verdict:
    """Look how far `gpu prepare` came on this host, and whether a reboot is due."""
    try:
        found = prepared.state(case.host)
    except UsageProblem as error:
        if isinstance(error.__cause__, PermissionError):
            return skip(f"{error.message} As root: sudo {case.host.reading('doctor')}")
        raise
    if found.state == "none":
        return skip("'gpu prepare' was not used on this host")
    again = prepare(found.ids) if found.ids else case.prepare
    if found.undoing:
        return fail("a preparation was taken back half-way", prepared.UNDO)
    if found.state == "partial":
        return fail("a preparation was stopped half-way", again)
    if found.pending:
        names = ", ".join(f"'{item.argv[0]}'" for item in found.pending)
        return fail(f"the files are prepared, but {names} did not end well", again)
    if found.changed_since:
        return warn(f"changed since it was prepared: {', '.join(found.changed_since)}", again)
    if found.reboot_due:
        return warn(f"prepared for {', '.join(found.ids)}; a reboot is due", "sudo reboot")
    return ok(f"prepared for {', '.join(found.ids)}, and rebooted since")


QUESTIONS = (
    Question("preparation", preparation_state, about="passthrough", preflight=False),
    Question("etc-modules", etc_modules, about="passthrough", preflight=False),
    Question("vfio-modules", loaded, about="passthrough", preflight=False),
    Question("vfio-on-boot", on_boot, about="passthrough", preflight=False),
    Question("vfio-ids", ids, about="passthrough", preflight=False),
    Question("driver-softdep", rivals, about="passthrough", preflight=False),
    Question("driver-in-use", in_use, about="passthrough", preflight=False),
    Question("vfio-log", claims, about="passthrough", preflight=False),
)
