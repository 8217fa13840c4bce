"""Bringing an instance back from a checkpoint, and making its guests right again.

A restored guest wakes up in the second it was frozen: its clock is late, its ssh connections lead
nowhere, its leases are unknown to the new network. All of that is mended before anybody gets to
see it. Not for choosing a checkpoint: that is ``reuse``.
"""

from __future__ import annotations

import ipaddress
import secrets
import shutil
import time
from pathlib import Path

from deepops_fixtures.cluster import (
    capacity,
    freezer,
    gpus,
    hypervisor,
    networks,
    ssh,
    volumes,
    waking,
)
from deepops_fixtures.cluster.checkpoints import Manifest, Store
from deepops_fixtures.cluster.freezer import Frozen
from deepops_fixtures.cluster.ledger import Ledger, Owner
from deepops_fixtures.cluster.running import RunningCluster, with_parent_groups
from deepops_fixtures.cluster.taking import PATIENCE, instance_folder
from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline


class Unavailable(DeepopsError):
    """A checkpoint cannot be used at this moment, and nothing is wrong with it."""


def obstacle(store: Store, manifest: Manifest) -> str:
    """Return why an instance cannot be brought back now: its name or its subnets are somebody's
    ('' when it can)."""
    users = store.users(manifest)
    if users:
        return f"it is in use by cluster '{users[0].name}' ({users[0].holder})"
    with hypervisor.connect() as connection:
        there = {domain.name() for domain in connection.listAllDomains()}
        there |= {network.name() for network in connection.listAllNetworks()}
    clash = sorted(there & {*manifest.domains, *manifest.networks})
    if clash:
        return f"libvirt has '{clash[0]}', which no ledger names"
    used = hypervisor.subnets_in_use()
    for subnet in manifest.subnets:
        other = next((o for o in used if o.overlaps(ipaddress.IPv4Network(subnet))), None)
        if other:
            return f"its subnet {subnet} is in use on this host ({other})"
    return ""


def restore(
    store: Store,
    manifest: Manifest,
    run_dir: Path,
    journal: Journal,
    *,
    owner: Owner,
    wait: float,
    kept: bool,
    lending: gpus.Lending | None = None,
) -> RunningCluster:
    """Bring the instance of a checkpoint back.

    Raises Unavailable before anything is made; ProvisionError or StepTimeout afterwards, and then
    the instance's ledger names what has to go.
    """
    ledger = _reserve(store, manifest, run_dir, journal, owner, wait, kept)
    if lending:
        ledger = _lend(store, manifest, ledger, lending)
    (run_dir / "instance").write_text(ledger.name)
    count = len(manifest.spec.nodes)
    consoles = _consoles(run_dir, list(manifest.spec.nodes))
    folder = store.book.path(ledger.name)
    shutil.copytree(instance_folder(store, manifest), folder, symlinks=True, dirs_exist_ok=True)
    machines = f"{count} virtual machine{'s' if count > 1 else ''}"
    with journal.step("up", f"restoring {machines} from checkpoint '{manifest.id}'"):
        networks.create(ledger, macs=manifest.macs, leases=manifest.leases)
        _start(manifest, ledger, ledger.volumes, consoles)
    config = _write_ssh_config(store, manifest, ledger)
    with journal.step("up", "setting the clocks"):
        _meet(manifest, ledger, config)
    gpus.look_for(ledger, config, Deadline.after(PATIENCE))
    running = _described(manifest, run_dir, folder)
    state = manifest.stage if manifest.stage != "here" else "up"
    store.book.update(ledger.name, state=state, parts=manifest.parts)
    (folder / "cluster.json").write_text(running.model_dump_json(indent=1))
    return running


def _reserve(
    store: Store,
    manifest: Manifest,
    run_dir: Path,
    journal: Journal,
    owner: Owner,
    wait: float,
    kept: bool,
) -> Ledger:
    """Write the ledger of the coming instance, under the lock that keeps two runs apart."""

    def reserve() -> Ledger:
        why = obstacle(store, manifest) or store.flaw(manifest)
        if why:
            raise Unavailable(f"Checkpoint '{manifest.id}' cannot be used: {why}.")
        token = _token()
        ledger = Ledger(
            name=manifest.instance,
            owner=owner,
            created=time.time(),
            spec=manifest.spec,
            run_dir=run_dir,
            pool=manifest.pool,
            domain_prefix=manifest.domains[0].rsplit("_", 1)[0] + "_",
            domains=manifest.domains,
            networks=manifest.networks,
            volumes=[f"{domain}.{token}.img" for domain in manifest.domains],
            layers=manifest.layers,
            checkpoint=manifest.id,
            subnets=manifest.subnets,
            leases=manifest.leases,
            socket_dir=ssh.socket_dir(manifest.instance),
            accelerator=manifest.running.accelerator,
            kept=kept,
            airgap=manifest.running.airgap,
            before=hypervisor.take_snapshot(),
        )
        store.book.write(ledger)
        store.mark_used(manifest)
        return ledger

    accelerator = manifest.running.accelerator
    return capacity.reserve(manifest.spec, accelerator, store.book, journal, wait, reserve)


