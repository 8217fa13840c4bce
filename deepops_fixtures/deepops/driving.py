"""How one run drives a checkout: which playbooks in which order, with which variables, tags and
limit; and what has to be there before.

Everything that can be refused is refused when it is made, before anything is created. Not for
running Ansible: that is ``deploy.runner``.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deepops_fixtures import facts, inputs
from deepops_fixtures.deepops import config, finding, galaxy, toolchain, variables
from deepops_fixtures.deepops.checkout import Checkout
from deepops_fixtures.deepops.playbooks import Import, Play, Playbooks, RoleUse
from deepops_fixtures.deepops.scope import Conditions, Scope, pieces_of
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.journal import Journal

#: Part → the playbook that deploys it, and the hosts that DeepOps' virtual scripts limit it to.
PLAYBOOKS = {
    "slurm": (Path("playbooks/slurm-cluster.yml"), "slurm-cluster"),
    "kubernetes": (Path("playbooks/k8s-cluster.yml"), ""),
}
#: Part → what virtual/scripts/setup_*.sh run after it, with which tags.
_AFTERWARDS = {"slurm": (Path("playbooks/slurm-cluster/slurm.yml"), "undrain")}
_KUBESPRAY = "submodules/kubespray"


@dataclass(frozen=True)
class Wish:
    """What the user said of the playbooks; empty for the whole part as DeepOps deploys it."""

    playbooks: tuple[str, ...] = ()
    tags: str = ""
    limit: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One call of ansible-playbook."""

    #: Below the checkout.
    playbook: Path
    tags: str
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class Driving:
    """One part of DeepOps, as a checkout deploys it in this run."""

    checkout: Checkout
    part: str
    wish: Wish
    #: Folder of what is kept from run to run: mirrors, trees, environments, Galaxy's content.
    cache: Path
    #: The playbooks of the wish that belong to this part.
    chosen: tuple[Path, ...] = ()

    @cached_property
    def playbooks(self) -> Playbooks:
        """The checkout's playbooks."""
        return Playbooks(self.checkout.tree)

    @property
    def named(self) -> tuple[Path, ...]:
        """The playbooks that are run: those that were chosen, else the part's own."""
        return self.chosen or (PLAYBOOKS[self.part][0],)

    @property
    def limit(self) -> str:
        """Ansible's limit: the user's, else that of DeepOps' virtual scripts."""
        return self.wish.limit or PLAYBOOKS[self.part][1]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The calls of ansible-playbook, in order. Raises UsageProblem."""
        found = [Step(path, self.wish.tags, self._variables(path)) for path in self.named]
        after = _AFTERWARDS.get(self.part)
        if after and not self.chosen and not self.wish.tags and self.checkout.has(after[0]):
            found.append(Step(*after, self._variables(self.named[0])))
        return tuple(found)

    def _variables(self, playbook: Path) -> variables.Variables:
        tree = self.checkout.tree
        outer = [path for path, _ in PLAYBOOKS.values()]
        given = variables.hosts_of(playbook, self.playbooks, outer)
        plays = self.playbooks.plays(playbook)
        hosts = [*(play.hosts for play in plays), *map(str, given.values())]
        kept = variables.lost(self.playbooks.imports(playbook), hosts, self.settings)
        return {**kept, **given, **variables.virtual(tree, self.part), **self.wish.variables}

    @cached_property
    def settings(self) -> variables.Variables:
        """The variables of the checkout's example configuration."""
        return variables.configured(self.checkout.tree)

    @property
    def told(self) -> str:
        """How the part is deployed, in words."""
        words = [self.part]
        # Where Kubespray cannot be had nobody knows which Ansible it wants.
        with suppress(UsageProblem):
            words = [f"{self.part} with {self.tools.told}"]
        if self.limit:
            words.append(f"limit {self.limit}")
        if self.wish.tags:
            words.append(f"tags {self.wish.tags}")
        if self.wish.variables:
            words.append(f"variables given: {', '.join(sorted(self.wish.variables))}")
        return ", ".join(words)

    @cached_property
    def whole(self) -> Checkout:
        """The checkout, with Kubespray in it where a playbook brings that; fetched once it is
        asked for. Raises UsageProblem where it cannot be had."""
        if not self.needs_kubespray:
            return self.checkout
        return finding.with_submodule(self.checkout, _KUBESPRAY, self.cache)

    def refuse_what_is_wrong(self, *, fetch: bool = False) -> None:
        """Refuse what can be seen to be wrong, with ``fetch`` also a submodule that cannot be had.
        Raises UsageProblem."""
        for path in self.named:
            playbook(self.playbooks, str(path))
        _known = self.steps
        if fetch or not self.needs_kubespray:
            _known_too = self.galaxy

    # -- what it needs, and what it deploys --------------------------------------------------

    @cached_property
    def plays(self) -> list[Play]:
        """The plays of all playbooks, in order."""
        return [play for path in self.named for play in self.playbooks.plays(path)]

    @cached_property
    def scope(self) -> Scope:
        """What is on the cluster afterwards, as far as the playbooks tell. Raises UsageProblem."""
        known = {**self.settings, **self.steps[0].variables}
        tags = frozenset(filter(None, self.wish.tags.split(",")))
        pieces = pieces_of(self.playbooks, self.plays, Conditions(known), tags)
        # Kubespray's plays are not there to be read before it is fetched.
        if any(not tags or tags & each.tags for each in self._kubespray_imports):
            pieces |= {"kubernetes"}
        return Scope(pieces)

    @property
    def needs_kubespray(self) -> bool:
        """Whether a playbook imports what Kubespray brings."""
        return bool(self._kubespray_imports)

    @property
    def _kubespray_imports(self) -> list[Import]:
        imports = [each for path in self.named for each in self.playbooks.imports(path)]
        return [each for each in imports if _KUBESPRAY in each.text]

    def _needed_roles(self) -> list[RoleUse]:
        """Return the uses of roles that Ansible cannot do without: those that it loads before
        anything runs, whatever the conditions say, and those whose conditions may hold."""
        known = Conditions({**self.settings, **self.steps[0].variables})
        found = []
        for play in self.plays:
            for use in self.playbooks.roles_of_play(play):
                loaded_first = use.via != "include_role"
                if loaded_first or known.may_hold((*play.when, *use.when)):
                    found.append(use)
        return found

    @cached_property
    def tools(self) -> toolchain.Toolchain:
        """The Ansible that deploys it. Raises UsageProblem."""
        packages = toolchain.requirements(self.whole, self.part)
        return toolchain.Toolchain(packages, self.cache / "env")

    @cached_property
    def galaxy(self) -> galaxy.Galaxy:
        """What the checkout wants of Ansible Galaxy. Raises UsageProblem."""
        return galaxy.Galaxy(self.checkout, self.tools, self.cache)

    def prepare(self, journal: Journal) -> None:
        """Have everything there that the playbooks need of this host: Ansible, Galaxy's content.

        Raises ArtifactError and UsageProblem.
        """
        self.tools.ensure(journal)
        uses = self._needed_roles()
        files = [file for path in self.named for file in self.playbooks.files_of(path)]
        needed = galaxy.needed(uses, files, self.galaxy.wanted)
        missing = self.galaxy.ensure(needed, journal)
        root = self.checkout.tree
        galaxy.refuse_without(missing, needed, uses, root, self.galaxy.why())
        told = [f"not here and not needed: {galaxy.told(missing)}"] if not missing.empty else []
        for path in self.named:
            told += variables.dropped(self.playbooks.imports(path), root)
        # It is prepared before the machines start, and again by whoever applies it.
        known = {event.what for event in journal.events()}
        for sentence in dict.fromkeys(told):
            if sentence not in known:
                journal.note("prepare", sentence, status="ok")

    def copy(self, folder: Path, inventory: Path) -> Path:
        """Make this run's copy of the checkout, configured, unless it is there; return its
        inventory."""
        if not folder.is_dir():
            new = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            self.whole.copy(new)
            self.galaxy.link_into(new)
            new.rename(folder)
        return config.write(folder, inventory)

    def inputs(self) -> Inputs:
        """Return what decides how a cluster looks after it."""
        steps = {
            f"{number}": {"playbook": str(step.playbook), "tags": step.tags, **step.variables}
            for number, step in enumerate(self.steps, 1)
        }
        return {
            "playbooks": self.whole.inputs(),
            "variables": inputs.of_data({self.part: steps}),
            "source": {
                self.part: "a checkout of DeepOps",
                f"{self.part} limit": self.limit,
                f"{self.part} ansible": self.tools.packages[0],
                f"{self.part} packages": inputs.key({"packages": inputs.of_data(
                    {name: name for name in self.tools.packages})}),
            },
        }  # fmt: skip


