"""What a run was made of: versions, commits, box, accelerator, host. A report without it proves
nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import humanize
import libvirt
import psutil

from deepops_fixtures import __version__, resources
from deepops_fixtures.cluster.running import RunningCluster
from deepops_fixtures.deploy.sources import PlaybookSource, told

_PACKAGES = (
    "pytest",
    "pytest-testinfra",
    "pytest-xdist",
    "pytest-html",
    "ansible-core",
    "ansible-runner",
    "mitogen",
)


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_of(folder: Path) -> str:
    """Return the git commit of a folder, with '+ n changed files' when it has some; '' outside
    git."""
    commit = _said(["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"])
    if not commit:
        return ""
    branch = _said(["git", "-C", str(folder), "rev-parse", "--abbrev-ref", "HEAD"])
    changed = len(_said(["git", "-C", str(folder), "status", "--porcelain"]).splitlines())
    dirty = f" + {changed} changed file{'s' if changed > 1 else ''}" if changed else ""
    return f"{commit} ({branch}){dirty}"


def _hypervisor() -> str:
    """Return the versions of libvirt and QEMU, '' when libvirt does not answer."""
    try:
        connection = libvirt.openReadOnly("qemu:///system")
    except libvirt.libvirtError:
        return ""
    try:
        words = []
        for name, number in (
            ("libvirt", connection.getLibVersion()),
            ("QEMU", connection.getVersion()),
        ):
            words.append(f"{name} {number // 1000000}.{number // 1000 % 1000}.{number % 1000}")
        return ", ".join(words)
    finally:
        connection.close()


def _host() -> str:
    cores = os.cpu_count() or 0
    memory = humanize.naturalsize(psutil.virtual_memory().total, binary=True)
    release = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return f"{release}, Linux {platform.release()}, {cores} CPUs, {memory}"


def collect(
    running: RunningCluster | None,
    sources: Sequence[PlaybookSource],
    applied: Sequence[str],
    box: str,
    instance: str,
    origin: str,
    cluster_versions: dict[str, str],
) -> dict[str, str]:
    """Return the facts in reading order; what is not known is left out."""
    facts = {
        "harness": f"deepops-fixtures {__version__} {commit_of(resources.root())}".strip(),
        "deployed": "; then ".join(applied)
        or (f"{told(sources)}, not to its end" if sources else "nothing"),
        "DeepOps": _checkout(sources),
        "instance": instance,
        "cluster": origin,
        "box": box,
        "accelerator": f"{running.accelerator}: {running.accelerator_reason}"
        if running and running.accelerator
        else "",
        "airgap": "the machines' networks had no way out" if running and running.airgap else "",
        "devices handed through": _devices(running),
        "hypervisor": _hypervisor() if running and running.provider == "vagrant" else "",
        "Vagrant": _said(["vagrant", "--version"]).removeprefix("Vagrant ")
        if running and running.provider == "vagrant"
        else "",
        **cluster_versions,
        "Python": platform.python_version(),
        "packages": ", ".join(
            f"{name} {metadata.version(name)}" for name in _PACKAGES if _has(name)
        ),
        "host": _host(),
    }
    return {key: value for key, value in facts.items() if value}


def _checkout(sources: Sequence[PlaybookSource]) -> str:
    """Return the checkout, and for each part the Ansible and what it was applied with."""
    drivings = [source.driving for source in sources if source.driving]
    words = [drivings[0].checkout.provenance] if drivings else []
    return "; ".join([*words, *(driving.told for driving in drivings)])


def _devices(running: RunningCluster | None) -> str:
    nodes = [node for node in running.nodes if node.devices] if running else []
    return "; ".join(f"{node.name}: {', '.join(node.devices)}" for node in nodes)


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
