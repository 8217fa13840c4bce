"""Whether this host's processor and KVM carry virtual machines.

Without KVM the machines are emulated, which is slow and works: a warning, unless KVM was asked
for. Not for the IOMMU: see `iommu`. Sources: the kernel's virt/kvm documentation, proc_cpuinfo(5).
"""

from __future__ import annotations

from deepops_fixtures.cluster.accelerator import choose_accelerator
from deepops_fixtures.doctor import bios
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Question, Verdict, fail, ok, skip, warn
from deepops_fixtures.passthrough.platform_facts import X86_HOST

_SLOW = "virtual machines are emulated, which is many times slower"


def flags(case: Case) -> Verdict:
    """Look for the processor's virtualization: vmx (Intel VT-x) or svm (AMD-V)."""
    if case.foreign:
        return _foreign(case)
    if not case.cpu_flags:
        return skip("'/proc/cpuinfo' cannot be read")
    found = sorted({"vmx", "svm"} & case.cpu_flags)
    if found:
        return ok(f"the processor has {found[0]}, and the BIOS leaves it on")
    if case.settings.accelerator == "tcg":
        return ok("neither vmx nor svm, and emulation was asked for")
    if "hypervisor" in case.cpu_flags:
        why = "neither vmx nor svm: this is a virtual machine that may not nest others"
    else:
        why = "neither vmx nor svm in '/proc/cpuinfo': off in the BIOS, or not in this processor"
    fix = bios.menu(case, "VT-x")
    if case.settings.accelerator == "kvm":
        return fail(f"{why}; KVM was asked for", fix)
    return warn(f"{why}; {_SLOW}", fix)


def _foreign(case: Case) -> Verdict:
    """Return what it means that the guests' instructions are not those of the processors."""
    if case.asked:
        return fail(case.foreign, X86_HOST)
    why = "the processors are of another kind than the virtual machines, x86_64"
    if case.settings.accelerator == "tcg":
        return ok(f"{why}, and emulation was asked for")
    judge = fail if case.settings.accelerator == "kvm" else warn
    return judge(f"{why}; {_SLOW}", X86_HOST)


def guest(case: Case) -> Verdict:
    """Start a guest under KVM, since a /dev/kvm that opens proves nothing."""
    verdict = choose_accelerator(case.settings)
    if verdict.kind == "kvm":
        return ok(verdict.reason)
    if case.settings.accelerator == "tcg":
        return ok("not tried: emulation was asked for")
    if "does not exist" in verdict.reason:
        fix = "sudo modprobe kvm_amd" if case.vendor == "amd" else "sudo modprobe kvm_intel"
        fix += f"; where it refuses: {bios.menu(case, 'VT-x')}"
    elif "may not open" in verdict.reason:
        fix = "./setup.sh   (joins group kvm, sets the device's mode), then log in again"
    else:
        fix = "--deepops-accelerator tcg, or a host whose hypervisor lets guests nest"
    return warn(f"{verdict.reason}; {_SLOW}", fix)


QUESTIONS = (
    Question("cpu-flags", flags),
    Question("kvm-guest", guest, here=True, preflight=False),
)
