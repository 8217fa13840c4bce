"""One instance of a cluster on this host: its names, its free subnets, its folder.

Everything here happens before anything is created: what is refused is refused now.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import time
from pathlib import Path

from deepops_fixtures.cluster import capacity, hypervisor, ssh
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.cluster.checkpoints import Store
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, Owner
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.cluster.vagrant_tool import user_home
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal

_CLUSTER_SPACE = ipaddress.IPv4Network("10.86.0.0/16")
_MANAGEMENT_SPACE = ipaddress.IPv4Network("10.87.0.0/16")


def choose_name(spec: ClusterSpec, wanted: str, book: LedgerBook) -> str:
    """Return the instance's name: the one asked for, refused when taken, or one that nobody
    has."""
    taken = {item.name for item in book.all()}
    # A checkpoint brings its instance back under the name it had.
    remembered = {item.instance for item in Store(book).all()}
    with hypervisor.connect() as connection:
        domains = {domain.name() for domain in connection.listAllDomains()}
        networks = {network.name() for network in connection.listAllNetworks()}
    for _ in range(100):
        name = wanted or f"{spec.name[:20].rstrip('-')}-{secrets.token_hex(2)}"
        if name in taken or (name in remembered and not wanted):
            if wanted:
                raise UsageProblem(
                    f"A cluster instance named '{name}' exists already.",
                    hint=f"choose another --deepops-name, or: deepops-virtual destroy {name}",
                )
            continue
        clash = sorted((domains & set(_domains(name, spec))) | (networks & set(_networks(name))))
        if not clash:
            return name
        if wanted:
            raise UsageProblem(
                f"libvirt has '{clash[0]}' already, which no ledger of ours names.",
                hint="choose another --deepops-name; see virsh -c qemu:///system list --all",
            )
    raise UsageProblem("No free instance name was found.", hint="deepops-virtual status")


def choose_subnets(spec: ClusterSpec, book: LedgerBook) -> tuple[str, str]:
    """Return the cluster's and the management subnet, both free on this host. Raises
    UsageProblem."""
    used = hypervisor.subnets_in_use()
    promised = [item.subnets for item in book.all()] + [item.subnets for item in Store(book).all()]
    used += [ipaddress.IPv4Network(subnet) for subnets in promised for subnet in subnets]
    if spec.subnet != "auto":
        network = ipaddress.IPv4Network(spec.subnet)
        clash = next((other for other in used if other.overlaps(network)), None)
        if clash:
            raise UsageProblem(
                f"Subnet {network} of cluster '{spec.name}' is in use on this host ({clash}).",
                hint="set 'subnet: auto' in the cluster's file, or another network",
            )
        return str(network), _free(_MANAGEMENT_SPACE, [*used, network])
    return _free(_CLUSTER_SPACE, used), _free(_MANAGEMENT_SPACE, used)


def _free(space: ipaddress.IPv4Network, used: list[ipaddress.IPv4Network]) -> str:
    for candidate in list(space.subnets(new_prefix=24))[1:]:
        if not any(candidate.overlaps(other) for other in used):
            return str(candidate)
    raise UsageProblem(
        f"Every /24 of {space} is in use on this host.",
        hint="set 'subnet' in the cluster's file, or: deepops-virtual clean",
    )


def _domains(name: str, spec: ClusterSpec) -> list[str]:
    return [f"deepops-{name}_{node}" for node in spec.nodes]


def _prefix(name: str, book: LedgerBook) -> str:
    """Return what the domains' names begin with: another than a checkpoint's of the same name,
    since Vagrant names the disks after them."""
    kept = Store(book).needed()
    prefix, number = f"deepops-{name}_", 2
    while any(volume.startswith(prefix) for volume in kept):
        prefix, number = f"deepops-{name}.{number}_", number + 1
    return prefix


def _networks(name: str) -> list[str]:
    return [f"deepops-{name}", f"deepops-{name}-mgmt"]


def reserve(
    spec: ClusterSpec,
    wanted: str,
    book: LedgerBook,
    run_dir: Path,
    journal: Journal,
    *,
    owner: Owner,
    accelerator: str,
    wait: float,
    kept: bool,
    airgap: bool = False,
) -> Ledger:
    """Choose names and subnets and write the ledger, under the lock that keeps two runs apart.

    Waits up to ``wait`` seconds for other runs to make room. Raises UsageProblem.
    """

    def write() -> Ledger:
        name = choose_name(spec, wanted, book)
        subnets = choose_subnets(spec, book)
        prefix = _prefix(name, book)
        domains = [f"{prefix}{node}" for node in spec.nodes]
        ledger = Ledger(
            name=name,
            owner=owner,
            created=time.time(),
            spec=spec,
            run_dir=run_dir,
            pool=hypervisor.POOL,
            domain_prefix=prefix,
            domains=domains,
            networks=_networks(name),
            volumes=[f"{domain}.img" for domain in domains],
            subnets=list(subnets),
            socket_dir=ssh.socket_dir(name),
            accelerator=accelerator,
            kept=kept,
            airgap=airgap,
            before=hypervisor.take_snapshot(),
        )
        book.write(ledger)
        return ledger

    return capacity.reserve(spec, accelerator, book, journal, wait, write)


def node_addresses(ledger: Ledger) -> dict[str, str]:
    """Return each node's address in the cluster's own network."""
    network = ipaddress.IPv4Network(ledger.subnets[0])
    return {name: str(network[node.address]) for name, node in ledger.spec.nodes.items()}


def first_key() -> Path:
    """Return the private half of the key that Vagrant boxes are born with; Vagrant keeps it
    here."""
    return user_home() / "insecure_private_key"


def write_data(
    ledger: Ledger,
    folder: Path,
    consoles: Path,
    *,
    box: Box | None,
    accelerator: str,
    boot_timeout: int,
    hide_kvm: bool = False,
) -> Path:
    """Write the file that the Vagrantfile reads, make the key and the console files; return the
    file's path."""
    key = folder / "id_ed25519"
    if not key.exists():
        ssh.make_key(key, ledger.name)
    consoles.mkdir(parents=True, exist_ok=True)
    network = ipaddress.IPv4Network(ledger.subnets[0])
    nodes = []
    for name, address in node_addresses(ledger).items():
        console = consoles / f"{name}.log"
        # libvirt opens a file that is there without changing its owner, so that it stays ours to
        # read.
        console.touch()
        spec = ledger.spec.nodes[name]
        nodes.append(
            {
                "name": name,
                "address": address,
                "cpus": spec.cpus,
                "memory": spec.memory,
                "disk": spec.disk,
                "console": str(console),
                "pci": [_address(item.bdf) for item in ledger.gpus.get(name, [])],
            }
        )
    path = folder / "instance.json"
    data = {
        "name": ledger.name,
        "vagrantfile": ledger.spec.vagrantfile,
        "box": box.vagrant_name if box else ledger.spec.box,
        "box_version": box.version if box else None,
        "boot_timeout": boot_timeout,
        "private_key": str(key),
        "first_key": str(first_key()),
        "accelerator": accelerator,
        "hide_kvm": hide_kvm,
        "domain_prefix": ledger.domain_prefix,
        "pool": ledger.pool,
        "network": ledger.networks[0],
        "netmask": str(network.netmask),
        "prefix": network.prefixlen,
        "management_network": ledger.networks[1],
        "management_subnet": ledger.subnets[1],
        "nodes": nodes,
    }
    path.write_text(json.dumps(data, indent=1))
    return path


def _address(bdf: str) -> dict[str, str]:
    """Return a PCI address in the parts that the Vagrantfile hands to libvirt."""
    domain, bus, rest = bdf.split(":")
    slot, function = rest.split(".")
    parts = {"domain": domain, "bus": bus, "slot": slot, "function": function}
    return {key: f"0x{value}" for key, value in parts.items()}
