"""Taking a checkpoint of a running instance.

The order is what makes it safe to be killed at any moment: the checkpoint's volumes are announced,
the ledger names the new disks, the guests are frozen, the manifest is written, and only then does
the ledger give up the frozen disks. Not for deciding when: that is ``rehearsal``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import humanize

from deepops_fixtures.cluster import freezer, hypervisor, networks, ssh, volumes, waking
from deepops_fixtures.cluster.checkpoints import Manifest, Stage, Store, new_id, ram_volume
from deepops_fixtures.cluster.freezer import Frozen
from deepops_fixtures.cluster.ledger import Ledger
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.errors import DeepopsError, ProvisionError
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.proc import Deadline, boot_id

#: Files of an instance's folder that belong to one life of it and not to the checkpoint.
_OWN = shutil.ignore_patterns("ledger*", "cluster.json", "vagrant-home", ".*")
_MIB = 1024**2
#: Seconds that one freeze or thaw may take: far more than a large guest needs.
PATIENCE = 180.0


@dataclass(frozen=True)
class _Plan:
    """What one checkpoint is made of, chosen before anything is done."""

    id: str
    items: list[Frozen]
    #: Node → the volumes it stands on, the box's image first, the disk to be frozen last.
    chains: dict[str, list[str]]

    @property
    def memories(self) -> list[str]:
        return [item.ram for item in self.items if item.ram]

    @property
    def frozen(self) -> list[str]:
        return [chain[-1] for chain in self.chains.values()]


def take(
    store: Store,
    name: str,
    running: RunningCluster,
    stage: Stage,
    inputs: Inputs,
    parts: Sequence[str] = (),
    *,
    ram: bool = True,
) -> Manifest:
    """Freeze the instance and return the new checkpoint; the guests run on.

    ``parts`` are those of DeepOps that are on it. Without ``ram``, or where a device is handed
    through to a guest, the disks alone are kept, as a power failure would leave them after a
    sync. Raises ProvisionError or StepTimeout; the instance works on in any case, and what is
    left of the attempt is in its ledger.
    """
    ledger = store.book.get(name)
    ram = ram and not freezer.disk_only(ledger.domains)
    _refuse_without_room(ledger, ram)
    plan = _plan(ledger, new_id(name, stage), ram)
    with store.book.locked():
        folder = store.announce(plan.id, ledger.pool, [*plan.frozen, *plan.memories])
        added = [*(item.overlay for item in plan.items), *plan.memories]
        ledger = store.book.update(name, taking=plan.id, volumes=[*ledger.volumes, *added])
    try:
        _settle(store, ledger, sync=not ram)
        xml = freezer.freeze(ledger.pool, plan.items, Deadline.after(PATIENCE))
        shutil.copytree(store.book.path(name), folder / "instance", ignore=_OWN, symlinks=True)
        manifest = _manifest(plan, ledger, running, stage, inputs, list(parts), xml)
        with store.book.locked():
            store.write(manifest)
            _hand_over(store, name, manifest)
    except (DeepopsError, OSError):
        with store.book.locked():
            store.book.update(name, taking="")
            store.abandon(plan.id)
        with suppress(DeepopsError):
            _wake(store, ledger)
        raise
    _wake(store, ledger)
    return manifest


def _wake(store: Store, ledger: Ledger) -> None:
    """The guests stood still for some seconds, each as long as its memory took to write."""
    config = store.book.path(ledger.name) / "ssh_config"
    waking.wake(config, ledger.name, list(ledger.spec.nodes), Deadline.after(PATIENCE))


def _plan(ledger: Ledger, checkpoint: str, ram: bool) -> _Plan:
    token = checkpoint.rsplit("-", 1)[1]
    nodes = list(ledger.spec.nodes)
    items = [
        Frozen(
            node=node,
            domain=domain,
            overlay=f"{domain}.{token}.img",
            ram=ram_volume(checkpoint, node) if ram else "",
        )
        for node, domain in zip(nodes, ledger.domains, strict=True)
    ]
    disks = freezer.active_disks(ledger.domains)
    with hypervisor.connect() as connection:
        chains = {
            node: [*volumes.backing_chain(connection, ledger.pool, disk), disk]
            for node, disk in zip(nodes, disks, strict=True)
        }
    return _Plan(checkpoint, items, chains)


def _manifest(
    plan: _Plan,
    ledger: Ledger,
    running: RunningCluster,
    stage: Stage,
    inputs: Inputs,
    parts: list[str],
    xml: dict[str, str],
) -> Manifest:
    # The deepest volume is the box's image, which nobody writes to and every cluster shares.
    bases = {chain[0] for chain in plan.chains.values() if len(chain) > 1}
    whole = {*plan.memories, *(name for chain in plan.chains.values() for name in chain)}
    with hypervisor.connect() as connection:
        signatures = volumes.signatures(connection, ledger.pool, whole)
    return Manifest(
        id=plan.id,
        stage=stage,
        parts=parts,
        kind="ram" if plan.memories else "disk",
        created=time.time(),
        instance=ledger.name,
        inputs=inputs,
        spec=ledger.spec,
        pool=ledger.pool,
        domains=ledger.domains,
        networks=ledger.networks,
        subnets=ledger.subnets,
        macs=networks.macs(ledger),
        leases=ledger.leases,
        bases=sorted(bases),
        disks={
            node: [name for name in chain if name not in bases]
            for node, chain in plan.chains.items()
        },
        ram={item.node: item.ram for item in plan.items if item.ram},
        xml=xml,
        signatures=signatures,
        running=running,
        boot=boot_id(),
        gpus=ledger.gpus,
    )


def _hand_over(store: Store, name: str, manifest: Manifest) -> None:
    """Let the frozen volumes be the checkpoint's; the instance stands on them from now on."""
    ledger = store.book.get(name)
    store.book.update(
        name,
        taking="",
        volumes=[volume for volume in ledger.volumes if volume not in manifest.volumes],
        layers=manifest.layers,
    )


def _settle(store: Store, ledger: Ledger, *, sync: bool) -> None:
    """Close the connections: one that nobody will answer any more must not be in the guests'
    memory. Where the disks alone are kept, what is in the guests' caches has to be on them."""
    config = store.book.path(ledger.name) / "ssh_config"
    nodes = list(ledger.spec.nodes)
    if sync:
        ssh.on_all(config, ledger.name, nodes, "sync", Deadline.after(60))
    ssh.close_connections(config, nodes)
    # The guests see the end of the connections and close the sessions.
    time.sleep(0.5)


def _refuse_without_room(ledger: Ledger, ram: bool) -> None:
    """Raise ProvisionError where the pool has no room for the guests' memory and some growth."""
    wanted = (ledger.spec.memory if ram else 0) * _MIB + 1024 * _MIB
    _folder, free = hypervisor.pool_space(ledger.pool)
    if free < wanted:
        raise ProvisionError(
            f"A checkpoint may need {humanize.naturalsize(wanted, binary=True)} on disk; "
            f"{humanize.naturalsize(free, binary=True)} are free.",
            hint="deepops-virtual checkpoint gc, or lower --deepops-checkpoint-budget",
        )


def instance_folder(store: Store, manifest: Manifest) -> Path:
    """Return the kept copy of the instance's folder: keys, inventory, Vagrant's data."""
    return store.path(manifest.id) / "instance"
