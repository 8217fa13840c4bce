"""What a run says of itself before the first test: what it works on, and with which accelerator.

Not for what it found: that is ``reporting``.
"""

from __future__ import annotations

import platform

from deepops_fixtures import __version__, resources
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.session import Session


def subject(ours: Session) -> list[str]:
    """Return the lines that every run has, read from the settings alone."""
    told = [f"DeepOps' variables: {text}" for text in ours.settings.chosen_by]
    return [f"deepops-fixtures {__version__}: {_subject(ours)}", *told]


def _subject(ours: Session) -> str:
    settings = ours.settings
    if settings.vagrant_file:
        return (
            f"machines of Vagrantfile '{settings.vagrant_file}' as they are (nothing is created, "
            "deployed or destroyed)"
        )
    if settings.inventory == resources.inventory("local"):
        return f"this host, {platform.node()}, as it is (nothing is created or destroyed)"
    if settings.inventory:
        return f"existing hosts of {settings.inventory} (nothing is created or destroyed)"
    if settings.attach:
        return f"cluster instance '{settings.attach}' (left running)"
    return f"cluster '{settings.cluster}', reuse: {settings.reuse}, keep: {settings.keep}"


def cluster(ours: Session) -> list[str]:
    """Return the lines about a cluster that a test needs: its nodes, what is deployed, the
    accelerator and why. Raises UsageProblem."""
    settings = ours.settings
    change = ours.change.lines() if ours.change else []
    if settings.existing:
        return change
    if settings.attach:
        from deepops_fixtures.applying import history

        there = history(settings, ours.run_dir)
        return [f"on it: {'; then '.join(there)}", *change] if there else change
    from deepops_fixtures.cluster.accelerator import choose_accelerator

    spec = ours.spec
    assert spec is not None
    lines = [f"cluster '{spec.name}': {', '.join(spec.nodes)}; {_deployed(ours)}"]
    drivings = [source.driving for source in ours.sources if source.driving]
    lines += [f"DeepOps: {drivings[0].checkout.provenance}"] if drivings else []
    try:
        lines.append(f"accelerator: {choose_accelerator(settings)}")
    except UsageProblem as error:
        lines.append(f"accelerator: {error.message}")
    if settings.airgap:
        lines.append("airgap: no way out of the machines' networks; all comes from this host")
    return lines + change


def _deployed(ours: Session) -> str:
    from deepops_fixtures.deploy.sources import told

    sources = ours.sources
    if not sources:
        return "nothing deployed"
    # xdist's controller collects no tests; its workers may need less.
    upgrade = ours.rehearsal.chosen.upgrade()
    if upgrade:
        return f"deployed by {told(sources)}, then upgraded by {told(upgrade)}"
    most = len(sources) > 1 and not ours.settings.parts and not ours.rehearsal.chosen.known
    return f"deployed by {told(sources)}{', as far as the tests name them' if most else ''}"
