"""The recipes that are there: who needs which, and that the package store is complete."""

import re
from pathlib import Path

import pytest
import yaml

from deepops_fixtures import facts, resources
from deepops_fixtures.deploy import artifacts
from deepops_fixtures.deploy.artifacts import Artifact, needed


@pytest.mark.parametrize(
    ("parts", "airgap", "box", "names"),
    [
        (["slurm"], False, "debian12", []),
        (["kubernetes"], False, "debian12", [artifacts.KUBERNETES, artifacts.IMAGES]),
        (["slurm"], True, "debian12", [artifacts.PACKAGES]),
        (["slurm", "kubernetes"], True, "debian12", list(artifacts.VARIABLES)),
        (["kubernetes"], True, "generic/rocky9", []),
    ],
)
def test_a_deployment_needs_what_its_parts_need(parts, airgap, box, names):
    assert needed(parts, airgap, box) == names
    assert set(names) <= set(artifacts.available())


def stored() -> set[str]:
    return set(Artifact(artifacts.PACKAGES, Path("/nowhere")).recipe.variables["DOWNLOAD"])


def words(value: object) -> set[str]:
    """Every string in lists and mappings' values."""
    if isinstance(value, str):
        return {value}
    children = value.values() if isinstance(value, dict) else value or []
    return set().union(*(words(child) for child in children))


def mappings(value: object):
    """Every mapping in a document, at any depth."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, dict | list):
            yield from mappings(child)


def installed() -> dict[str, set[str]]:
    """What the playbooks install, by file: variables named *packages*, and apt tasks' own names
    and loops."""
    found: dict[str, set[str]] = {}
    files = [
        path
        for path in resources.playbooks().rglob("*.yml")
        if "artifacts" not in path.relative_to(resources.playbooks()).parts
    ]
    for file in files:
        names = found.setdefault(str(file), set())
        for mapping in mappings(yaml.safe_load(file.read_text()) or []):
            for key, value in mapping.items():
                if "packages" in str(key) and isinstance(value, list | dict):
                    names |= words(value)
            task = mapping.get("ansible.builtin.apt") or mapping.get("ansible.builtin.package")
            if isinstance(task, dict) and task.get("state") != "absent":
                names |= words(task.get("name"))
                if "item" in str(task.get("name")):
                    names |= words(mapping.get("loop"))
    return found


def test_the_store_has_every_package_that_the_playbooks_install():
    found = installed()
    assert {"slurmctld", "munge", "chrony"} <= set().union(*found.values())
    for file, names in found.items():
        templates = {name for name in names if "{{" in name}
        # A name made at run time is one of a variable that is read here, or of the loop.
        for name in templates:
            used = set(re.findall(r"\b\w*packages\w*\b|\bitem\b", name))
            assert used, f"{file}: which packages does '{name}' stand for?"
        assert names - templates <= stored(), f"{file}: add them to {artifacts.PACKAGES}"


def test_the_store_has_what_the_box_has_but_its_kernel_and_boot_loader():
    box = yaml.safe_load((resources.vagrant() / "boxes" / "debian12" / "box.yml").read_text())
    assert set(box["packages"]) - stored() == {"linux-image-cloud-amd64", "grub-pc"}


@pytest.mark.parametrize("playbook", facts.PARTS.values())
def test_a_playbook_brings_the_packages_before_it_installs_any(playbook):
    plays = yaml.safe_load((resources.playbooks() / playbook).read_text())
    first = next(play["roles"] for play in plays if play.get("roles"))[0]
    assert first["role"] == "package_store"
    assert first["when"].startswith(artifacts.VARIABLES[artifacts.PACKAGES])
    # Whoever is in a later play was in this one.
    hosts = next(play["hosts"] for play in plays if play.get("roles"))
    assert hosts == next(play["hosts"] for play in plays)
