"""The store of checkpoints: which there are, what each was made from, who uses one, what must go.

A checkpoint is the frozen disks and memory of all nodes of an instance after a stage, with what is
needed to bring that very instance back: its names, subnets, keys. The volumes lie in libvirt's
pool; everything else in one folder a checkpoint, whose ``manifest.json`` is written last. What a
checkpoint will own is written down (``volumes.json``) before it is made, as in the ledger. Not for
freezing and thawing: see ``freezer``, ``taking`` and ``restoring``.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from deepops_fixtures import inputs as stage_inputs
from deepops_fixtures.cluster import hypervisor, volumes
from deepops_fixtures.cluster.ledger import (
    HandedThrough,
    Lease,
    Ledger,
    LedgerBook,
    write_whole,
)
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.cluster.topology import ClusterSpec, with_parts
from deepops_fixtures.cluster.volumes import Signature
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.proc import boot_id

#: Raised when manifests or volumes are laid out in another way; older checkpoints are then unfit.
FORMAT = 1
#: 'here' is a run's own, to go back to; later runs start from the others.
Stage = Literal["up", "deployed", "here"]


class Manifest(BaseModel):
    """Everything there is to know of a checkpoint."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    id: str
    stage: Stage
    #: The parts of DeepOps that are in it, in the order in which they are deployed.
    parts: list[str] = []
    kind: Literal["ram", "disk"]
    created: float
    #: Name of the instance that it brings back; one instance of a name lives at a time.
    instance: str
    inputs: Inputs
    spec: ClusterSpec
    pool: str
    domains: list[str]
    networks: list[str]
    subnets: list[str]
    macs: dict[str, str]
    leases: list[Lease]
    #: The box's images under all disks; they belong to nobody.
    bases: list[str]
    #: Node → its frozen volumes, the deepest first, the one to stand on last.
    disks: dict[str, list[str]]
    #: Node → the volume with its memory; empty when kind is 'disk'.
    ram: dict[str, str]
    #: Node → the domain's XML.
    xml: dict[str, str]
    signatures: dict[str, Signature]
    running: RunningCluster
    boot: str
    #: Node → the devices of this host that its guest knows: it comes back with these or never.
    gpus: dict[str, list[HandedThrough]] = {}
    #: Whether all of it was seen written to the disk: only then is it trusted after a reboot.
    durable: bool = False

    @model_validator(mode="before")
    @classmethod
    def _with_parts(cls, data: Any) -> Any:
        return with_parts(data, "stage")

    @property
    def told(self) -> str:
        """The stage with the parts in words, 'deployed: slurm'."""
        return f"{self.stage}: {', '.join(self.parts)}" if self.parts else self.stage

    @property
    def key(self) -> str:
        """The digest of all inputs."""
        return stage_inputs.key(self.inputs)

    @property
    def age(self) -> float:
        """Seconds since it was taken."""
        return time.time() - self.created

    @property
    def layers(self) -> list[str]:
        """The frozen disks."""
        return sorted({name for chain in self.disks.values() for name in chain})

    @property
    def volumes(self) -> set[str]:
        """Every volume it stands on, memory included; layers are shared within an instance."""
        return {*self.layers, *self.ram.values()}


