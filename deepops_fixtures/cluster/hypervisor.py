"""What libvirt has on this host, and the removal of what a ledger names. Over libvirt's own API.

Not for creating machines: Vagrant does that.
"""

from __future__ import annotations

import ipaddress
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import libvirt
import psutil

from deepops_fixtures.cluster import volumes
from deepops_fixtures.cluster.ledger import MARK, Lease, Ledger, Snapshot
from deepops_fixtures.errors import ProvisionError, UsageProblem

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
    except libvirt.libvirtError as error:
        raise ProvisionError(
            f"libvirt could not do it: {error.get_error_message()}.",
            hint="./setup.sh --check; virsh -c qemu:///system list --all",
        ) from error
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


def take_snapshot() -> Snapshot:
    """Return what is on this host now."""
    with connect() as connection:
        domains = frozenset(domain.name() for domain in connection.listAllDomains())
        networks = frozenset(network.name() for network in connection.listAllNetworks())
        disks = frozenset(
            f"{pool.name()}/{name}"
            for pool in connection.listAllStoragePools()
            if pool.isActive()
            for name in volumes.names(pool)
        )
    return Snapshot(
        domains=domains,
        networks=networks,
        volumes=disks,
        leases=_lease_files(),
        processes=_processes(),
    )


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
        return command.split("guest=deepops-", 1)[1].split("_", 1)[0].split(".", 1)[0]
    if "dnsmasq/deepops-" in command:
        name = command.split("dnsmasq/deepops-", 1)[1].split(".conf", 1)[0]
        return name.removesuffix("-mgmt")
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK, "")
    return ""


def memory_of(name: str) -> int:
    """Return the bytes of RAM that an instance's guests take on this host now."""
    total = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        command = " ".join(process.info["cmdline"] or [])
        if "guest=deepops-" in command and process.info["memory_info"]:
            total += (
                process.info["memory_info"].rss if instance_of(process, command) == name else 0
            )
    return total


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


def described(found: Iterable[Any]) -> Iterator[tuple[Any, ElementTree.Element]]:
    """Yield domains or networks with their XML, without those that have gone since they were
    listed: another run's teardown is no trouble of ours."""
    gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK)
    for item in found:
        try:
            text = item.XMLDesc(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() in gone:
                continue
            raise
        yield item, ElementTree.fromstring(text)


def subnets_in_use() -> list[ipaddress.IPv4Network]:
    """Return the IPv4 networks of libvirt's networks and of this host's interfaces and routes."""
    found: list[ipaddress.IPv4Network] = []
    with connect() as connection:
        for _network, root in described(connection.listAllNetworks()):
            for ip in root.iter("ip"):
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


def leases(ledger: Ledger) -> list[Lease]:
    """Return each node's place in the management network, as libvirt's leases tell it; a node
    without one is left out."""
    found: list[Lease] = []
    with connect() as connection:
        for node, domain_name in zip(ledger.spec.nodes, ledger.domains, strict=True):
            with suppress(libvirt.libvirtError):
                domain = connection.lookupByName(domain_name)
                source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
                for interface in (domain.interfaceAddresses(source) or {}).values():
                    for address in (interface["addrs"] or [])[:1]:
                        found.append(
                            Lease(node=node, mac=interface["hwaddr"], address=address["addr"])
                        )
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


def remove(ledger: Ledger, own_volumes: Collection[str]) -> list[str]:
    """Remove the domains and networks the ledger names, and these volumes; return what could not
    be removed."""
    left = power_off(ledger.domains)
    with connect() as connection:
        left += volumes.remove(connection, ledger.pool, own_volumes)
        for name in ledger.networks:
            with suppress(libvirt.libvirtError):
                network = connection.networkLookupByName(name)
                left += _remove_network(network)
    return left


def power_off(names: Sequence[str]) -> list[str]:
    """Stop and undefine these domains, all at once; return what could not be."""

    def one(name: str) -> list[str]:
        with suppress(libvirt.libvirtError):
            return _remove_domain(connection.lookupByName(name))
        return []

    with connect() as connection, ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        return [text for left in pool.map(one, names) for text in left]


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


def _remove_network(network: libvirt.virNetwork) -> list[str]:
    try:
        if network.isActive():
            network.destroy()
        bridge = _stray_bridge(network)
        if bridge:
            done = subprocess.run(["ip", "link", "delete", bridge], capture_output=True, text=True)
            if done.returncode != 0:
                # It stays defined: nothing else on this host knows whose bridge that is.
                return [f"network {network.name()}: its bridge {bridge}: {done.stderr.strip()}"]
        if network.isPersistent():
            network.undefine()
    except libvirt.libvirtError as error:
        return [f"network {network.name()}: {error.get_error_message()}"]
    return []


def _stray_bridge(network: libvirt.virNetwork) -> str:
    """Return the bridge of a network that is not active ('' where there is none): libvirtd died
    while it started the network, and knows nothing of the bridge since."""
    root = ElementTree.fromstring(network.XMLDesc(0))
    bridge, mac = root.find("bridge"), root.find("mac")
    name = bridge.get("name", "") if bridge is not None else ""
    addresses = {address.address.lower() for address in psutil.net_if_addrs().get(name, [])}
    ours = mac is not None and mac.get("address", "").lower() in addresses
    return name if ours else ""
