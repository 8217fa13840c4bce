"""The rig: a whole machine, emulated, with an Intel IOMMU and devices that can be handed through.

QEMU is started here by itself, not by libvirt, so that the rig needs nothing of the host's
libvirt and leaves nothing there. All traffic goes over one port of the loopback interface. Not
for what is done inside: see tests/harness/e2e/test_passthrough_rig.py.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deepops_fixtures.errors import ProvisionError, StepTimeout
from deepops_fixtures.proc import Deadline, tail

#: What can be handed through: each behind a root port, so that each has an IOMMU group of its own.
NICS = 3
DISKS = 2
NIC_ID = "8086:10d3"
DISK_ID = "1b36:0010"
#: Two devices behind one conventional bridge share a group.
SHARED_IDS = ("8086:100e", "10ec:8139")
#: The way out and the root disk's controller: never to be handed through.
WAY_OUT_ID = "1af4:1000"
ROOT_DISK_ID = "1af4:1001"

#: Without AVX: the C library would use it everywhere, and emulating that is slow. QEMU 7.2 also
#: emulates AMD's virtualization, with which the rig would have KVM; tried with it, the rig hung
#: when it started a guest again after a reboot. So its guest is emulated by the emulated.
_CPU = "Nehalem"
_MEMORY_MIB = 3072
#: Seconds that anything inside may take: several times what it takes where nothing else runs.
PATIENCE = 900.0
_SSH_CONFIG = """\
Host rig
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile "{key}"
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  KexAlgorithms ^curve25519-sha256
  ConnectTimeout 20
  ServerAliveInterval 10
  ServerAliveCountMax 6
  ControlMaster auto
  ControlPath "{sockets}/%C"
  ControlPersist 900
"""


@dataclass
class Done:
    """A command that has ended inside the rig."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def output(self) -> str:
        """Everything it said."""
        return self.stdout + self.stderr

    def __str__(self) -> str:
        took = f"# status {self.status}, {self.seconds:.1f} s"
        return f"rig# {self.command}\n{self.output.rstrip()}\n{took}\n"