class Store:
    """All checkpoints of this user, under ``state_dir/checkpoints``."""

    def __init__(self, book: LedgerBook) -> None:
        self.book = book
        self.folder = book.folder.parent / "checkpoints"
        self.aside = self.folder.parent / "set-aside"
        #: What was set aside by this process: id, and why.
        self.rejected: list[tuple[str, str]] = []

    def path(self, checkpoint: str) -> Path:
        """Return the folder of a checkpoint."""
        return self.folder / checkpoint

    # -- reading ----------------------------------------------------------------------------

    def all(self) -> list[Manifest]:
        """Return every checkpoint, oldest first; what cannot be read is set aside."""
        found = []
        for path in sorted(self.folder.glob("*/manifest.json")):
            try:
                data = json.loads(path.read_text())
                if data["format"] != FORMAT:
                    self.set_aside(path.parent.name, "another version of deepops-fixtures made it")
                    continue
                manifest = Manifest.model_validate(data)
                if manifest.id != path.parent.name:
                    raise ValueError(f"it is '{manifest.id}', in the folder of another")
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError, OSError) as error:
                self.set_aside(path.parent.name, f"its manifest cannot be read ({_first(error)})")
                continue
            found.append(manifest)
        return sorted(found, key=lambda item: item.created)

    def get(self, checkpoint: str) -> Manifest:
        """Return a checkpoint. Raises UsageProblem when there is none of that name."""
        manifests = {item.id: item for item in self.all()}
        if checkpoint not in manifests:
            raise UsageProblem(
                f"There is no checkpoint '{checkpoint}'; there are: "
                f"{', '.join(manifests) or 'none'}.",
                hint="deepops-virtual checkpoint list",
            )
        return manifests[checkpoint]

    def flaw(self, manifest: Manifest) -> str:
        """Return why a checkpoint cannot be trusted: a volume that is gone, or was written or cut
        since it was taken, or may not have reached the disk before this host stopped ('' when
        nothing speaks against it)."""
        with hypervisor.connect() as connection:
            wanted = sorted({*manifest.volumes, *manifest.bases})
            now = volumes.signatures(connection, manifest.pool, wanted)
        for name in wanted:
            if name not in now:
                return f"volume '{name}' is gone"
            then = manifest.signatures.get(name)
            if then is None:
                return f"volume '{name}' was not seen when it was taken"
            if not now[name].same_content(then):
                return f"volume '{name}' was changed after it had been taken"
        if not manifest.durable and manifest.boot != boot_id():
            return "this host was restarted before all of it was on the disk"
        return ""

    def users(self, manifest: Manifest, ledgers: Iterable[Ledger] | None = None) -> list[Ledger]:
        """Return the instances whose disks stand on this checkpoint's, or that bear its name."""
        ledgers = self.book.all() if ledgers is None else ledgers
        return [
            item
            for item in ledgers
            if item.name == manifest.instance or set(item.layers) & manifest.volumes
        ]

    def last_used(self, manifest: Manifest) -> float:
        """Return when a run last started from it, or when it was taken."""
        with suppress(OSError):
            return (self.path(manifest.id) / "used").stat().st_mtime
        return manifest.created

    def size(self, manifests: Iterable[Manifest]) -> int:
        """Return the bytes that these checkpoints occupy together; shared layers count once."""
        by_pool: dict[str, set[str]] = {}
        for item in manifests:
            by_pool.setdefault(item.pool, set()).update(item.volumes)
        with hypervisor.connect() as connection:
            return sum(
                signature.allocation
                for pool, names in by_pool.items()
                for signature in volumes.signatures(connection, pool, names).values()
            )

    # -- writing ----------------------------------------------------------------------------

    def announce(self, checkpoint: str, pool: str, names: Iterable[str]) -> Path:
        """Write down which volumes a checkpoint is going to own, before there are any."""
        folder = self.path(checkpoint)
        folder.mkdir(parents=True, mode=0o700)
        _announce(folder, pool, names)
        return folder

    def write(self, manifest: Manifest) -> None:
        """Write a manifest; from now on the checkpoint exists.

        It is announced anew with the disks below its own: whoever of those that share them goes
        last takes them along, also when its manifest is gone or not to be read by then.
        """
        folder = self.path(manifest.id)
        _announce(folder, manifest.pool, manifest.volumes)
        write_whole(folder / "manifest.json", manifest.model_dump_json(indent=1))

    def mark_used(self, manifest: Manifest) -> None:
        """Remember that a run starts from it now."""
        with suppress(OSError):
            (self.path(manifest.id) / "used").touch()

    def set_aside(self, checkpoint: str, why: str) -> None:
        """Take a checkpoint that cannot be trusted out of the store, and remember why; ``collect``
        removes its volumes."""
        target = self.aside / f"{checkpoint}-{secrets.token_hex(2)}"
        with suppress(OSError):
            self.aside.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path(checkpoint).rename(target)
            (target / "why").write_text(f"{why}\n")
        self.rejected.append((checkpoint, why))

    def drop(self, manifest: Manifest, *, in_use: bool = False) -> list[str]:
        """Remove a checkpoint: its manifest first, then the volumes that nobody else stands on.

        Raises UsageProblem while an instance uses it, unless told that this is known. Returns what
        could not be removed.
        """
        users = [] if in_use else self.users(manifest)
        if users:
            raise UsageProblem(
                f"Checkpoint '{manifest.id}' is in use by cluster '{users[0].name}' "
                f"({users[0].holder}).",
                hint=f"deepops-virtual destroy {users[0].name}",
            )
        wanted = manifest.volumes | set(_announced(self.path(manifest.id))[1])
        (self.path(manifest.id) / "manifest.json").unlink(missing_ok=True)
        left = self._remove_volumes(manifest.pool, wanted)
        if not left:
            shutil.rmtree(self.path(manifest.id), ignore_errors=True)
        return left

    def bases(self) -> set[str]:
        """Return the box images that checkpoints stand on."""
        return {name for item in self.all() for name in item.bases}

    def needed(self) -> set[str]:
        """Return the volumes that a checkpoint or a ledger still names."""
        kept = {name for item in self.all() for name in item.volumes}
        for ledger in self.book.all():
            kept |= {*ledger.volumes, *ledger.layers}
        return kept

    def forget_private(self, ledger: Ledger) -> None:
        """Drop the checkpoints that only this instance could go back to; their volumes are its
        own from now on."""
        mine = [
            item for item in self.all() if item.stage == "here" and item.instance == ledger.name
        ]
        if not mine:
            return
        names = {name for item in mine for name in item.volumes}
        self.book.update(ledger.name, volumes=sorted({*ledger.volumes, *names}))
        for item in mine:
            shutil.rmtree(self.path(item.id), ignore_errors=True)

    def own_volumes(self, ledger: Ledger) -> list[str]:
        """Return the volumes that go when an instance goes: its disks, and frozen ones under them
        that no checkpoint and no other instance needs."""
        current = self.book.get(ledger.name)
        spare = {name for item in self.all() for name in item.volumes}
        for other in self.book.all():
            if other.name != ledger.name:
                spare |= {*other.volumes, *other.layers}
        return sorted({*current.volumes, *current.layers} - spare)

    def _remove_volumes(self, pool: str, wanted: Iterable[str]) -> list[str]:
        unneeded = set(wanted) - self.needed()
        with hypervisor.connect() as connection:
            return volumes.remove(connection, pool, sorted(unneeded))

    def abandon(self, checkpoint: str) -> None:
        """Forget a take that ended half-way; its volumes were the instance's and went with it."""
        if checkpoint and not (self.path(checkpoint) / "manifest.json").exists():
            shutil.rmtree(self.path(checkpoint), ignore_errors=True)

    # -- keeping house ----------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """Return the folders without a manifest: a take that was killed, or is going on."""
        busy = {ledger.taking for ledger in self.book.all() if ledger.taking}
        return sorted(
            path.name
            for path in self.folder.glob("*")
            if path.is_dir() and not (path / "manifest.json").exists() and path.name not in busy
        )

    def collect(self) -> list[str]:
        """Remove what a killed process or a flaw left: unfinished checkpoints and those set aside.

        Returns their names. Volumes that anybody still stands on stay.
        """
        removed = []
        for folder in [self.path(name) for name in self.unfinished()] + sorted(
            self.aside.glob("*") if self.aside.is_dir() else []
        ):
            pool, names = _announced(folder)
            if not self._remove_volumes(pool, names):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder.name)
        return removed

    def make_room(self, budget: int, keep: str = "") -> list[Manifest]:
        """Drop the checkpoints that were not used for longest until all fit into ``budget`` bytes;
        never one in use, nor ``keep``. Returns the dropped ones."""
        dropped: list[Manifest] = []
        for item in sorted(self.all(), key=self.last_used):
            if self.size(self.all()) <= budget:
                break
            if item.id != keep and not self.users(item):
                self.drop(item)
                dropped.append(item)
        return dropped


def new_id(instance: str, stage: Stage) -> str:
    """Return a name that no checkpoint has: the instance's, the stage, a random part."""
    return f"{instance}-{stage}-{secrets.token_hex(3)}"


def ram_volume(checkpoint: str, node: str) -> str:
    """Return the name of the volume for a node's memory."""
    return f"deepops-checkpoint-{checkpoint}_{node}.ram"


def _announce(folder: Path, pool: str, names: Iterable[str]) -> None:
    write_whole(folder / "volumes.json", json.dumps({"pool": pool, "volumes": sorted(names)}))


def _announced(folder: Path) -> tuple[str, list[str]]:
    """Return the pool and the volumes that a folder says it owns; a half-written file owns
    nothing."""
    try:
        data = json.loads((folder / "volumes.json").read_text())
        return str(data["pool"]), [str(name) for name in data["volumes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return hypervisor.POOL, []


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
