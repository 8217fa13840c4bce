"""The box's disk image in libvirt's pool: one read-only base that every node's disk is a thin copy
of.

vagrant-libvirt would upload it while the machines are being created; two clusters that start
together then race, and an interrupted upload is taken for a good image. Here it is uploaded once,
under a lock.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import libvirt
from filelock import FileLock

from deepops_fixtures.cluster import hypervisor, volumes
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.cluster.vagrant_tool import user_home
from deepops_fixtures.errors import BoxError
from deepops_fixtures.journal import Journal

_VOLUME = """\
<volume>
  <name>{name}</name>
  <capacity unit='bytes'>{capacity}</capacity>
  <allocation unit='bytes'>0</allocation>
  <target><format type='qcow2'/></target>
</volume>
"""


def _image(box: Box) -> Path:
    folder = user_home() / "boxes" / box.vagrant_name.replace("/", "-VAGRANTSLASH-") / box.version
    return folder / "libvirt" / "box.img"


def ensure(box: Box, journal: Journal, pool_name: str = hypervisor.POOL) -> None:
    """Put the box's image into the pool unless it is there. Raises BoxError."""
    marker = box.cache / f"uploading-{box.version}"
    with FileLock(box.cache / "upload.lock"), hypervisor.connect() as connection:
        pool = _pool(connection, pool_name)
        names = volumes.names(pool)
        if box.volume in names and not marker.exists():
            return
        image = _image(box)
        if not image.is_file():
            raise BoxError(
                f"Vagrant's copy of box '{box.vagrant_name}' is incomplete: '{image}' not found.",
                hint=f"deepops-virtual box remove {box.name}, then try again",
            )
        marker.touch()
        if box.volume in names:
            pool.storageVolLookupByName(box.volume).delete()
        with journal.step("box", "putting the box's disk image into libvirt's pool"):
            _upload(connection, pool, box.volume, image)
        marker.unlink()


def _upload(connection: Any, pool: Any, name: str, image: Path) -> None:
    try:
        described = subprocess.run(
            ["qemu-img", "info", "--output=json", str(image)],
            check=True,
            capture_output=True,
            timeout=60,
        )
        capacity = json.loads(described.stdout)["virtual-size"]
        volume = pool.createXML(_VOLUME.format(name=escape(name), capacity=capacity))
        stream = connection.newStream()
        volume.upload(stream, 0, image.stat().st_size)
        with image.open("rb") as source:
            stream.sendAll(lambda _stream, count, file: file.read(count), source)
        stream.finish()
    except (libvirt.libvirtError, subprocess.SubprocessError, ValueError) as error:
        with suppress(libvirt.libvirtError):
            pool.storageVolLookupByName(name).delete()
        raise BoxError(
            f"The box's disk image could not be put into pool '{pool.name()}': {error}.",
            hint="check the free space of /var/lib/libvirt/images: df -h",
        ) from None


def _pool(connection: Any, name: str) -> Any:
    """Return the pool, active; the default one is defined when libvirt has none yet, as
    virt-manager does."""
    try:
        pool = connection.storagePoolLookupByName(name)
    except libvirt.libvirtError:
        pool = connection.storagePoolDefineXML(
            f"<pool type='dir'><name>{escape(name)}</name>"
            "<target><path>/var/lib/libvirt/images</path></target></pool>"
        )
        pool.build(0)
        pool.setAutostart(1)
    if not pool.isActive():
        pool.create(0)
    return pool


def remove(box: Box, needed: Collection[str], pool_name: str = hypervisor.POOL) -> None:
    """Delete every version of this box's image from the pool that no domain uses and that is not
    ``needed`` (by checkpoints)."""
    prefix = box.volume.split("_vagrant_box_image_")[0] + "_vagrant_box_image_"
    with hypervisor.connect() as connection:
        used = "".join(domain.XMLDesc(0) for domain in connection.listAllDomains())
        with suppress(libvirt.libvirtError):
            pool = connection.storagePoolLookupByName(pool_name)
            for name in volumes.names(pool):
                if name.startswith(prefix) and name not in used and name not in needed:
                    pool.storageVolLookupByName(name).delete()
