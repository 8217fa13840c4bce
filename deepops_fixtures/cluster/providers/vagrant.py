"""Virtual machines by Vagrant and libvirt."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deepops_fixtures import resources
from deepops_fixtures.cluster import (
    base_image,
    gpus,
    hypervisor,
    instance,
    inventory_file,
    networks,
    public_box,
    recipe,
    ssh,
    teardown,
)
from deepops_fixtures.cluster import (
    box as boxes,
)
from deepops_fixtures.cluster.accelerator import Verdict, choose_accelerator
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, Owner
from deepops_fixtures.cluster.running import NodeData, RunningCluster, with_parent_groups
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.cluster.vagrant_tool import environment, error_sentence, readable
from deepops_fixtures.errors import DeepopsError, ProvisionError
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail
from deepops_fixtures.settings import Settings

#: What Vagrant says of a machine, and what we call it.
_MILESTONES = (
    (re.compile(r"^==> (\S+): Creating domain with"), "defined"),
    (re.compile(r"^==> (\S+): Starting domain"), "started"),
    (re.compile(r"^==> (\S+): Waiting for machine to boot"), "has an address"),
    (re.compile(r"^==> (\S+): Machine booted and ready"), "booted"),
)


class VagrantProvider:
    """A new cluster instance on this host's libvirt."""

    disposable = True

    def __init__(
        self,
        spec: ClusterSpec,
        settings: Settings,
        journal: Journal,
        run_dir: Path,
        *,
        owner: Owner,
        kept: bool = False,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.journal = journal
        self.run_dir = run_dir
        self.owner = owner
        self.kept = kept
        self.book = LedgerBook(settings.state_dir)
        self.ledger: Ledger | None = None
        self.lending = gpus.Lending(
            gpus.requested(settings), spec, self.book, journal, settings.gpu_wait
        )

    # -- before anything is created ---------------------------------------------------------

    def preflight(self) -> None:
        """Refuse a name that is taken. What this host lacks is the doctor's to say. Raises
        UsageProblem."""
        instance.choose_name(self.spec, self.settings.name, self.book)

    def _box(self) -> Box | None:
        return boxes.of_cluster(self.spec.box, self.spec.name, self.settings.cache_dir)

    def inputs(self) -> Inputs:
        """Return everything that decides how these machines look when they are up."""
        asked = self.lending.request.text
        handed = {"asked for": asked, "KVM hidden": str(self.settings.gpu_hide_kvm)}
        return recipe.up_inputs(
            self.spec,
            self._box(),
            self.verdict().kind,
            handed if asked else {},
            airgap=self.settings.airgap,
        )

    def verdict(self) -> Verdict:
        """Return which accelerator the machines will use, and why."""
        return choose_accelerator(self.settings)

    # -- up ---------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Have the box on this host: built by us, or downloaded by Vagrant. What the machines are
        made from is known after it. Raises BoxError, UsageProblem."""
        box = self._box()
        if box:
            box.ensure(self.journal)
            base_image.ensure(box, self.journal)
        else:
            name, cache = self.spec.box, self.settings.cache_dir
            public_box.ensure(name, self.spec.name, cache, self.journal)

    def up(self) -> RunningCluster:
        """Create the machines from the box that ``fetch`` has brought, wait until they answer over
        ssh."""
        box = self._box()
        verdict = self.verdict()
        self.ledger = instance.reserve(
            self.spec,
            self.settings.name,
            self.book,
            self.run_dir,
            self.journal,
            owner=self.owner,
            accelerator=verdict.kind,
            wait=self.settings.wait,
            kept=self.kept,
            airgap=self.settings.airgap,
        )
        folder = self.book.path(self.ledger.name)
        (self.run_dir / "instance").write_text(self.ledger.name)
        self.ledger = self.lending.lend(self.ledger)
        instance.write_data(
            self.ledger,
            folder,
            self.run_dir / "consoles",
            box=box,
            accelerator=verdict.kind,
            boot_timeout=self.settings.boot_timeout,
            hide_kvm=self.settings.gpu_hide_kvm,
        )
        deadline = Deadline.after(self.settings.up_timeout)
        try:
            networks.create(self.ledger)
            self._vagrant_up(deadline)
            running = self._connect(verdict, deadline)
        except DeepopsError as error:
            self.book.update(self.ledger.name, state="failed")
            error.detail = self._with_consoles(error.detail)
            raise
        self.book.update(self.ledger.name, state="up")
        (folder / "cluster.json").write_text(running.model_dump_json(indent=1))
        return running

    def _vagrant_up(self, deadline: Deadline) -> None:
        assert self.ledger is not None
        log = self.run_dir / "logs" / "up.log"
        watcher = _Watcher(log, self._milestone)
        count = len(self.spec.nodes)
        what = f"starting {count} virtual machine{'s' if count > 1 else ''}"
        with self.journal.step("up", what, detail=str(log)):
            status = run_logged(
                ["vagrant", "up", "--provider", "libvirt", "--no-destroy-on-error"],
                log=log,
                deadline=deadline,
                what="'vagrant up'",
                env=environment(self.ledger, self.book),
                on_tick=watcher.look,
                hint="raise --deepops-up-timeout on a slow host; read the consoles",
            )
            watcher.look()
        if status != 0:
            raise ProvisionError(
                f"'vagrant up' ended with status {status}: {error_sentence(log)}",
                detail=tail(log, 20),
                hint=f"read {log} and {self.run_dir / 'consoles'}",
            )

    def _milestone(self, node: str, what: str, seconds: float) -> None:
        self.journal.note("up", what, node=node, seconds=seconds, status="ok")

    def _connect(self, verdict: Verdict, deadline: Deadline) -> RunningCluster:
        assert self.ledger is not None
        folder = self.book.path(self.ledger.name)
        names = list(self.spec.nodes)
        leases = hypervisor.leases(self.ledger)
        self.ledger = self.book.update(self.ledger.name, leases=leases)
        addresses = {lease.node: lease.address for lease in leases}
        lost = [name for name in names if name not in addresses]
        if lost:
            raise ProvisionError(
                f"libvirt knows no address of {', '.join(lost)}.",
                hint=f"virsh -c qemu:///system net-dhcp-leases {self.ledger.networks[1]}",
            )
        config = folder / "ssh_config"
        keys = [folder / "id_ed25519", instance.first_key()]
        ssh.write_config(
            config,
            self.ledger.name,
            addresses,
            user="vagrant",
            keys=keys,
            sockets=self.ledger.socket_dir,
        )
        with self.journal.step("up", "opening ssh connections"):
            ssh.wait_until_answering(
                config,
                self.ledger.name,
                names,
                deadline,
                lambda node, took: self._milestone(node, "answers over ssh", took),
            )
        own = instance.node_addresses(self.ledger)
        with self.journal.step("up", "giving each node its name, address and key"):
            self._identify(config, own, deadline)
        ssh.write_config(
            config,
            self.ledger.name,
            addresses,
            user="vagrant",
            keys=keys[:1],
            sockets=self.ledger.socket_dir,
        )
        ssh.wait_until_answering(
            config, self.ledger.name, names, deadline, lambda *_: None, "root"
        )
        gpus.look_for(self.ledger, config, deadline)
        nodes = [
            NodeData(
                name=name,
                groups=with_parent_groups(list(spec.groups)),
                address=own[name],
                root_login=True,
                console=str(self.run_dir / "consoles" / f"{name}.log"),
                devices=[str(item) for item in self.ledger.gpus.get(name, [])],
            )
            for name, spec in self.spec.nodes.items()
        ]
        inventory = folder / "inventory.ini"
        inventory_file.write(inventory, nodes)
        return RunningCluster(
            name=self.ledger.name,
            provider="vagrant",
            nodes=nodes,
            ssh_config=config,
            inventory=inventory,
            accelerator=verdict.kind,
            accelerator_reason=verdict.reason,
            airgap=self.ledger.airgap,
        )

    def _identify(self, config: Path, own: Mapping[str, str], deadline: Deadline) -> None:
        assert self.ledger is not None
        name = self.ledger.name
        key = (self.book.path(name) / "id_ed25519.pub").read_text().strip()
        prefix = self.ledger.subnets[0].partition("/")[2]
        script = resources.vagrant() / "identity.sh"

        def identify(node: str) -> None:
            arguments = [key, node, own[node], prefix]
            ssh.run_script(config, name, node, script, arguments, deadline.left)

        with ThreadPoolExecutor(max_workers=len(own)) as pool:
            list(pool.map(identify, own))

    def _with_consoles(self, detail: str) -> str:
        """Add the end of the serial console of every machine that has not shown a login prompt."""
        parts = [detail] if detail else []
        for name in self.spec.nodes:
            console = self.run_dir / "consoles" / f"{name}.log"
            text = readable(tail(console, 15))
            if "login:" not in text[-200:]:
                parts.append(f"--- serial console of {name} ({console}) ---")
                parts.append(text or "(empty: the machine never wrote a byte)")
        return "\n".join(parts)

    # -- down -------------------------------------------------------------------------------

    def down(self) -> None:
        """Destroy what the ledger names and audit. Raises LeakError naming what is left."""
        name = self._instance_name()
        if name and self.book.read(name):
            teardown.destroy(name, self.book, self.journal)
        self.lending.close()

    def _instance_name(self) -> str:
        if self.ledger:
            return self.ledger.name
        return self.book.of_run(self.run_dir)

    def evidence(self) -> list[Path]:
        """Return the log of ``vagrant up`` and the consoles."""
        return [
            self.run_dir / "logs" / "up.log",
            *sorted((self.run_dir / "consoles").glob("*.log")),
        ]


class _Watcher:
    """Reads Vagrant's log as it grows and tells of each machine's milestones."""

    def __init__(self, log: Path, tell: Callable[[str, str, float], None]) -> None:
        self._log = log
        self._tell = tell
        self._offset = log.stat().st_size if log.exists() else 0
        self._begin = time.monotonic()

    def look(self) -> None:
        """Tell what has been said since the last look."""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        whole, newline, _rest = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            for pattern, what in _MILESTONES:
                match = pattern.match(line)
                if match:
                    self._tell(match[1], what, round(time.monotonic() - self._begin, 1))
