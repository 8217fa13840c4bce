"""What a run is about, read from its settings: the cluster, its parts, the playbooks, the run's
folder.

A run that asks for no cluster goes no further than this, so nothing heavy is imported here. Not
for bringing anything about: that is ``rehearsal``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deepops_fixtures import facts, upgrade
from deepops_fixtures import parts as choice
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.settings import Settings, option

if TYPE_CHECKING:
    from deepops_fixtures.cluster.topology import ClusterSpec
    from deepops_fixtures.deepops.checkout import Checkout
    from deepops_fixtures.deepops.driving import Driving
    from deepops_fixtures.deepops.scope import Scope
    from deepops_fixtures.deploy.sources import PlaybookSource

#: Part → groups of which our own playbooks take one node (playbooks/*.yml assert it).
_ONE_OF_THESE = {
    "slurm": ("slurm-master",),
    "kubernetes": ("kube_control_plane", "etcd"),
}


def cluster(settings: Settings) -> ClusterSpec | None:
    """Return the cluster to rehearse on, or None for existing hosts. Raises UsageProblem."""
    if settings.existing:
        return None
    if settings.attach:
        from deepops_fixtures.cluster.ledger import LedgerBook

        return LedgerBook(settings.state_dir).get(settings.attach).spec
    from deepops_fixtures.cluster import topology

    try:
        return topology.load(settings.cluster, settings.box)
    except UsageProblem as problem:
        told = [text for text in settings.chosen_by if text.startswith("cluster ")]
        message = " ".join([problem.message, *(f"(It is {text}.)" for text in told)])
        raise UsageProblem(message, hint=problem.hint, detail=problem.detail) from None


def deployed(settings: Settings) -> choice.Parts:
    """Return the parts that are on the cluster that the run is attached to."""
    if not settings.attach:
        return ()
    from deepops_fixtures.cluster.ledger import LedgerBook

    return choice.ordered(LedgerBook(settings.state_dir).get(settings.attach).parts)


def pieces_there(settings: Settings) -> dict[str, list[str]]:
    """Return part → pieces of those parts that are not as a whole on the cluster that the run is
    attached to."""
    if not settings.attach:
        return {}
    from deepops_fixtures.cluster.ledger import LedgerBook

    return LedgerBook(settings.state_dir).get(settings.attach).pieces


def parts_of(
    settings: Settings, spec: ClusterSpec | None, named: Collection[str] = ()
) -> choice.Parts:
    """Return the parts that the run is about, given those that its tests name; none for existing
    hosts, which are checked as they are. Raises UsageProblem."""
    if spec is None:
        return ()
    return choice.of_run(
        spec.name,
        spec.deployment,
        asked=settings.chosen_parts,
        deployed=deployed(settings),
        named=named,
    )


class Chosen:
    """The parts of DeepOps that one run is about, and what follows: playbooks, groups to hide.

    Its processes settle them when they know the tests; one that knows none (the controller of
    xdist) reads in the run's folder what the others knew. Until then it is all that the cluster
    carries.
    """

    def __init__(self, settings: Settings, spec: ClusterSpec | None, run_dir: Path) -> None:
        self._settings = settings
        self._spec = spec
        self._file = run_dir / "parts.json"
        self._settled: choice.Parts | None = None
        self._checkout: Checkout | None = None
        self._found: dict[choice.Parts, tuple[PlaybookSource, ...]] = {}

    @property
    def source(self) -> str:
        """Where the playbooks come from: the option's word, else the cluster file's; in a run that
        upgrades, the ref that comes first. Raises UsageProblem."""
        ref = self._settings.upgrade_from
        if ref:
            upgrade.refuse_source(self._own, ref)
        return ref or self._own

    @property
    def _own(self) -> str:
        return self._settings.source or (self._spec and self._spec.source) or "distro"

    def settle(self, named: Collection[str]) -> None:
        """Learn which parts the tests name. Raises UsageProblem."""
        self._settled = parts_of(self._settings, self._spec, named)

    def take_all(self) -> None:
        """Take what was asked for, else all that the cluster carries, whatever is on it by now.
        Raises UsageProblem."""
        if self._spec is not None:
            asked = self._settings.chosen_parts
            self._settled = choice.of_run(self._spec.name, self._spec.deployment, asked=asked)

    def tell(self) -> None:
        """Let the processes that know no tests know the parts."""
        self._file.write_text(json.dumps(self.parts))

    @property
    def known(self) -> bool:
        """Whether the tests had their say."""
        return self._settled is not None or self._file.exists()

    @property
    def parts(self) -> choice.Parts:
        """The parts, in the order of their deployment; none for existing hosts. Raises
        UsageProblem."""
        if self._settled is not None:
            return self._settled
        with suppress(OSError, ValueError):
            return tuple(json.loads(self._file.read_text()))
        return parts_of(self._settings, self._spec)

    @property
    def hidden_groups(self) -> frozenset[str]:
        """Groups whose nodes the tests do not get to see as such: nothing of theirs is deployed in
        this run."""
        if self._spec is None or self.source == "none":
            return frozenset()
        return choice.hidden_groups(self.parts, self._spec.deployment)

    def sources(self) -> tuple[PlaybookSource, ...]:
        """Return the playbooks of the parts in the order of their deployment, none when the hosts
        are checked as they are. Raises UsageProblem."""
        return self._find(self.parts)

    def refuse_unfit(self) -> None:
        """Refuse a cluster that the project's own playbooks make nothing of, before it is
        created. Raises UsageProblem."""
        if self._spec is None or self.source != "distro":
            return
        hint = "choose another cluster (deepops-virtual clusters), or --deepops-source"
        name = self._spec.name
        for part in self.parts:
            if self._spec.vagrantfile == "Vagrantfile-centos":
                raise UsageProblem(
                    f"Our own playbook for part '{part}' installs packages of Debian, which "
                    f"cluster '{name}' does not run.",
                    hint=hint,
                )
            for group in _ONE_OF_THESE.get(part, ()):
                count = len(self._spec.members(group))
                if count != 1:
                    raise UsageProblem(
                        f"Our own playbook for part '{part}' wants one node in group {group}; "
                        f"cluster '{name}' has {count}.",
                        hint=hint,
                    )

    def upgrade(self) -> tuple[PlaybookSource, ...]:
        """Return the playbooks that are applied on top in a run that upgrades, none in another.
        Raises UsageProblem."""
        return self._then.sources() if self._then else ()

    @functools.cached_property
    def _next(self) -> Chosen:
        last = self._settings.model_copy(update={"upgrade_from": "", "source": self._own})
        return Chosen(last, self._spec, self._file.parent)

    @property
    def _then(self) -> Chosen | None:
        """The same parts by the run's own source, where another ref of it comes first."""
        if not self._settings.upgrade_from or self._spec is None:
            return None
        self._next._settled = self.parts
        return self._next

    def sources_of(self, some: choice.Parts) -> list[PlaybookSource]:
        """Return the playbooks of some parts. Raises UsageProblem."""
        # Each is told of those before it: all of the run's have to be looked for.
        found = self._find(choice.ordered([*self.parts, *some]))
        return [source for source in found if source.part in some]

    def _find(self, some: choice.Parts) -> tuple[PlaybookSource, ...]:
        if self._spec is None:
            # Existing hosts are never changed: DeepOps was applied to them by somebody else.
            return ()
        from deepops_fixtures.deploy import sources

        if self.source in sources.OURS:
            from deepops_fixtures.deepops import variables

            self._refuse_wishes()
            given = variables.from_user(self._settings.extra_vars)
            return sources.find(self.source, some, deployed(self._settings), given)
        if some not in self._found:
            self._found[some] = sources.of_checkout(self._drivings(some))
        return self._found[some]

    def refuse_what_cannot_be_had(self) -> None:
        """Refuse a checkout whose submodules cannot be had, for the parts that the tests name:
        what nobody asks for may be absent. Raises UsageProblem."""
        for source in (*self.sources(), *self.upgrade()) if self.known else ():
            if source.driving:
                source.driving.refuse_what_is_wrong(fetch=True)

    def _refuse_wishes(self) -> None:
        """Refuse what only a checkout can be asked for. Raises UsageProblem."""
        for name in ("playbook", "tags", "limit"):
            if getattr(self._settings, name):
                raise UsageProblem(
                    f"{option(name)} is for a checkout of DeepOps, and the source of this run is "
                    f"'{self.source}'.",
                    hint="--deepops-source PATH of a checkout",
                )

    def _drivings(self, some: choice.Parts) -> tuple[Driving, ...]:
        """Return how a checkout deploys some parts. Raises UsageProblem."""
        from deepops_fixtures.deepops import config, driving, finding, variables

        assert self._spec is not None
        settings, spec = self._settings, self._spec
        wish = driving.Wish(
            playbooks=settings.playbook,
            tags=settings.tags,
            limit=settings.limit,
            variables=variables.from_user(settings.extra_vars),
        )
        cache = settings.cache_dir / "deepops"
        if self._checkout is None:
            repository = settings.repository
            if settings.upgrade_from:
                repository = upgrade.repository_of(self._own) or repository
            self._checkout = finding.find(self.source, cache=cache, repository=repository)
        if wish.limit:
            config.refuse_limit(wish.limit, self._checkout.tree, spec.nodes, facts.GROUPS)
        return driving.drivings(self._checkout, wish, some, spec.deployment, cache)

    @property
    def scope_then(self) -> Scope:
        """What is on the cluster after an upgrade. Raises UsageProblem."""
        return self.scope.joined(self._then.scope) if self._then else self.scope

    @property
    def scope(self) -> Scope:
        """What of DeepOps is on the cluster once this run has deployed, as far as that is known;
        existing hosts may have all of it. Raises UsageProblem."""
        from deepops_fixtures.deepops.scope import Scope

        if self._spec is None or self.source == "none":
            return Scope()
        there = pieces_there(self._settings)
        found = [
            Scope(frozenset(there[part])) if part in there else Scope()
            for part in deployed(self._settings)
            if part in self.parts
        ]
        applied = [source for source in self.sources() if source.part not in there]
        if self._settings.attach:
            gone = deployed(self._settings)
            applied = [source for source in applied if source.part not in gone]
        found += [source.driving.scope if source.driving else Scope() for source in applied]
        return functools.reduce(Scope.joined, found) if found else Scope()


def new_run_dir(settings: Settings, label: str = "") -> Path:
    """Return the path of this run's folder below the reports folder; nothing is made yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = label or (settings.existing.stem if settings.existing else Path(settings.cluster).stem)
    # A name that is a slip (a whole file pasted) is told by whoever looks for it.
    base = settings.reports / f"{stamp}-{(settings.attach or name)[:64]}"
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path
