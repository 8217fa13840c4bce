"""All domains of an instance frozen and thawed together: consistent memory and disks, by libvirt.

Freezing stops every guest at the same moment, writes its memory to one volume and puts a new thin
disk on top of the one it has, which is never written again; then all go on. Thawing starts guests
from such memory on new thin disks. Not for which checkpoints there are: see ``checkpoints``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import libvirt

from deepops_fixtures.cluster import hypervisor, volumes
from deepops_fixtures.errors import ProvisionError, StepTimeout
from deepops_fixtures.proc import Deadline

_T = TypeVar("_T")
_MIGRATABLE = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE


@dataclass(frozen=True)
class Frozen:
    """One node to freeze: its domain, the new thin disk's volume, and the volume for its memory
    ('' where the memory is not kept)."""

    node: str
    domain: str
    overlay: str
    ram: str


def holds_device(domain_xml: str) -> bool:
    """Whether a host's device is handed through to this domain: QEMU cannot save its memory then
    (vfio: migration is blocked)."""
    return ElementTree.fromstring(domain_xml).find("devices/hostdev") is not None


def disk_only(domains: list[str]) -> bool:
    """Whether any of these domains forbids keeping memory."""
    with hypervisor.connect() as connection:
        return any(holds_device(connection.lookupByName(name).XMLDesc(0)) for name in domains)


def active_disks(domains: list[str]) -> list[str]:
    """Return the name of the volume that each of these domains writes to now."""
    with hypervisor.connect() as connection:
        return [_active_disk(connection.lookupByName(name).XMLDesc(0)) for name in domains]


def _active_disk(domain_xml: str) -> str:
    source = ElementTree.fromstring(domain_xml).find("devices/disk[@device='disk']/source")
    path = source.get("file") if source is not None else ""
    return Path(path or "").name


def freeze(pool_name: str, items: list[Frozen], deadline: Deadline) -> dict[str, str]:
    """Freeze these domains at one moment; return node → the XML that its guest can be started
    from.

    The guests run on afterwards, also when this fails. Raises ProvisionError and StepTimeout.
    """
    with hypervisor.connect() as connection, _threads(len(items)) as threads:
        domains = {item.node: connection.lookupByName(item.domain) for item in items}
        folder = volumes.directory(connection.storagePoolLookupByName(pool_name))
        xml = {node: domain.XMLDesc(_MIGRATABLE) for node, domain in domains.items()}

        def snapshot(item: Frozen) -> None:
            text = _snapshot_xml(item, folder)
            flags = (
                libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
                | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            )
            if not item.ram:
                flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            domains[item.node].snapshotCreateXML(text, flags)

        try:
            _all("be stopped", [threads.submit(d.suspend) for d in domains.values()], deadline)
            _all(
                "be frozen",
                [threads.submit(snapshot, item) for item in items],
                deadline,
                lambda: _abort(list(domains.values())),
            )
        finally:
            for domain in domains.values():
                with suppress(libvirt.libvirtError):
                    domain.resume()
    return xml


def _snapshot_xml(item: Frozen, folder: str) -> str:
    root = ElementTree.Element("domainsnapshot")
    if item.ram:
        ElementTree.SubElement(root, "memory", snapshot="external", file=f"{folder}/{item.ram}")
    disk = ElementTree.SubElement(
        ElementTree.SubElement(root, "disks"), "disk", name="vda", snapshot="external"
    )
    ElementTree.SubElement(disk, "driver", type="qcow2")
    ElementTree.SubElement(disk, "source", file=f"{folder}/{item.overlay}")
    return ElementTree.tostring(root, encoding="unicode")


def thaw(
    pool_name: str,
    items: list[Frozen],
    xml: Mapping[str, str],
    consoles: Mapping[str, Path],
    deadline: Deadline,
) -> None:
    """Start guests from frozen memory, all at one moment, or boot them where no memory was kept.

    The thin disks (``overlay``) exist already. Raises ProvisionError and StepTimeout; whatever was
    started by then is left for the teardown.
    """
    with hypervisor.connect() as connection, _threads(len(items)) as threads:
        folder = volumes.directory(connection.storagePoolLookupByName(pool_name))

        def start(item: Frozen) -> libvirt.virDomain:
            text = _placed(xml[item.node], f"{folder}/{item.overlay}", consoles[item.node])
            domain = connection.defineXML(text)
            if item.ram:
                flags = libvirt.VIR_DOMAIN_SAVE_PAUSED
                connection.restoreFlags(f"{folder}/{item.ram}", text, flags)
            else:
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            return domain

        domains = _all("be restored", [threads.submit(start, item) for item in items], deadline)
        _all("go on", [threads.submit(domain.resume) for domain in domains], deadline)


def _placed(domain_xml: str, disk: str, console: Path) -> str:
    """Return the domain's XML with this run's disk and console file in it."""
    root = ElementTree.fromstring(domain_xml)
    for element in root.iterfind("devices/disk[@device='disk']"):
        source = element.find("source")
        if source is not None:
            source.set("file", disk)
        for below in element.findall("backingStore"):
            element.remove(below)
    for kind in ("serial", "console"):
        for source in root.iterfind(f"devices/{kind}[@type='file']/source"):
            source.set("path", str(console))
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are not waited for when a deadline has passed: libvirt may never answer."""
    threads = ThreadPoolExecutor(max_workers=max(1, count), thread_name_prefix="deepops-freezer")
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _all(
    what: str,
    futures: list[Future[_T]],
    deadline: Deadline,
    on_timeout: Callable[[], None] = lambda: None,
) -> list[_T]:
    """Return what all of these gave; the first failure becomes a ProvisionError."""
    done, late = wait(futures, timeout=deadline.left)
    if late:
        on_timeout()
        raise StepTimeout(
            f"{len(late)} of {len(futures)} guests could not {what} "
            f"within {deadline.seconds:.0f} s.",
            hint="virsh -c qemu:///system list --all; look at /var/log/libvirt/qemu",
        )
    for future in done:
        error = future.exception()
        if isinstance(error, libvirt.libvirtError):
            raise ProvisionError(f"A guest could not {what}: {error.get_error_message()}.")
    return [future.result() for future in futures]


def _abort(domains: list[libvirt.virDomain]) -> None:
    for domain in domains:
        with suppress(libvirt.libvirtError):
            domain.abortJob()