# -- making them --------------------------------------------------------------------------


def drivings(
    checkout: Checkout, wish: Wish, parts: Sequence[str], carried: Collection[str], cache: Path
) -> tuple[Driving, ...]:
    """Return how the parts of a run are deployed, in their order.

    With playbooks chosen it is those. Raises UsageProblem.
    """
    if not parts:
        return ()
    base = Driving(checkout, parts[0], wish, cache)
    by_part: dict[str, tuple[Path, ...]] = {}
    for word in wish.playbooks:
        path = playbook(base.playbooks, word)
        part = _part_of(replace(base, chosen=(path,)), parts)
        if part not in carried:
            raise UsageProblem(
                f"--deepops-playbook: '{word}' deploys {part}, which the cluster does not carry.",
                hint="choose another cluster: deepops-virtual clusters",
            )
        by_part[part] = (*by_part.get(part, ()), path)
    found = [
        replace(base, part=part, chosen=by_part.get(part, ()))
        for part in dict.fromkeys([*parts, *by_part])
        if not wish.playbooks or part in by_part
    ]
    for each in found:
        each.refuse_what_is_wrong()
    return tuple(found)


def _part_of(driving: Driving, parts: Sequence[str]) -> str:
    """Return the part that a playbook belongs to: Kubernetes where it brings Kubespray, or is for
    Kubernetes' groups alone; else the first that the run is about."""
    words = {word for play in driving.plays for word in re.findall(r"[\w-]+", play.hosts)}
    groups = {part: words & set(found) for part, found in facts.PART_GROUPS.items()}
    if driving.needs_kubespray or (groups["kubernetes"] and not groups["slurm"]):
        return "kubernetes"
    return parts[0]


def playbook(playbooks: Playbooks, word: str) -> Path:
    """Return a playbook's path below the checkout. Raises UsageProblem naming near ones."""
    path = Path(word)
    if path.is_absolute() and playbooks.root in path.parents:
        path = path.relative_to(playbooks.root)
    if not path.is_absolute() and ".." not in path.parts:
        for candidate in (path, Path("playbooks") / path):
            if (playbooks.root / candidate).is_file():
                playbooks.plays(candidate)
                return candidate
    known = [str(each.relative_to(playbooks.root)) for each in playbooks.all()]
    near = [each for each in known if Path(each).stem == path.stem]
    near += difflib.get_close_matches(word, known, 4, 0.6)
    like = f"; near it: {', '.join(dict.fromkeys(near))}" if near else ""
    raise UsageProblem(
        f"--deepops-playbook: there is no playbook '{word}' in the checkout{like}.",
        hint=f"ls {playbooks.root}/playbooks/*",
    )
