"""A rehearsal on a host where nothing is real: machines are there at once, playbooks and
checkpoints are noted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from deepops_fixtures import rehearsal
from deepops_fixtures.cluster import restoring, topology
from deepops_fixtures.cluster.running import NodeData, RunningCluster, with_parent_groups
from deepops_fixtures.errors import DeployError
from deepops_fixtures.settings import Settings
from tests.harness.unit.runs import MACHINES

CLUSTER = """\
box: debian12
deployment: [slurm, kubernetes]
nodes:
  virtual-login:
    groups: [slurm-master]
    cpus: 1
    memory: 384
    disk: 8
    address: 11
  virtual-mgmt:
    groups: [slurm-node, kube_control_plane, etcd, kube_node]
    cpus: 1
    memory: 384
    disk: 8
    address: 12
"""


class Machines:
    """A provider whose machines are there at once."""

    disposable = True
    lending = None

    def __init__(self, spec, settings, journal, run_dir, *, owner, kept):
        self.spec = spec
        self.settings = settings
        self.run_dir = run_dir

    def preflight(self):
        pass

    def fetch(self):
        pass

    def inputs(self):
        return MACHINES

    def up(self):
        self.host.order.append("up")
        self.host.ledger("mine", state="up", airgap=self.settings.airgap)
        (self.run_dir / "instance").write_text("mine")
        return self.host.running


class Host:
    """This host, as far as a rehearsal does anything to it: what was applied, kept, restored."""

    def __init__(self, book, make_ledger, keep, folder):
        (folder / "mine.yml").write_text(CLUSTER)
        self.folder, self.book = folder, book
        self.spec = topology.load(str(folder / "mine.yml"))
        self.applied, self.checked, self.restored = [], [], []
        #: What was made on this host and when the machines came up, one after the other.
        self.order = []
        #: What was said to be there before each playbook.
        self.onto = []
        #: The variables that each playbook was given.
        self.given = {}
        #: Playbooks that fail, and that change something again.
        self.fails, self.restless = set(), set()
        self._make_ledger, self._keep, self._taken = make_ledger, keep, 0
        nodes = [
            NodeData(name=name, groups=with_parent_groups(node.groups))
            for name, node in self.spec.nodes.items()
        ]
        self.running = RunningCluster(
            name="mine", provider="vagrant", nodes=nodes, inventory=folder / "inventory.ini"
        )

    def ledger(self, name, **changes):
        self.book.write(self._make_ledger(name, spec=self.spec, **changes))

    def rehearse(self, named=(), *, target="deployed", **settings):
        settings.setdefault("cluster", str(self.folder / "mine.yml"))
        run_dir = self.folder / f"run-{len(list(self.folder.glob('run-*')))}"
        run_dir.mkdir()
        made = rehearsal.Rehearsal(
            Settings.load({"state_dir": self.book.folder.parent, **settings}), run_dir
        )
        made.target = target
        made.chosen.settle(named)
        return made

    def attach(self, *deployed):
        """Put a cluster there to attach to."""
        self.ledger("mine", state="deployed" if deployed else "up", parts=list(deployed))
        (self.book.path("mine") / "cluster.json").write_text(self.running.model_dump_json())

    def parts(self):
        ledger = self.book.get("mine")
        return ledger.state, ledger.parts

    # -- in the place of what needs machines

    def take(self, _store, name, running, stage, inputs, parts):
        self._taken += 1
        return self._keep(
            f"mine-{self._taken}-{'-'.join([stage, *parts])}", f"{self._taken}.img", stage=stage,
            inputs=inputs, instance=name, parts=list(parts), spec=self.spec, running=running,
            disks={node: [f"{self._taken}.img"] for node in self.spec.nodes},
        )  # fmt: skip

    def restore(self, store, manifest, run_dir, _journal, **_more):
        self.restored.append(manifest.id)
        state = {"state": manifest.stage, "parts": manifest.parts}
        self.ledger("mine", **state)
        (run_dir / "instance").write_text("mine")
        return restoring._described(manifest, run_dir, store.book.path("mine"))

    def artifact(self, name, _cache):
        def ensure(_journal):
            self.order.append(name)
            return Path("/made") / name

        return SimpleNamespace(ensure=ensure)

    def deployment(self, _running, source, *_arguments, onto, **_more):
        self.onto.append(list(onto))

        def apply(_seconds):
            if source.part in self.fails:
                raise DeployError("It failed.")
            self.applied.append((source.part, source.extra_vars.get("deepops_parts", [])))
            self.given[source.part] = source.extra_vars

        def check(_seconds):
            if source.part in self.restless:
                raise DeployError("It changed something.")
            self.checked.append(source.part)

        return SimpleNamespace(apply=apply, assert_idempotent=check)

    def gone(self):
        """Let the instance be taken down; its checkpoints stay."""
        self.book.forget("mine")
