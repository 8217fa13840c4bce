"""Whether virtual machines can use KVM here: by starting one, since a /dev/kvm that opens proves
nothing.

Under some hosts' nested virtualization the device opens, answers its version and then kills or
stalls every guest ("emulation failure"). Sources: kvm-api of the kernel documentation; field
reports.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.proc import boot_id
from deepops_fixtures.settings import Settings

DEVICE = Path("/dev/kvm")
#: Seconds a guest kernel may take to reach its panic under KVM; under real KVM it takes one or
#: two.
PATIENCE = 12.0


class Verdict(BaseModel):
    """Which accelerator, and why."""

    kind: Literal["kvm", "tcg"]
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})"


@dataclass(frozen=True)
class Probe:
    """Decides between KVM and TCG. Everything it looks at can be injected."""

    cache: Path
    device: Path = DEVICE
    qemu: str = "qemu-system-x86_64"
    #: Kernels to try a guest with, first readable one counts; the firmware alone is tried without
    #: any.
    kernels: tuple[Path, ...] = ()
    patience: float = PATIENCE

    def choose(self, wanted: str = "auto") -> Verdict:
        """Return the verdict for 'auto', 'kvm' or 'tcg'.

        Raises UsageProblem when KVM is asked for and no guest starts under it.
        """
        if wanted == "tcg":
            return Verdict(kind="tcg", reason="asked for by --deepops-accelerator")
        verdict = self._remembered()
        if wanted == "kvm" and verdict.kind != "kvm":
            raise UsageProblem(
                f"KVM was asked for and cannot be used: {verdict.reason}.",
                hint="use --deepops-accelerator auto, or mend KVM on this host",
            )
        return verdict

    def _remembered(self) -> Verdict:
        """Try once per boot of this host, and remember; two processes never try at the same
        time."""
        key = f"{boot_id()}-{_permissions(self.device)}"
        path = self.cache / "accelerator.json"
        known = _read(path, key)
        if known:
            return known
        from filelock import FileLock

        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / "accelerator.lock"):
            verdict = _read(path, key) or self._try()
            partial = path.with_suffix(".partial")
            partial.write_text(f"{key}\n{verdict.model_dump_json()}")
            partial.rename(path)
            return verdict

    def _try(self) -> Verdict:
        if platform.machine() != "x86_64":
            return Verdict(
                kind="tcg", reason=f"this host is {platform.machine()}, guests are x86_64"
            )
        if not self.device.exists():
            return Verdict(kind="tcg", reason=f"{self.device} does not exist")
        if not os.access(self.device, os.R_OK | os.W_OK):
            return Verdict(
                kind="tcg",
                reason=f"this user may not open {self.device} (join group kvm: ./setup.sh)",
            )
        kernel = next((path for path in self.kernels if os.access(path, os.R_OK)), None)
        with tempfile.TemporaryDirectory(prefix="deepops-kvm-") as folder:
            return self._start_guest(kernel, Path(folder))

    def _start_guest(self, kernel: Path | None, folder: Path) -> Verdict:
        output = folder / "guest.log"
        command = [
            self.qemu,
            "-accel",
            "kvm",
            "-machine",
            "q35",
            "-cpu",
            "host",
            "-m",
            "256",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-serial",
            f"file:{output}",
            "-chardev",
            f"file,id=debug,path={folder / 'firmware.log'}",
            "-device",
            "isa-debugcon,iobase=0x402,chardev=debug",
        ]
        what = "firmware"
        if kernel:
            what = f"kernel {kernel.name}"
            command += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
        else:
            output = folder / "firmware.log"
        begin = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            return Verdict(kind="tcg", reason=f"{self.qemu} cannot be started: {error.strerror}")
        wanted = b"Kernel panic" if kernel else b"No bootable device"
        try:
            while time.monotonic() - begin < self.patience:
                if output.exists() and wanted in output.read_bytes():
                    took = time.monotonic() - begin
                    return Verdict(kind="kvm", reason=f"a guest's {what} started in {took:.1f} s")
                if process.poll() is not None:
                    break
                time.sleep(0.05)
            if output.exists() and wanted in output.read_bytes():
                return Verdict(kind="kvm", reason=f"a guest's {what} started")
            if process.poll() is None:
                return Verdict(
                    kind="tcg",
                    reason=f"{self.device} opens, but a guest's {what} did not start under it "
                    f"within {self.patience:.0f} s",
                )
            said = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
            first = next((line for line in said.splitlines() if line.strip()), "no message")
            return Verdict(
                kind="tcg",
                reason=f"{self.device} opens, but a guest dies under it: "
                f"{first.removeprefix('qemu-system-x86_64: ')}",
            )
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


def _read(path: Path, key: str) -> Verdict | None:
    """Return the verdict that was found under these circumstances, None when none was."""
    with suppress(FileNotFoundError):
        seen, _, text = path.read_text().partition("\n")
        if seen == key:
            return Verdict.model_validate_json(text)
    return None


def _permissions(device: Path) -> str:
    try:
        status = device.stat()
    except OSError:
        return "absent"
    return f"{status.st_mode:o}-{status.st_gid}-{os.getuid()}-{os.access(device, os.W_OK)}"


def host_kernels() -> tuple[Path, ...]:
    """Return the kernels of this host that a probe may start a guest with."""
    return (Path(f"/boot/vmlinuz-{platform.release()}"), *sorted(Path("/boot").glob("vmlinuz-*")))


def choose_accelerator(settings: Settings) -> Verdict:
    """Return the accelerator for new machines, tried with a box's kernel when there is one."""
    kernels = tuple(sorted((settings.cache_dir / "boxes").glob("*.vmlinuz"), reverse=True))
    probe = Probe(settings.cache_dir, kernels=kernels + host_kernels())
    return probe.choose(settings.accelerator)
