"""Volumes of libvirt's pools: thin copies, sizes, signatures, removal.

Everything goes through libvirt, since the files belong to root and this user may not. Not for the
box's base image: see ``base_image``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from xml.sax.saxutils import escape

import libvirt
from pydantic import BaseModel, ConfigDict

from deepops_fixtures.errors import ProvisionError

_OVERLAY = """\
<volume>
  <name>{name}</name>
  <capacity unit='bytes'>{capacity}</capacity>
  <target><format type='qcow2'/></target>
  <backingStore><path>{path}</path><format type='qcow2'/></backingStore>
</volume>
"""


class Signature(BaseModel):
    """What tells a volume that nobody has touched from one that somebody has: bytes, and when it
    was last written (as libvirt prints it, seconds and nanoseconds)."""

    model_config = ConfigDict(frozen=True)
    capacity: int
    allocation: int
    modified: str

    def same_content(self, other: Signature) -> bool:
        """Whether the other was neither written nor cut since (a file system may count its blocks
        late)."""
        return (self.capacity, self.modified) == (other.capacity, other.modified)


@contextmanager
def _refusals() -> Iterator[None]:
    """Take libvirt's refusal (no such volume, the pool is not active) for an answer; that it has
    gone away in the middle of the question is none."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise


def names(pool: libvirt.virStoragePool) -> list[str]:
    """Return the names of a pool's volumes, read afresh."""
    with suppress(libvirt.libvirtError):
        pool.refresh()
    with _refusals():
        return list(pool.listVolumes())
    return []


def directory(pool: libvirt.virStoragePool) -> str:
    """Return the pool's folder."""
    return ElementTree.fromstring(pool.XMLDesc(0)).findtext("target/path") or ""


def signatures(
    connection: libvirt.virConnect, pool_name: str, wanted: Iterable[str]
) -> dict[str, Signature]:
    """Return the signature of each of these volumes that there is."""
    found = {}
    with _refusals():
        pool = connection.storagePoolLookupByName(pool_name)
        there = set(names(pool))
        for name in wanted:
            if name in there:
                with _refusals():
                    found[name] = _signature(pool.storageVolLookupByName(name))
    return found


def _signature(volume: libvirt.virStorageVol) -> Signature:
    root = ElementTree.fromstring(volume.XMLDesc(0))
    return Signature(
        capacity=int(root.findtext("capacity") or 0),
        allocation=int(root.findtext("allocation") or 0),
        modified=root.findtext("target/timestamps/mtime") or "",
    )


def create_overlay(connection: libvirt.virConnect, pool_name: str, name: str, below: str) -> None:
    """Make an empty thin copy of a volume. Raises ProvisionError."""
    try:
        pool = connection.storagePoolLookupByName(pool_name)
        base = pool.storageVolLookupByName(below)
        text = _OVERLAY.format(
            name=escape(name), capacity=base.info()[1], path=escape(base.path())
        )
        pool.createXML(text)
    except libvirt.libvirtError as error:
        raise ProvisionError(
            f"Disk '{name}' could not be made on top of '{below}': {error.get_error_message()}.",
            hint=f"virsh -c qemu:///system vol-info --pool {pool_name} {below}",
        ) from None


def remove(connection: libvirt.virConnect, pool_name: str, wanted: Iterable[str]) -> list[str]:
    """Delete these volumes where they exist; return, for each that stayed, why."""
    left = []
    with _refusals():
        pool = connection.storagePoolLookupByName(pool_name)
        there = set(names(pool))
        for name in wanted:
            if name in there:
                try:
                    pool.storageVolLookupByName(name).delete()
                except libvirt.libvirtError as error:
                    left.append(f"volume {pool_name}/{name}: {error.get_error_message()}")
    return left


def backing_chain(connection: libvirt.virConnect, pool_name: str, name: str) -> list[str]:
    """Return the volumes that a thin disk stands on, the deepest first."""
    found: list[str] = []
    with _refusals():
        pool = connection.storagePoolLookupByName(pool_name)
        while len(found) < 64:
            root = ElementTree.fromstring(pool.storageVolLookupByName(name).XMLDesc(0))
            path = root.findtext("backingStore/path")
            if not path:
                break
            name = path.rsplit("/", 1)[-1]
            found.insert(0, name)
    return found