@dataclass
class Rig:
    """A rig that runs, its folder (disk, console, ssh) and what was done in it so far."""

    folder: Path
    image: Path
    key: Path
    transcript: list[Done] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _sockets: Path | None = None
    _port: int = 0

    @property
    def console(self) -> Path:
        """File with all that its serial console has said."""
        return self.folder / "console.log"

    @property
    def _config(self) -> Path:
        return self.folder / "ssh_config"

    def start(self, seconds: float = PATIENCE) -> None:
        """Start the machine on a disk of its own, and wait until ssh answers."""
        self._make_disks()
        self._port = _free_port()
        self._write_config()
        self._switch_on(Deadline.after(seconds))

    def _switch_on(self, deadline: Deadline) -> None:
        # It ends when this process does, however that ends (prctl(2), PR_SET_PDEATHSIG).
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self._command()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "qemu.log").open("ab"),
            start_new_session=True,
        )
        self._wait(deadline)

    def _make_disks(self) -> None:
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.image,
             self.folder / "root.qcow2"],
            check=True, timeout=60,
        )  # fmt: skip
        for number in range(DISKS):
            with (self.folder / f"disk{number}.img").open("wb") as disk:
                disk.truncate(64 * 1024**2)

    def _write_config(self) -> None:
        key = self.folder / "id_ed25519"
        shutil.copy(self.key, key)
        key.chmod(0o600)
        # A socket's path has about a hundred characters.
        self._sockets = Path(tempfile.mkdtemp(prefix="rig-"))
        self._config.write_text(
            _SSH_CONFIG.format(port=self._port, key=key, sockets=self._sockets)
        )

    def _command(self) -> list[str]:
        command = [
            "qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split", "-accel",
            "tcg,thread=multi", "-cpu", _CPU, "-smp", "2", "-m", str(_MEMORY_MIB),
            "-nodefaults", "-display", "none", "-no-reboot",
            "-chardev", f"file,id=console,path={self.console},append=on",
            "-serial", "chardev:console",
            # The IOMMU comes before the devices that it is to translate for.
            "-device", "intel-iommu,intremap=on,caching-mode=on",
            "-drive", f"if=none,id=root,file={self.folder / 'root.qcow2'},cache=unsafe",
            "-device", "virtio-blk-pci,drive=root,disable-modern=off,disable-legacy=off",
            "-netdev", f"user,id=out,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22",
            "-device", "virtio-net-pci,netdev=out,disable-modern=off,disable-legacy=off",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip
        devices = [f"e1000e,mac=52:54:00:de:e9:{n:02x}" for n in range(NICS)]
        for number in range(DISKS):
            path = self.folder / f"disk{number}.img"
            command += ["-drive", f"if=none,id=disk{number},file={path},format=raw"]
            devices.append(f"nvme,drive=disk{number},serial=rig{number}")
        devices.append("pcie-pci-bridge,id=old")
        for number, device in enumerate(devices):
            port = f"pcie-root-port,id=port{number},chassis={number + 1},slot={number + 1}"
            command += ["-device", port, "-device", f"{device},bus=port{number}"]
        command += ["-device", "e1000,bus=old,addr=1", "-device", "rtl8139,bus=old,addr=2"]
        return command

    def run(self, command: str, *, seconds: float = PATIENCE, stdin: bytes = b"") -> Done:
        """Run a shell command as root inside; both its outputs are kept apart."""
        begin = time.monotonic()
        try:
            done = subprocess.run(
                ["ssh", "-F", self._config, "-o", "BatchMode=yes", "rig", command],
                input=stdin, capture_output=True, timeout=seconds, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise StepTimeout(
                f"'{command}' did not end inside the rig within {seconds:.0f} s.",
                detail=(error.stdout or b"").decode(errors="replace"),
            ) from None
        made = Done(
            command,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
            time.monotonic() - begin,
        )
        self.transcript.append(made)
        return made

    def check(self, command: str, *, seconds: float = PATIENCE) -> str:
        """Run a command that has to succeed; return its standard output, stripped."""
        done = self.run(command, seconds=seconds)
        assert done.status == 0, (
            f"'{command}' ended with {done.status} inside the rig:\n{done.output}"
        )
        return done.stdout.strip()

    def start_in_background(self, command: str) -> subprocess.Popen[str]:
        """Start a command inside, with pipes to it."""
        return subprocess.Popen(
            ["ssh", "-F", self._config, "-o", "BatchMode=yes", "rig", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            bufsize=1, start_new_session=True,
        )  # fmt: skip

    def send(self, source: Path, names: Sequence[str], target: str) -> None:
        """Copy files and folders of ``source`` into a folder inside."""
        packed = subprocess.run(
            ["tar", "-C", source, "--exclude=__pycache__", "-cf", "-", *names],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        place = shlex.quote(target)
        done = self.run(f"mkdir -p {place} && tar -C {place} -xf -", stdin=packed.stdout)
        assert done.status == 0, done.output

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        done = self.run(f"cat > {shlex.quote(path)}", stdin=text.encode())
        assert done.status == 0, done.output

    def reboot(self, seconds: float = PATIENCE) -> None:
        """Reboot as its owner would, and wait until ssh answers again.

        QEMU ends with the machine and is started again: once a guest ran in the machine, the code
        that QEMU keeps of it makes a reset machine boot in a minute instead of ten seconds.
        """
        assert self._process is not None
        deadline = Deadline.after(seconds)
        self.run("systemctl reboot", seconds=60)
        self._close()
        try:
            self._process.wait(timeout=deadline.left)
        except subprocess.TimeoutExpired:
            raise StepTimeout(
                f"The rig did not shut down within {deadline.seconds:.0f} s.",
                detail=tail(self.console),
            ) from None
        self._switch_on(deadline)

    def _wait(self, deadline: Deadline) -> None:
        assert self._process is not None
        longer = itertools.chain((3, 3, 4, 4, 5, 5, 7, 10, 15), itertools.repeat(20))
        while not deadline.passed:
            if self._process.poll() is not None:
                raise ProvisionError(
                    f"QEMU ended with status {self._process.returncode}.",
                    detail=tail(self.folder / "qemu.log") + tail(self.console),
                )
            if self._answers(next(longer)):
                return
            self._close()
            time.sleep(0.5)
        raise StepTimeout(
            f"The rig did not answer over ssh within {deadline.seconds:.0f} s.",
            detail=tail(self.console),
        )

    def _answers(self, patience: int) -> bool:
        """Return whether ssh answers; QEMU takes the connection on at once, whoever is behind."""
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={patience}"]
        try:
            done = subprocess.run(
                ["ssh", "-F", self._config, *options, "rig", "true"],
                capture_output=True, timeout=patience + 20, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _close(self) -> None:
        subprocess.run(
            ["ssh", "-F", self._config, "-O", "exit", "rig"], capture_output=True, timeout=20
        )

    def stop(self) -> None:
        """End the machine: its data are worth nothing, so it is not asked to shut down."""
        if self._config.exists():
            self._close()
        if self._process and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        if self._process:
            self._process.wait(timeout=30)
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(folder: Path, image: Path, key: Path) -> Iterator[Rig]:
    """A rig that runs; whatever happens, it ends and its disks go."""
    rig = Rig(folder, image, key)
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        (folder / "transcript.txt").write_text("\n".join(map(str, rig.transcript)))
        for path in (*folder.glob("*.qcow2"), *folder.glob("*.img"), folder / "id_ed25519"):
            path.unlink(missing_ok=True)
