"""What the driver has told a kernel's log of errors: Xids of GPUs and SXids of NVSwitches, as
sentences. Pure functions but for the command that finds the lines.

A line reads 'NVRM: Xid (PCI:0000:07:00): 79, pid=…, name=…, GPU has fallen off the bus.'; old
drivers leave 'PCI:' out, with MIG it is '(PCI:0000:07:00 GPU-I:05 GPU-CI:00)'. One event may fill
hundreds of lines. Sources: NVIDIA's XID Errors, GPU Memory Error Management, Fabric Manager
User Guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from deepops_fixtures import facts

#: Prints the lines, and 'readable' where the log is.
KERNEL_LOG = (
    "{ journalctl --no-pager -q -k -b -o cat 2>/dev/null; dmesg -t 2>/dev/null && echo readable; "
    "journalctl --no-pager -q -k -b -n 1 2>/dev/null | grep -q . && echo readable; }"
    " | grep -E 'NVRM: .*(Xid|fallen off the bus)|SXid|^readable$'; exit 0"
)
_XID = re.compile(
    r"(?P<switch>S?)Xid \((?:PCI:)?(?P<address>[0-9a-fA-F:.]+)(?P<slice>(?: GPU-C?I:\d+)*)\): "
    r"(?P<number>\d+)(?:, *)?(?P<rest>.*)"
)


def sentences(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what is wrong, a sentence for each GPU and number, and what is harmless."""
    # The journal and dmesg tell the same lines.
    said = dict.fromkeys(line.strip() for line in lines)
    groups: dict[tuple[str, ...], list[re.Match[str]]] = {}
    unread: list[str] = []
    for line in said:
        found = _XID.search(line)
        if found:
            key = found.group("switch", "address", "slice", "number")
            groups.setdefault(key, []).append(found)
        else:
            unread.append(f"the kernel says '{line}'")
    faults = [_sentence(group) for group in groups.values() if not _harmless(group[0])]
    return faults + unread, [_sentence(group) for group in groups.values() if _harmless(group[0])]


def _harmless(found: re.Match[str]) -> bool:
    return bool(found["switch"]) and int(found["number"]) in facts.HARMLESS_SXIDS


def _sentence(group: list[re.Match[str]]) -> str:
    first = group[0]
    what = f"NVSwitch {first['address']} had SXid {first['number']}"
    if not first["switch"]:
        meaning = facts.XIDS.get(int(first["number"]), "not in the table here")
        what = f"GPU {first['address']}{first['slice']} had Xid {first['number']} ({meaning})"
    more = f" (and {len(group) - 1} more lines of it)" if len(group) > 1 else ""
    return f"{what}: {first['rest'].strip() or 'nothing more is told'}{more}"
