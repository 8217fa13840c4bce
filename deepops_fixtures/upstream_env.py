"""DeepOps' own environment variables, and what they choose here.

They mean what they mean there: ``DEEPOPS_VAGRANT_FILE``, ``DEEPOPS_VAGRANT_OS``,
``DEEPOPS_OS_VERSION``, ``DEEPOPS_FULL_INSTALL`` and ``DEEPOPS_LARGE_SLURM`` choose the cluster
(virtual/vagrant_startup.sh of DeepOps), ``DEEPOPS_ENABLE_SLURM`` and ``DEEPOPS_DISABLE_K8S`` the
parts (virtual/cluster_up.sh), ``GPUDATA`` the GPUs (workloads/jenkins/scripts/jenkins-common.sh).
A switch is on when it is not empty, whatever it says. Our own option, variable or ini key of the
same thing counts over them. Nothing is refused here: whoever needs the cluster refuses one that is
not there. Not for our own variables: those are in ``settings``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepops_fixtures import resources

_FILE = "DEEPOPS_VAGRANT_FILE"
_OS, _VERSION = "DEEPOPS_VAGRANT_OS", "DEEPOPS_OS_VERSION"
_FULL, _LARGE = "DEEPOPS_FULL_INSTALL", "DEEPOPS_LARGE_SLURM"
_SLURM, _NO_K8S = "DEEPOPS_ENABLE_SLURM", "DEEPOPS_DISABLE_K8S"
#: GPUs of this host, as DeepOps' CI hands them to a job: '3-0x86' or '3-0x86,2-0x85'.
GPUDATA = "GPUDATA"

#: System → the version that its clusters have where none is named, and whether that is part of
#: their names.
_SYSTEMS = {"ubuntu": ("22.04", True), "centos": ("9", False), "debian": ("12", False)}
_DEFAULT_OS = "ubuntu"  # virtual/vagrant_startup.sh
#: Vagrantfile-centos, and DeepOps' Vagrantfile-ubuntu22.04-full.
_NAME = re.compile(r"Vagrantfile-([a-z]+)-?([0-9.]*)(-full|-large-slurm)?")


@dataclass
class Choices:
    """Settings that DeepOps' variables choose, and in words which variable chose what."""

    values: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def add(self, name: str, value: str, environment: Mapping[str, str], *by: str) -> None:
        """Take a value, and note the variables that chose it."""
        self.values[name] = value
        because = ", ".join(f"{each}={environment[each]}" for each in by if environment.get(each))
        self.told.append(f"{name} '{value}' by {because}")


def choose(
    environment: Mapping[str, str], said: Mapping[str, Any], *, cluster_named: bool
) -> Choices:
    """Return what DeepOps' variables choose of what ``said`` leaves open.

    ``cluster_named`` tells whether a cluster is named in a place that counts as much as the one
    that names the Vagrantfile.
    """
    found = Choices()
    if said.get("inventory"):
        # Of a Vagrantfile of somebody's own it says the groups.
        if said.get("vagrant_file") and cluster_of_file(str(said["vagrant_file"])):
            found.values["vagrant_file"] = None
        return found
    _choose_cluster(found, environment, said, cluster_named or bool(said.get("attach")))
    if not said.get("parts") and (environment.get(_SLURM) or environment.get(_NO_K8S)):
        # DISABLE_K8S alone has DeepOps deploy nothing; here it leaves Slurm.
        slurm = environment.get(_SLURM) or environment.get(_NO_K8S)
        wanted = {"slurm": slurm, "kubernetes": not environment.get(_NO_K8S)}
        parts = ",".join(part for part, on in wanted.items() if on)
        found.add("parts", parts, environment, _SLURM, _NO_K8S)
    if gpudata(environment) and not said.get("gpu"):
        found.told.append(f"GPUs by {GPUDATA}={gpudata(environment)}")
    return found


def gpudata(environment: Mapping[str, str]) -> str:
    """Return the GPUs that DeepOps' CI has locked for this job, '' for none."""
    return environment.get(GPUDATA, "")


def _choose_cluster(
    found: Choices, environment: Mapping[str, str], said: Mapping[str, Any], named: bool
) -> None:
    file = said.get("vagrant_file")
    if named:
        if file:
            found.values["vagrant_file"] = None
            found.told.append(f"Vagrantfile '{file}' is not used: the cluster is named")
        return
    if file:
        cluster = cluster_of_file(str(file))
        if cluster:
            found.values["vagrant_file"] = None
            by = _FILE if environment.get(_FILE) == str(file) else "Vagrantfile"
            found.add("cluster", cluster, {by: str(file)}, by)
    elif any(environment.get(name) for name in (_OS, _VERSION, _FULL, _LARGE)):
        shape = "-full" if environment.get(_FULL) else ""
        shape = shape or ("-large-slurm" if environment.get(_LARGE) else "")
        system = environment.get(_OS) or _DEFAULT_OS
        cluster = _cluster(system, environment.get(_VERSION, ""), shape)
        found.add("cluster", cluster, environment, _OS, _VERSION, _FULL, _LARGE)


def cluster_of_file(text: str) -> str:
    """Return the cluster that one of the project's Vagrantfiles, or one of DeepOps' names for
    them, stands for; '' for a file of somebody's own."""
    path = Path(text).expanduser()
    ours = path.is_file() and path.resolve().parent == resources.vagrant().resolve()
    match = _NAME.fullmatch(path.name)
    if match and (ours or not path.exists()):
        return _cluster(match[1], match[2], match[3] or "")
    return ""


def _cluster(system: str, version: str, shape: str) -> str:
    default, in_name = _SYSTEMS.get(system, ("", True))
    version = version or default
    shown = f"-{version}" if version and (in_name or version != default) else ""
    return f"{system}{shown}{shape}"