def _lend(store: Store, manifest: Manifest, ledger: Ledger, lending: gpus.Lending) -> Ledger:
    """Lease the devices that the guests know; where they are not free nothing was made yet."""
    try:
        return lending.lend_again(ledger, manifest.gpus)
    except DeepopsError as error:
        with store.book.locked():
            store.book.forget(ledger.name)
        raise Unavailable(f"Checkpoint '{manifest.id}' cannot be used: {error.message}") from None


def _start(
    manifest: Manifest, ledger: Ledger, overlays: list[str], consoles: dict[str, Path]
) -> None:
    """Make new thin disks on the frozen ones, and start the guests on them."""
    items = [
        Frozen(node, domain, overlay, manifest.ram.get(node, ""))
        for node, domain, overlay in zip(
            manifest.spec.nodes, ledger.domains, overlays, strict=True
        )
    ]
    with hypervisor.connect() as connection:
        for item in items:
            below = manifest.disks[item.node][-1]
            volumes.create_overlay(connection, ledger.pool, item.overlay, below)
    hypervisor.power_off(ledger.domains)
    freezer.thaw(ledger.pool, items, manifest.xml, consoles, Deadline.after(PATIENCE))


def _meet(manifest: Manifest, ledger: Ledger, config: Path) -> None:
    """Connect to the guests and tell them the time; where no memory was kept they boot first."""
    names = list(manifest.spec.nodes)
    if manifest.kind == "disk":
        ssh.wait_until_answering(
            config, ledger.name, names, Deadline.after(PATIENCE), lambda *_: None, "root"
        )
    waking.wake(config, ledger.name, names, Deadline.after(PATIENCE))


def _token() -> str:
    """Return what tells the disks of this life of an instance from those of its others."""
    return secrets.token_hex(4)


def revert(store: Store, manifest: Manifest, running: RunningCluster, journal: Journal) -> None:
    """Put a running instance back to a checkpoint of its own; names, networks and keys stay.

    Raises ProvisionError or StepTimeout; the guests are in no useful state then.
    """
    name = running.name
    ledger = store.book.get(name)
    config = store.book.path(name) / "ssh_config"
    with journal.step("revert", f"going back to checkpoint '{manifest.id}'"):
        ssh.close_connections(config, list(ledger.spec.nodes))
        token = _token()
        overlays = [f"{domain}.{token}.img" for domain in ledger.domains]
        old = ledger.volumes
        with store.book.locked():
            store.book.update(
                name,
                volumes=[*old, *overlays],
                layers=sorted({*ledger.layers, *manifest.layers}),
            )
        consoles = {node.name: Path(node.console) for node in running.nodes}
        _start(manifest, ledger, overlays, consoles)
        _meet(manifest, ledger, config)
        with hypervisor.connect() as connection:
            volumes.remove(connection, ledger.pool, old)
        with store.book.locked():
            store.book.update(name, volumes=overlays, layers=manifest.layers)


def _consoles(run_dir: Path, nodes: list[str]) -> dict[str, Path]:
    folder = run_dir / "consoles"
    folder.mkdir(parents=True, exist_ok=True)
    found = {node: folder / f"{node}.log" for node in nodes}
    for path in found.values():
        # libvirt opens a file that is there without changing its owner.
        path.touch()
    return found


def _write_ssh_config(store: Store, manifest: Manifest, ledger: Ledger) -> Path:
    folder = store.book.path(ledger.name)
    shutil.rmtree(ledger.socket_dir, ignore_errors=True)
    config = folder / "ssh_config"
    ssh.write_config(
        config,
        ledger.name,
        {lease.node: lease.address for lease in manifest.leases},
        user="vagrant",
        keys=[folder / "id_ed25519"],
        sockets=ledger.socket_dir,
    )
    return config


def _described(manifest: Manifest, run_dir: Path, folder: Path) -> RunningCluster:
    """Return the cluster with this run's files in it, and with all its groups: the run that made
    the checkpoint may have kept some from its tests."""
    nodes = [
        node.model_copy(
            update={
                "console": str(run_dir / "consoles" / f"{node.name}.log"),
                "groups": with_parent_groups(manifest.spec.nodes[node.name].groups),
            }
        )
        for node in manifest.running.nodes
    ]
    return manifest.running.model_copy(
        update={
            "nodes": nodes,
            "ssh_config": folder / "ssh_config",
            "inventory": folder / "inventory.ini",
        }
    )
