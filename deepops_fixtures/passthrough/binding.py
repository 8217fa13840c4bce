"""Moving devices to vfio-pci while the host runs, and back to the driver that they had.

By ``driver_override`` and ``drivers_probe`` (Documentation/ABI/testing/sysfs-bus-pci), which name
one device and not all of an ID. The driver before is written to /run first: it is as short-lived
as the binding. Not needed for a run: libvirt does the same for the machines it starts; and not for
what shall hold after a reboot, which is `preparation`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from deepops_fixtures.errors import DeepopsError, StepTimeout, UsageProblem
from deepops_fixtures.passthrough.pci import VFIO, Bdf, Host, PciDevice
from deepops_fixtures.proc import Deadline

MEMORY = "/run/deepops-fixtures/drivers.json"
#: Seconds that a driver may take to let go of a device, or to take it.
PATIENCE = 20.0
_AS_ROOT = 'sudo "$(command -v deepops-virtual)" gpu …   (the same command as root)'


class Binder:
    """Binds the devices of one host. ``write`` gets a file of sysfs and the text for it."""

    def __init__(
        self,
        host: Host,
        *,
        write: Callable[[Path, str], object] = Path.write_text,
        patience: float = PATIENCE,
    ) -> None:
        self.host = host
        self._write = write
        self._patience = patience
        self._memory = host.path(MEMORY)

    def bind(self, devices: Iterable[PciDevice], driver: str = VFIO) -> list[Bdf]:
        """Move devices to a driver and return those that were not there already.

        Whether they may be moved is for the caller to ask (`candidates.Rules`). When one of them
        does not follow, those before it are put back. Raises UsageProblem when nothing was begun,
        DeepopsError otherwise.
        """
        moving = [item for item in devices if item.driver != driver]
        if not moving:
            return []
        self._check(moving, driver)
        with self._remembered() as memory:
            # A device that was moved before keeps the driver it had then.
            memory.update({str(it.bdf): it.driver for it in moving if str(it.bdf) not in memory})
        moved: list[PciDevice] = []
        try:
            for item in moving:
                moved.append(item)
                self._move(item.bdf, driver)
        except BaseException:
            for item in reversed(moved):
                with suppress(DeepopsError):
                    self._move(item.bdf, item.driver)
            self._forget(moving)
            raise
        return [item.bdf for item in moving]

    def unbind(
        self, devices: Iterable[PciDevice], leased_from: Mapping[Bdf, str] | None = None
    ) -> dict[Bdf, str]:
        """Give devices back and return the driver each is on again, '' for none.

        ``leased_from``: the drivers of devices that libvirt moved for a lease and did not move
        back. Raises UsageProblem for a device that neither `bind` nor libvirt moved, before
        anything is changed.
        """
        devices = tuple(devices)
        with self._remembered() as memory:
            known = dict(leased_from or {})
            found = ((Bdf.match(bdf), driver) for bdf, driver in memory.items())
            known |= {bdf: driver for bdf, driver in found if bdf}
        back = {item.bdf: known[item.bdf] for item in devices if item.bdf in known}
        for item in devices:
            if item.bdf not in back and not any(it in back for it in self._card(item)):
                on = f"is on driver '{item.driver}'" if item.driver else "has no driver"
                raise UsageProblem(
                    f"'{item.bdf}' {on} and was not bound by this tool.",
                    hint="what is bound from boot on is undone by deepops-virtual gpu prepare "
                    "--undo",
                )
        moving = [item for item in devices if item.bdf in back]
        self._check(moving, *filter(None, back.values()))
        for item in moving:
            self._move(item.bdf, back[item.bdf])
            self._forget([item])
        return back

    def _card(self, device: PciDevice) -> list[Bdf]:
        return [item.bdf for item in self.host.functions(device)]

    # -- sysfs ------------------------------------------------------------------------------

    def _check(self, devices: Iterable[PciDevice], *drivers: str) -> None:
        for driver in drivers:
            if not self.host.path(f"/sys/bus/pci/drivers/{driver}").is_dir():
                raise UsageProblem(
                    f"The kernel has no driver '{driver}' loaded.", hint=f"sudo modprobe {driver}"
                )
        for item in devices:
            path = self._file(item.bdf, "driver_override")
            if not os.access(path, os.W_OK):
                raise UsageProblem(f"'{path}' may not be written by this user.", hint=_AS_ROOT)

    def _move(self, bdf: Bdf, driver: str) -> None:
        """Move one device, '' for no driver, and wait until it is there. Raises DeepopsError."""
        now = self._driver(bdf)
        if now == driver:
            return
        try:
            # A line break alone empties it.
            self._write(self._file(bdf, "driver_override"), f"{driver}\n")
            if now:
                self._write(self.host.path(f"/sys/bus/pci/drivers/{now}/unbind"), f"{bdf}\n")
            if driver:
                self._write(self.host.path("/sys/bus/pci/drivers_probe"), f"{bdf}\n")
        except OSError as error:
            raise DeepopsError(
                f"'{bdf}' could not be moved from driver '{now}' to '{driver}': {error.strerror}.",
                hint="dmesg | tail",
            ) from error
        self._wait(bdf, driver)
        if driver != VFIO:
            with suppress(OSError):
                self._write(self._file(bdf, "driver_override"), "\n")

    def _wait(self, bdf: Bdf, driver: str) -> None:
        deadline = Deadline.after(self._patience)
        while (now := self._driver(bdf)) != driver:
            if deadline.passed:
                raise StepTimeout(
                    f"'{bdf}' is on driver '{now}' and not on '{driver}' after "
                    f"{deadline.seconds:.0f} s.",
                    hint="dmesg | tail",
                )
            time.sleep(min(0.05, deadline.left))

    def _driver(self, bdf: Bdf) -> str:
        link = self._file(bdf, "driver")
        return link.readlink().name if link.is_symlink() else ""

    def _file(self, bdf: Bdf, name: str) -> Path:
        return self.host.folder(bdf) / name

    # -- the drivers before -----------------------------------------------------------------

    @contextmanager
    def _remembered(self) -> Iterator[dict[str, str]]:
        """Give the drivers before, by address, and write them back if they were changed."""
        lock = FileLock(self._memory.with_suffix(".lock"))
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=self._patience)
        except OSError as error:
            raise UsageProblem(
                f"'{self._memory}' cannot be written: {error.strerror or error}.", hint=_AS_ROOT
            ) from error
        try:
            before = self._memory.read_text() if self._memory.exists() else "{}"
            memory: dict[str, str] = _parsed(self._memory, before)
            yield memory
            after = json.dumps(memory, sort_keys=True)
            if after != before:
                partial = self._memory.with_suffix(".partial")
                partial.write_text(after)
                partial.rename(self._memory)
        finally:
            lock.release()

    def _forget(self, devices: Iterable[PciDevice]) -> None:
        with self._remembered() as memory:
            for item in devices:
                memory.pop(str(item.bdf), None)


def bound(host: Host) -> frozenset[Bdf]:
    """Return the devices that `Binder.bind` has moved and not moved back."""
    try:
        told = json.loads(host.text(MEMORY) or "{}")
    except ValueError:
        return frozenset()
    return frozenset(filter(None, map(Bdf.match, told))) if isinstance(told, dict) else frozenset()


def _parsed(path: Path, text: str) -> dict[str, str]:
    try:
        return {str(bdf): str(driver) for bdf, driver in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise UsageProblem(
            f"'{path}' cannot be read; it holds which driver each device had.",
            hint=f"rm {path}; the devices get their drivers back by a reboot",
        ) from error
