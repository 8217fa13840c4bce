"""A libvirt in memory: one pool, some domains, the networks that were defined.

It knows what this project asks libvirt for and nothing else; what is asked beyond that fails.
"""
# ruff: noqa: N802

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from xml.etree import ElementTree

import libvirt

_writes = itertools.count(1000)


def refusal(text: str, code: int = 0) -> libvirt.libvirtError:
    """Return an error as libvirt raises it, with this message."""
    error = libvirt.libvirtError(text)
    error.err = (code, 0, text, 2, "", "", "", 0, 0)
    return error


@dataclass
class Volume:
    """A file of the pool."""

    pool: Pool
    name: str
    size: int
    below: str = ""
    capacity: int = 8 * 1024**3
    modified: str = field(default_factory=lambda: f"{next(_writes)}.000000000")
    #: Whether it resists its removal.
    stuck: bool = False

    def path(self) -> str:
        return f"{self.pool.folder}/{self.name}"

    def info(self) -> list[int]:
        return [0, self.capacity, self.size]

    def XMLDesc(self, _flags: int) -> str:
        below = f"<backingStore><path>{self.pool.folder}/{self.below}</path></backingStore>"
        return (
            f"<volume><capacity>{self.capacity}</capacity><allocation>{self.size}</allocation>"
            f"<target><timestamps><mtime>{self.modified}</mtime></timestamps></target>"
            f"{below if self.below else ''}</volume>"
        )

    def delete(self) -> None:
        if self.stuck:
            raise refusal(f"cannot unlink file '{self.path()}'")
        del self.pool.volumes[self.name]


class Pool:
    """The pool 'default'."""

    folder = "/pool"

    def __init__(self) -> None:
        self.volumes: dict[str, Volume] = {}

    def add(self, name: str, size: int = 1000, **more: object) -> Volume:
        """Put a volume there, unless it is there already."""
        return self.volumes.setdefault(name, Volume(self, name, size, **more))

    def name(self) -> str:
        return "default"

    def isActive(self) -> bool:
        return True

    def info(self) -> list[int]:
        return [2, 10**12, 0, 10**12]

    def refresh(self) -> None:
        pass

    def XMLDesc(self, _flags: int) -> str:
        return f"<pool><target><path>{self.folder}</path></target></pool>"

    def listVolumes(self) -> list[str]:
        return list(self.volumes)

    def storageVolLookupByName(self, name: str) -> Volume:
        if name not in self.volumes:
            raise refusal(f"Storage volume not found: no storage vol with matching name '{name}'")
        return self.volumes[name]


class Domain:
    """A guest; it notes what is done to it, in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.done: list[str] = []
        self.snapshots: list[ElementTree.Element] = []
        #: What it refuses, and with which words.
        self.refuses: dict[str, str] = {}

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.refuses:
            raise refusal(self.refuses[what])

    def name(self) -> str:
        return self._name

    def XMLDesc(self, _flags: int) -> str:
        return f"<domain><name>{self._name}</name></domain>"

    def suspend(self) -> None:
        self._do("suspend")

    def resume(self) -> None:
        self._do("resume")

    def abortJob(self) -> None:
        self._do("abortJob")

    def snapshotCreateXML(self, text: str, flags: int) -> None:
        only = "disk" if flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY else "memory"
        self._do(f"snapshot of {only}")
        self.snapshots.append(ElementTree.fromstring(text))


class Network:
    """A network that was defined."""

    def __init__(self, text: str) -> None:
        self.xml = ElementTree.fromstring(text)
        self.started = False

    def name(self) -> str:
        return self.xml.findtext("name") or ""

    def XMLDesc(self, _flags: int) -> str:
        return ElementTree.tostring(self.xml, encoding="unicode")

    def create(self) -> None:
        self.started = True

    def undefine(self) -> None:
        self.started = False


class Connection:
    """What ``libvirt.open`` gives."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.domains: dict[str, Domain] = {}
        self.networks: dict[str, Network] = {}

    def add_domain(self, name: str) -> Domain:
        """Put a domain there."""
        return self.domains.setdefault(name, Domain(name))

    def close(self) -> None:
        pass

    def getVersion(self) -> int:
        return 8002000

    def getLibVersion(self) -> int:
        return 9000000

    def storagePoolLookupByName(self, name: str) -> Pool:
        if name != self.pool.name():
            raise refusal(f"Storage pool not found: no storage pool with matching name '{name}'")
        return self.pool

    def listAllStoragePools(self) -> list[Pool]:
        return [self.pool]

    def lookupByName(self, name: str) -> Domain:
        if name not in self.domains:
            raise refusal(f"Domain not found: no domain with matching name '{name}'")
        return self.domains[name]

    def listAllDomains(self) -> list[Domain]:
        return list(self.domains.values())

    def networkDefineXML(self, text: str) -> Network:
        network = Network(text)
        self.networks[network.name()] = network
        return network

    def networkLookupByName(self, name: str) -> Network:
        if name not in self.networks:
            raise refusal(f"Network not found: no network with matching name '{name}'")
        return self.networks[name]

    def listAllNetworks(self) -> list[Network]:
        return list(self.networks.values())
