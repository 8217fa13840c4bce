"""The boot entries of the RHEL family: the parameters that kernels are started with, and grubby's
words to change them.

grubby does the changing, in the entries and in the settings that later kernels inherit. Sources:
the Boot Loader Specification, grubby(8).
"""

from __future__ import annotations

from collections.abc import Sequence

from deepops_fixtures.passthrough.kernel_line import Parameter, cmdline_parameters
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.plans import Command

#: What grubby writes besides the entries, where there is such a file.
WRITTEN_BY_GRUBBY = ("/etc/default/grub", "/etc/kernel/cmdline")


def entry_options(host: Host) -> tuple[str, ...]:
    """Return the kernel's command line of each boot entry of an RHEL host, rescue left out.

    From the entries of the Boot Loader Specification; '$kernelopts' is in grubenv. Where none can
    be read, the line of the running kernel.
    """
    environment = host.text("/boot/grub2/grubenv")
    options = next(
        (line[11:] for line in environment.splitlines() if line.startswith("kernelopts=")), ""
    )
    try:
        entries = sorted(host.path("/boot/loader/entries").glob("*.conf"))
    except OSError:
        entries = []
    found = []
    for entry in (path for path in entries if "-rescue" not in path.name):
        lines = host.text(f"/boot/loader/entries/{entry.name}").splitlines()
        words = [line.partition(" ")[2] for line in lines if line.startswith("options ")]
        if words:
            found.append(" ".join(words).replace("$kernelopts", options))
    return tuple(found) or (host.text("/proc/cmdline"),)


def missing_parameters(host: Host, wanted: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return those of the wanted parameters that some entry does not give its kernel."""
    lines = [cmdline_parameters(line) for line in entry_options(host)]
    return tuple(item for item in wanted if not all(item.met_by(line) for line in lines))


def grubby(host: Host, missing: Sequence[Parameter]) -> Command:
    """Return the command that adds these parameters to every entry, and takes them out again."""
    base = ("grubby", "--update-kernel=ALL")
    added = " ".join(map(str, missing))
    return Command(
        argv=(*base, f"--args={added}"),
        undo=(*base, *_undo(host, missing)),
        why="; ".join(f"{item}: {item.why}" for item in missing),
    )


def _undo(host: Host, missing: Sequence[Parameter]) -> list[str]:
    """Return grubby's words that remove what was not there and bring back what was."""
    lines = [cmdline_parameters(line) for line in entry_options(host)]
    former = {
        item.name: line[item.key][-1] for item in missing for line in lines if item.key in line
    }
    new = [item.name for item in missing if item.name not in former]
    words = [f"--remove-args={' '.join(new)}"] if new else []
    if former:
        words.append(f"--args={' '.join(f'{name}={value}' for name, value in former.items())}")
    return words
