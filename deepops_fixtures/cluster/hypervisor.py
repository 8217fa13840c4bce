"""What libvirt has on this host, and the removal of what a ledger names. Over libvirt's own API.

Not for creating machines: Vagrant does that.
"""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
import psutil

from deepops_fixtures.cluster.ledger import MARK, Ledger, Snapshot
from deepops_fixtures.errors import UsageProblem

URI = "qemu:///system"
POOL = "default"
_LEASES = Path("/var/lib/libvirt/dnsmasq")


@contextmanager
def connect() -> Iterator[libvirt.virConnect]:
    """Connect to the system's libvirt. Raises UsageProblem when it does not answer."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open(URI)
    except libvirt.libvirtError as error:
        raise UsageProblem(
            f"libvirt does not answer at {URI}: {error.get_error_message()}.",
            hint="./setup.sh   (installs and starts libvirt, joins the libvirt group)",
        ) from None
    try:
        yield connection
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


def take_snapshot() -> Snapshot:
    """Return what is on this host now."""
    with connect() as connection:
        domains = frozenset(domain.name() for domain in connection.listAllDomains())
        networks = frozenset(network.name() for network in connection.listAllNetworks())
        volumes = frozenset(
            f"{pool.name()}/{name}"
            for pool in connection.listAllStoragePools()
            if pool.isActive()
            for name in volume_names(pool)
        )
    return Snapshot(
        domains=domains,
        networks=networks,
        volumes=volumes,
        leases=_lease_files(),
        processes=_processes(),
    )


def volume_names(pool: libvirt.virStoragePool) -> list[str]:
    """Return the names of a pool's volumes, read afresh."""
    with suppress(libvirt.libvirtError):
        pool.refresh()
    try:
        return list(pool.listVolumes())
    except libvirt.libvirtError:
        return []


def _lease_files() -> frozenset[str]:
    """dnsmasq's files of networks; readable to root alone on some hosts, and then not compared."""
    try:
        return frozenset(path.name for path in _LEASES.iterdir())
    except OSError:
        return frozenset()


def _processes() -> frozenset[str]:
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        name = instance_of(process, command)
        if name:
            found.add(f"{name}: {process.pid} {command[:120]}")
    return frozenset(found)


def instance_of(process: psutil.Process, command: str) -> str:
    """Return the instance a process works for ('' when none): our mark, or libvirt's own
    helpers."""
    if "guest=deepops-" in command:
        return command.split("guest=deepops-", 1)[1].split("_", 1)[0]
    if "dnsmasq/deepops-" in command:
        name = command.split("dnsmasq/deepops-", 1)[1].split(".conf", 1)[0]
        return name.removesuffix("-mgmt")
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK, "")
    return ""


def marked_processes(name: str) -> list[psutil.Process]:
    """Return the living processes that the harness started for this instance, ourselves
    excluded."""
    ours = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        if process.pid in ours or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == name:
                found.append(process)
    return found


def end_marked_processes(name: str, grace: float = 8) -> None:
    """End what still runs for this instance: SIGTERM, then SIGKILL after ``grace`` seconds."""
    victims = marked_processes(name)
    for process in victims:
        with suppress(psutil.Error):
            process.terminate()
    _gone, alive = psutil.wait_procs(victims, timeout=grace)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=3)


def subnets_in_use() -> list[ipaddress.IPv4Network]:
    """Return the IPv4 networks of libvirt's networks and of this host's interfaces and routes."""
    found: list[ipaddress.IPv4Network] = []
    with connect() as connection:
        for network in connection.listAllNetworks():
            for ip in ElementTree.fromstring(network.XMLDesc(0)).iter("ip"):
                mask = ip.get("netmask") or ip.get("prefix") or "24"
                with suppress(ValueError):
                    found.append(
                        ipaddress.IPv4Network(f"{ip.get('address')}/{mask}", strict=False)
                    )
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            with suppress(ValueError):
                interface = ipaddress.IPv4Interface(f"{address.address}/{address.netmask or 32}")
                found.append(interface.network)
    return found + _routes()


def _routes() -> list[ipaddress.IPv4Network]:
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((destination, bin(mask).count("1"))))
    return found


def pool_space(pool_name: str = POOL) -> tuple[Path | None, int]:
    """Return the pool's folder and its free bytes; starts or defines the default pool when
    needed."""
    with connect() as connection:
        try:
            pool = connection.storagePoolLookupByName(pool_name)
        except libvirt.libvirtError:
            return None, psutil.disk_usage("/var/lib/libvirt").free
        if not pool.isActive():
            pool.create()
        path = ElementTree.fromstring(pool.XMLDesc(0)).findtext("target/path")
        return (Path(path) if path else None), pool.info()[3]


def addresses(ledger: Ledger) -> dict[str, str]:
    """Return each node's address in the management network, as libvirt's leases tell it."""
    found: dict[str, str] = {}
    with connect() as connection:
        for node, domain_name in zip(ledger.spec.nodes, ledger.domains, strict=True):
            with suppress(libvirt.libvirtError):
                domain = connection.lookupByName(domain_name)
                source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
                for interface in (domain.interfaceAddresses(source) or {}).values():
                    for address in interface["addrs"] or []:
                        found[node] = address["addr"]
    return found


def domain_states(ledger: Ledger) -> dict[str, str]:
    """Return 'running', 'shut off', … of each of the instance's domains; 'absent' where there is
    none."""
    names = {
        1: "running",
        2: "blocked",
        3: "paused",
        4: "shutting down",
        5: "shut off",
        6: "crashed",
    }
    states = {}
    with connect() as connection:
        for node, domain_name in zip(ledger.spec.nodes, ledger.domains, strict=True):
            try:
                state = connection.lookupByName(domain_name).state()[0]
                states[node] = names.get(state, "unknown")
            except libvirt.libvirtError:
                states[node] = "absent"
    return states


def remove(ledger: Ledger) -> list[str]:
    """Remove the domains, networks and volumes the ledger names; return what could not be
    removed."""
    left: list[str] = []
    with connect() as connection:
        for name in ledger.domains:
            with suppress(libvirt.libvirtError):
                domain = connection.lookupByName(name)
                left += _remove_domain(domain)
        for name in ledger.volumes:
            left += _remove_volume(connection, ledger.pool, name)
        for name in ledger.networks:
            with suppress(libvirt.libvirtError):
                network = connection.networkLookupByName(name)
                left += _attempt(f"network {name}", network)
    return left


def _remove_domain(domain: libvirt.virDomain) -> list[str]:
    name = domain.name()
    with suppress(libvirt.libvirtError):
        if domain.isActive():
            domain.destroy()
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    try:
        if domain.isPersistent():
            domain.undefineFlags(flags)
    except libvirt.libvirtError as error:
        return [f"domain {name}: {error.get_error_message()}"]
    return []


def _remove_volume(connection: libvirt.virConnect, pool_name: str, name: str) -> list[str]:
    try:
        pool = connection.storagePoolLookupByName(pool_name)
        if name not in volume_names(pool):
            return []
        pool.storageVolLookupByName(name).delete()
    except libvirt.libvirtError as error:
        return [f"volume {pool_name}/{name}: {error.get_error_message()}"]
    return []


def _attempt(what: str, network: libvirt.virNetwork) -> list[str]:
    try:
        if network.isActive():
            network.destroy()
        if network.isPersistent():
            network.undefine()
    except libvirt.libvirtError as error:
        return [f"{what}: {error.get_error_message()}"]
    return []
