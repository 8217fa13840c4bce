"""What has to change on a host so that devices are vfio-pci's from boot: planned here, nothing is
written.

`plan` reads a host and returns the files with their new text, the commands that make them count,
and why. The files are those of DeepOps' guide (virtual/README.md, "Enabling virtualization and GPU
passthrough"). To carry a plan out, or take it back, is for `prepared`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import boot_entries, grub, modprobe, platform_facts
from deepops_fixtures.passthrough.claims import companions, departures, wanted_ids
from deepops_fixtures.passthrough.kernel_line import Parameter, cmdline_parameters
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.plans import (
    Command,
    Draft,
    Preparation,
    read_text,
    with_header,
)

MODULES: Final = "/etc/modules"
MODULES_LOAD: Final = "/etc/modules-load.d/vfio-pci.conf"
VFIO_CONF: Final = "/etc/modprobe.d/vfio.conf"
#: The first 'softdep' of a module counts, so the name has to come before others.
SOFTDEPS: Final = "/etc/modprobe.d/00-deepops-passthrough.conf"
DRACUT: Final = "/etc/dracut.conf.d/deepops-passthrough.conf"
#: What modprobe reads; a file hides those of the same name in later folders.
MODPROBE_FOLDERS: Final = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
#: What the guide adds to /etc/modules; the CPU maker's KVM module comes last.
BOOT_MODULES: Final = ("pci_stub", "vfio", "vfio_iommu_type1", "vfio_pci", "kvm")
_UPDATE_GRUB: Final = Command.same_both_ways(
    "update-grub", why="GRUB's menu is written from its settings"
)
#: For every kernel: the one that is started next may not be the newest.
_UPDATE_INITRAMFS: Final = Command.same_both_ways(
    "update-initramfs", "-u", "-k", "all", why="the initramfs has a copy of modprobe.d"
)
_DRACUT: Final = Command.same_both_ways(
    "dracut", "-f", "--regenerate-all", why="the initramfs has a copy of modprobe.d"
)


# -- the plan -------------------------------------------------------------------------------


def plan(host: Host, devices: Iterable[str], *, softdep: bool = True) -> Preparation:
    """Return what is left to do on this host for all devices of these vendor:device IDs.

    ``softdep``: whether drivers of the host that would take the devices are made to wait for
    vfio-pci. Raises UsageProblem for an unknown system, for IDs that cannot be had, and for files
    that are not understood; nothing is changed.
    """
    ids = wanted_ids(host, devices)
    family = platform_facts.family(host)
    draft = Draft(host)
    draft.notes += [*departures(host, ids), *companions(host, ids)]
    _boot_modules(draft, family)
    _modprobe(draft, ids, softdep=softdep)
    parameters = wanted_parameters(host, _kernel_ids(draft, ids, family))
    commands = _debian(draft, parameters) if family == "debian" else _rhel(draft, parameters)
    if platform_facts.interrupt_remapping(host) is None:
        draft.notes.append(
            "Whether this platform remaps interrupts cannot be told yet; should QEMU ask for "
            "'allow_unsafe_interrupts' after the reboot, run this again."
        )
    return Preparation(ids, draft.changes(), commands, parameters, tuple(draft.notes))


def boot_modules(host: Host) -> tuple[str, ...]:
    """Return the modules that are loaded at boot of a prepared host. Raises UsageProblem."""
    return (*BOOT_MODULES, f"kvm_{platform_facts.cpu_maker(host)}")


def wanted_parameters(host: Host, kernel_ids: Sequence[str] = ()) -> tuple[Parameter, ...]:
    """Return what belongs on the kernel's command line, each with its reason.

    ``kernel_ids`` are IDs that vfio-pci has to be given there. Raises UsageProblem.
    """
    off = frozenset({"off"})
    name = f"{platform_facts.iommu_maker(host)}_iommu"
    found = [
        Parameter(name, "on", "the IOMMU is on", against=off),
        Parameter(
            "iommu",
            "pt",
            "devices of the host itself are not slowed down by it",
            against=off | {"nopt", "soft"},
        ),
    ]
    if platform_facts.interrupt_remapping(host) is False:
        found.append(
            Parameter(
                "vfio_iommu_type1.allow_unsafe_interrupts",
                "1",
                "this platform cannot remap interrupts, and vfio refuses devices then; a guest "
                "with a device could send any interrupt to the host",
                replaces_all=True,
            )
        )
    if kernel_ids:
        found.append(
            Parameter(
                "vfio-pci.ids",
                ",".join(kernel_ids),
                "vfio-pci reads the command line, not modprobe.d, when it is built into the "
                "kernel; and where both name IDs the command line counts",
                replaces_all=True,
            )
        )
    return tuple(found)


def _boot_modules(draft: Draft, family: platform_facts.Family) -> None:
    why = "the modules that passthrough stands on are loaded at boot"
    text = draft.text(MODULES) if family == "debian" else None
    wanted = boot_modules(draft.host)
    if text is not None:
        draft.add_lines(MODULES, modprobe.missing_modules(text, wanted), why)
        wanted = (modprobe.VFIO,)
        why = "vfio-pci is loaded at boot"
    missing = modprobe.missing_modules(draft.text(MODULES_LOAD) or "", wanted)
    # The guide writes it with a dash here, which is the same module.
    lines = [modprobe.VFIO if name == "vfio_pci" else name for name in missing]
    draft.add_lines(MODULES_LOAD, lines, why)


def modprobe_files(host: Host) -> dict[str, str]:
    """Return the texts of modprobe.d in the order in which they are read."""
    places: dict[str, str] = {}
    for folder in MODPROBE_FOLDERS:
        for file in host.path(folder).glob("*.conf"):
            places.setdefault(file.name, f"{folder}/{file.name}")
    return modprobe.in_order({place: host.text(place) for place in places.values()})


def _modprobe(draft: Draft, ids: Sequence[str], *, softdep: bool) -> None:
    files = modprobe_files(draft.host)
    place = modprobe.ids_file(files) or VFIO_CONF
    if not place.startswith("/etc/"):
        raise UsageProblem(
            f"'{place}' names the devices of vfio-pci, and it is not a file of yours to change.",
            hint=f"cp {place} /etc/modprobe.d/, then run this again",
        )
    text = draft.text(place)
    draft.write(place, modprobe.with_ids(with_header(text), ids), "vfio-pci takes these devices")
    if softdep:
        devices = (item for wanted in ids for item in draft.host.with_id(wanted))
        _softdeps(draft, files, platform_facts.rival_modules(draft.host, devices))


def _softdeps(draft: Draft, files: Mapping[str, str], rivals: Sequence[str]) -> None:
    """Have these modules wait for vfio-pci. Raises UsageProblem where another file has the first
    word on one of them, which is the one that counts."""
    missing = modprobe.missing_softdeps(files, rivals)
    if not missing:
        return
    lines = [str(item) for item in missing]
    text = modprobe.with_first_lines(with_header(draft.text(SOFTDEPS)), lines)
    draft.write(SOFTDEPS, text, "vfio-pci takes its devices before these drivers see them")
    then = modprobe.in_order({**files, SOFTDEPS: text})
    for item in modprobe.missing_softdeps(then, rivals):
        place = modprobe.softdep_file(then, item.module)
        raise UsageProblem(
            f"'{draft.host.path(place)}' says before any other file what '{item.module}' waits "
            "for, and only the first word counts.",
            hint=f"write there: {item}   (or leave it as it is: --no-nvidia-softdep)",
        )


def _kernel_ids(
    draft: Draft, ids: Sequence[str], family: platform_facts.Family
) -> tuple[str, ...]:
    """Return the IDs for the kernel's command line; none where modprobe.d decides."""
    given = _given_parameters(draft.host, family).get("vfio_pci.ids", ())
    if not given and not platform_facts.built_in(draft.host, modprobe.VFIO):
        return ()
    return modprobe.joined_ids(modprobe.split_ids(given[-1]) if given else (), ids)


