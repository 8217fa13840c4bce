"""Where the playbooks come from. One class a source; what a run needs of it is in its few
fields."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepops_fixtures import facts, inputs, resources
from deepops_fixtures.deepops import readying
from deepops_fixtures.deepops.driving import Driving
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.inputs import Inputs
from deepops_fixtures.parts import ordered

#: The sources that are no checkout of DeepOps.
OURS = ("distro", "none")


@dataclass(frozen=True)
class PlaybookSource:
    """A playbook with its folder and the variables it is given."""

    name: str
    playbook: Path
    extra_vars: dict[str, Any] = field(default_factory=dict)
    #: What it puts on a cluster: one of ``facts.PARTS``.
    part: str = "slurm"
    #: How a checkout of DeepOps is driven; None for our own playbooks.
    driving: Driving | None = None

    @property
    def revision(self) -> str:
        """Hash of everything below the playbook's folder, or of the whole checkout: two runs of
        one revision ran the same content."""
        if self.driving:
            return inputs.key({"checkout": self.driving.checkout.inputs()})[:12]
        return inputs.key({"playbooks": inputs.of_tree(self.playbook.parent)})[:12]

    def inputs(self) -> Inputs:
        """Return what decides how a cluster looks after this playbook: every file beside it,
        committed or not, its variables, Ansible, and the code that runs it."""
        package = Path(__file__).resolve().parents[1]
        if self.driving:
            code = [*(package / "deploy").glob("*.py"), *(package / "deepops").glob("*.py")]
            return {
                **self.driving.inputs(),
                "tools": {"ansible-runner": _version("ansible-runner")},
                "harness": inputs.of_files(package, code),
                "machines": inputs.of_files(readying.script().parent, [readying.script()]),
            }
        tools = ("ansible-core", "ansible-runner", "mitogen")
        return {
            "playbooks": inputs.of_tree(self.playbook.parent),
            "variables": inputs.of_data({self.part: self.extra_vars}),
            "source": {self.part: f"{self.playbook.name} of {self.name}"},
            "tools": {name: _version(name) for name in tools},
            "harness": inputs.of_files(package, [*(package / "deploy").glob("*.py")]),
        }


def inputs_of(sources: Iterable[PlaybookSource]) -> Inputs:
    """Return what decides how a cluster looks after these playbooks, one after the other."""
    found: Inputs = {}
    for source in sources:
        for kind, items in source.inputs().items():
            found.setdefault(f"deploy {kind}", {}).update(items)
    return found


def told(sources: Sequence[PlaybookSource]) -> str:
    """Return the playbooks in words, 'a.yml and b.yml (distro)'; '' for none."""
    names = []
    for source in sources:
        named = source.driving.named if source.driving else (Path(source.playbook.name),)
        names += [str(path) for path in named]
    if len(names) > 3:
        names = [f"{len(names)} playbooks from {names[0]}", f"to {names[-1]}"]
        return f"{' '.join(names)} ({sources[0].name})"
    return f"{' and '.join(names)} ({sources[0].name})" if sources else ""


def of_checkout(drivings: Iterable[Driving]) -> tuple[PlaybookSource, ...]:
    """Return the sources that deploy a checkout of DeepOps, part by part."""
    return tuple(
        PlaybookSource(
            name=driving.checkout.told,
            playbook=driving.checkout.tree / driving.named[0],
            part=driving.part,
            driving=driving,
        )
        for driving in drivings
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def find(
    name: str,
    parts: Iterable[str],
    there: Collection[str] = (),
    variables: Mapping[str, Any] | None = None,
) -> tuple[PlaybookSource, ...]:
    """Return the playbooks that deploy these parts, in their order; none when there is nothing to
    deploy.

    Each is told by ``deepops_parts`` what the cluster will carry when it is done: its own part,
    those before it and those that are ``there``. What comes later is kept from it, so that what a
    part leaves is the same whatever is put on top. ``variables`` are a user's own. Raises
    UsageProblem.
    """
    if name == "none":
        return ()
    found = []
    parts = ordered(parts)
    for number, part in enumerate(parts, 1):
        playbook = resources.playbooks() / facts.PARTS[part]
        if name != "distro" or not playbook.is_file():
            raise UsageProblem(
                f"There is no playbook for part '{part}' from source '{name}'.",
                hint="--deepops-source distro, none, or a checkout of DeepOps",
            )
        by_then = list(ordered([*parts[:number], *there]))
        given = {**(variables or {}), "deepops_parts": by_then}
        found.append(PlaybookSource(name=name, playbook=playbook, extra_vars=given, part=part))
    return tuple(found)
