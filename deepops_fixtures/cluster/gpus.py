"""The devices of this host that a cluster's guests get: leased, written into its ledger, looked
for in the guests, and given back.

Joins a ledger with the room ``passthrough``, which knows devices and leases and no cluster. Moving
a device to vfio-pci and back again is libvirt's work (managed='yes', libvirt's domain format).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from deepops_fixtures import upstream_env
from deepops_fixtures.cluster import hypervisor, ssh
from deepops_fixtures.cluster.ledger import HandedThrough, Ledger, LedgerBook
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.errors import DeepopsError, ProvisionError
from deepops_fixtures.journal import Journal
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.leases import Lease, Leases, Owner
from deepops_fixtures.passthrough.pci import Bdf, Host
from deepops_fixtures.passthrough.selection import Placement, Request, parse_gpudata
from deepops_fixtures.proc import Deadline
from deepops_fixtures.settings import Settings

#: The root of the host's files; tests give another.
ROOT = Path("/")
#: Prints 'vendor:device' of every PCI function of a guest, as sysfs has them.
_LIST = (
    "for d in /sys/bus/pci/devices/*; do read -r v <$d/vendor; read -r i <$d/device; "
    'echo "${v#0x}:${i#0x}"; done'
)
#: Seconds for a device to be back on its driver once its guest is gone; NVIDIA's takes ten.
_BACK = 60.0


def requested(settings: Settings) -> Request:
    """Return what the user asks for: ``--deepops-gpu``, else upstream's GPUDATA, else nothing.

    Raises UsageProblem.
    """
    gpudata = upstream_env.gpudata(os.environ)
    return parse_gpudata(gpudata) if gpudata and not settings.gpu else Request.parse(settings.gpu)


def host_leases() -> Leases:
    """Return this host's leases, with libvirt's word on which machines exist."""
    return Leases(ROOT, domain_exists=_domain_exists, guests=in_guests)


def _domain_exists(name: str) -> bool:
    with hypervisor.connect() as connection:
        return any(domain.name() == name for domain in connection.listAllDomains())


def in_guests() -> dict[Bdf, str]:
    """Return which devices of this host running machines have, and the name of each machine."""
    found = {}
    with hypervisor.connect() as connection:
        for domain, root in hypervisor.described(connection.listAllDomains()):
            # A running machine has a number.
            if root.get("id") is None:
                continue
            for address in root.iterfind("devices/hostdev[@type='pci']/source/address"):
                parts = ("domain", "bus", "slot", "function")
                found[Bdf(*(int(address.get(part, "0"), 16) for part in parts))] = domain.name()
    return found


def taken(
    host: Host, *, away: bool = True
) -> tuple[Mapping[int, Holder], Mapping[Bdf, str], bool]:
    """Return who holds which IOMMU group, which machine has which device, and whether libvirt was
    there to tell: a saved tree has none to ask. ``away`` is that of `Leases.holders`."""
    if host.is_this_host:
        with suppress(DeepopsError):
            return host_leases().holders(away=away), in_guests(), True
    return Leases(host.root).holders(away=away), {}, False


class Lending:
    """The devices of one run's cluster. The lease ends with this process, or when they are back,
    whatever is later."""

    def __init__(
        self, request: Request, spec: ClusterSpec, book: LedgerBook, journal: Journal, wait: float
    ) -> None:
        self.request = request
        self._spec = spec
        self._book = book
        self._journal = journal
        self._wait = wait
        self._lease: Lease | None = None

    def lend(self, ledger: Ledger) -> Ledger:
        """Lease what was asked for and return the ledger that names it.

        Waits for other clusters, and says for which. Raises UsageProblem.
        """
        return self._lend(ledger, self.request, self._wait) if self.request else ledger

    def lend_again(self, ledger: Ledger, gpus: Mapping[str, list[HandedThrough]]) -> Ledger:
        """Lease the very devices that a checkpoint's guests know, at once or not at all.

        Raises UsageProblem.
        """
        if not gpus:
            return ledger
        bdfs = tuple(Bdf.parse(item.bdf) for items in gpus.values() for item in items)
        main = _without_functions(bdfs)
        again = Request(", ".join(map(str, main)), "addresses", 0, main, self.request.device)
        return self._lend(ledger, again, 0)

    def _lend(self, ledger: Ledger, request: Request, wait: float) -> Ledger:
        domains = dict(zip(ledger.spec.nodes, ledger.domains, strict=True))
        leases = host_leases()
        self._lease = leases.acquire(
            request,
            self._spec.gpu_nodes,
            Owner(ledger.name, domains),
            wait_s=wait,
            say=lambda text: self._journal.note("up", text),
        )
        placement = self._lease.placement
        for text in placement.warnings:
            self._journal.note("up", text)
        host = Host(ROOT)
        gpus = {node: _handed(placement, host, node) for node in placement.nodes}
        for node, items in gpus.items():
            for item in items:
                self._journal.note("up", f"gets {item}", node=node, status="ok")
        ledger = self._book.update(ledger.name, gpus=gpus)
        if ledger.kept:
            leases.keep(ledger.name)
        return ledger

    def close(self) -> None:
        """Let go of the locks, once the devices are back or were never taken."""
        if self._lease:
            self._lease.close()
            self._lease = None


def _without_functions(bdfs: Iterable[Bdf]) -> tuple[Bdf, ...]:
    """Return the addresses without those of the same card's other functions, which follow it."""
    first: dict[tuple[int, int, int], Bdf] = {}
    for bdf in bdfs:
        first.setdefault((bdf.domain, bdf.bus, bdf.slot), bdf)
    return tuple(first.values())


def _handed(placement: Placement, host: Host, node: str) -> list[HandedThrough]:
    return [
        HandedThrough(
            bdf=str(item.bdf),
            id=item.id,
            name=host.name(item),
            iommu_group=item.iommu_group or 0,
            driver=item.driver,
        )
        for item in placement.devices(node)
    ]


def look_for(ledger: Ledger, config: Path, deadline: Deadline) -> None:
    """See that every guest lists the devices that were handed to it.

    Raises ProvisionError naming the node, what it should have and what it has.
    """
    nodes = [node for node, items in ledger.gpus.items() if items]
    if not nodes:
        return
    for node, text in ssh.on_all(config, ledger.name, nodes, _LIST, deadline).items():
        wanted = Counter(item.id for item in ledger.gpus[node])
        has = Counter(text.split())
        for device, count in wanted.items():
            if has[device] < count:
                raise ProvisionError(
                    f"Node '{node}' was handed {count} of '{device}' and lists {has[device]} on "
                    "its PCI bus.",
                    detail="\n".join(sorted(has)),
                    hint="virsh -c qemu:///system dumpxml "
                    f"{ledger.domain_prefix}{node} | grep -A6 hostdev; sudo dmesg | grep vfio",
                )


def give_back(ledger: Ledger, journal: Journal) -> None:
    """Wait until every device is back on the driver it had, and end the lease.

    Its machines are gone by now. Raises LeakError naming the device; the lease stays then.
    """
    if not ledger.gpus:
        return
    count = sum(map(len, ledger.gpus.values()))
    with journal.step("down", f"giving back {count} device{'s' if count != 1 else ''}"):
        host_leases().release(ledger.name, wait_s=_BACK)