# -- what differs between the families ------------------------------------------------------


def grub_sources(host: Host) -> dict[str, str]:
    """Return GRUB's settings by file, in the order in which they are read.

    Raises UsageProblem without GRUB.
    """
    first = read_text(host, grub.DEFAULTS)
    if first is None:
        raise UsageProblem(
            f"'{host.path(grub.DEFAULTS)}' does not exist; only GRUB can be prepared.",
            hint="add the parameters of docs/how-to/gpu-passthrough.md to your boot loader",
        )
    names = sorted(path.name for path in host.path(grub.DROP_INS).glob("*.cfg"))
    more = {f"{grub.DROP_INS}/{name}": host.text(f"{grub.DROP_INS}/{name}") for name in names}
    return {grub.DEFAULTS: first, **more}


def _given_parameters(host: Host, family: platform_facts.Family) -> dict[str, tuple[str, ...]]:
    if family == "debian":
        return cmdline_parameters(grub.command_line(grub_sources(host)))
    lines = [cmdline_parameters(line) for line in boot_entries.entry_options(host)]
    return {name: values for line in lines for name, values in line.items()}


def _debian(draft: Draft, parameters: Sequence[Parameter]) -> tuple[Command, ...]:
    sources = grub_sources(draft.host)
    missing = grub.missing_parameters(sources, parameters)
    why = "; ".join(f"{item}: {item.why}" for item in missing)
    for path in grub.with_parameters(sources, parameters):
        # Read again, for every byte, and so that a link is refused.
        exact = {**sources, path: draft.text(path) or ""}
        draft.write(path, grub.with_parameters(exact, parameters)[path], why)
    commands = []
    if any(path.startswith(grub.DEFAULTS) for path in draft.after):
        commands.append(_UPDATE_GRUB)
    if any("/modprobe.d/" in path for path in draft.after):
        commands.append(_UPDATE_INITRAMFS)
    return tuple(commands)


def _rhel(draft: Draft, parameters: Sequence[Parameter]) -> tuple[Command, ...]:
    missing = boot_entries.missing_parameters(draft.host, parameters)
    commands = [boot_entries.grubby(draft.host, missing)] if missing else []
    if modprobe.VFIO not in (draft.text(DRACUT) or "").replace("_", "-"):
        # dracut leaves out modules that the host did not need when it ran.
        line = 'force_drivers+=" vfio_pci vfio vfio_iommu_type1 "'
        draft.add_lines(DRACUT, [line], "the initramfs has vfio-pci, and loads it first")
    if any("/modprobe.d/" in path or path == DRACUT for path in draft.after):
        commands.append(_DRACUT)
    return tuple(commands)
