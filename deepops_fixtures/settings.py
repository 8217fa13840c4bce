"""Every setting once: its option, DEEPOPS_* variable, ini key, default and help text come from
this table.

``--deepops-NAME`` of pytest, ``DEEPOPS_NAME`` in the environment, ``deepops_NAME`` in pytest's ini
file; the first that is given counts, in that order. Not for the description of a cluster: that is
a data file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from deepops_fixtures import resources, upstream_env
from deepops_fixtures.errors import UsageProblem

_APP = "deepops-fixtures"
#: Names are those of networks and machines too.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
Keep = Literal["never", "failed", "always"]
Reuse = Literal["auto", "never", "require"]
AcceleratorChoice = Literal["auto", "kvm", "tcg"]


class Settings(BaseModel):
    """What a user may set. Durations are seconds, paths are expanded and absolute."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    cluster: str = Field(
        "debian",
        min_length=1,
        description="cluster to rehearse on: a name (deepops-virtual clusters) or a file's path",
    )
    vagrant_file: Path | None = Field(
        None,
        description="Vagrantfile to take the machines from: one of the project's stands for a "
        "cluster (./Vagrantfile-centos for centos); one of your own has to be up, and is checked "
        "as it is. A cluster that is named counts over it",
    )
    box: str = Field(
        "",
        description="Vagrant box of every node, instead of the one that the cluster's file names: "
        "a recipe of the project, or a box that Vagrant has or downloads, such as almalinux/9",
    )
    inventory: Path | None = Field(
        None,
        description="Ansible inventory of existing hosts to check instead of virtual machines, or "
        "'local' for this host itself; nothing is brought up or destroyed, destructive checks are "
        "skipped",
    )
    attach: str = Field(
        "",
        description="name of a cluster made by 'deepops-virtual up' to check; it is left running",
    )
    name: str = Field(
        "",
        description="name of the new cluster instance [default: the cluster's and a random part]",
    )
    source: str = Field(
        "",
        description="what is deployed: 'distro' (our playbooks, the distribution's own packages), "
        "'none' (the hosts are checked as they are), or a checkout of DeepOps: its PATH "
        "(uncommitted changes included), URL@REF, or a REF of --deepops-repository [default: "
        "what the cluster's file says, else distro]",
    )
    repository: str = Field(
        "",
        description="repository of DeepOps, URL or path, that a REF of --deepops-source is looked "
        "for in [default: the checkout that the current folder is in, else "
        "https://github.com/NVIDIA/deepops]",
    )
    playbook: tuple[str, ...] = Field(
        (),
        description="playbook of the checkout to apply instead of a part's own, such as "
        "playbooks/generic/hosts.yml; may be given several times, they run in this order; checks "
        "of what they do not deploy are skipped",
    )
    tags: str = Field("", description="tags of the checkout's tasks to apply alone (a,b)")
    limit: str = Field(
        "",
        description="hosts or groups to apply the checkout's playbooks to, as for "
        "ansible-playbook [default: slurm-cluster for Slurm, all for Kubernetes]",
    )
    extra_vars: tuple[str, ...] = Field(
        (),
        description="variables for the playbooks: FILE.yml, name=value or a JSON "
        "object; may be given several times, the last counts",
    )
    parts: str = Field(
        "",
        description="parts of DeepOps to deploy, of those that the cluster carries: slurm, "
        "kubernetes, or slurm,kubernetes [default: those that the tests name, else all of them]",
    )
    airgap: bool = Field(
        False,
        description="give the virtual machines' network no way out: what is deployed comes from "
        "this host alone, and a check proves that no node reaches beyond it",
    )
    idempotence: bool = Field(
        False,
        description="deploy twice and fail, naming the tasks, when the second run changes any",
    )
    changed_since: str = Field(
        "",
        description="run the checks first that belong to what a checkout (--deepops-source PATH) "
        "has changed since it left this ref; deepops-virtual impact REF says what that is",
    )
    changed_only: bool = Field(
        False, description="with --deepops-changed-since: run only the checks that belong"
    )
    upgrade_from: str = Field(
        "",
        description="rehearse an upgrade: deploy this ref of the source's repository and check "
        "it, apply the source on top and check again",
    )
    keep: Keep = Field(
        "never", description="keep the virtual machines afterwards: never, failed or always"
    )
    reuse: Reuse = Field(
        "auto",
        description="start from a checkpoint of an earlier run: auto (when everything the cluster "
        "was made from is the same; else from the nearest earlier stage), never (neither use nor "
        "keep one), require (refuse to run without one)",
    )
    checkpoint_budget: int = Field(
        20, ge=0, description="GiB that checkpoints may take; those not used for longest give way"
    )
    wait: int = Field(
        3600, ge=0, description="seconds to wait for other runs on this host to make room"
    )
    accelerator: AcceleratorChoice = Field(
        "auto",
        description="kvm, tcg (emulation), or auto: KVM when a guest really starts under it",
    )
    gpu: str = Field(
        "",
        description="GPUs of this host to hand through to the GPU nodes: auto (one each), a "
        "number in all, addresses (0000:08:00.0,0000:0a:00.0), vendor:device (one each; any "
        "device may be named so), 2x10de:1db1, or none. Where nothing is said, GPUDATA of "
        "DeepOps' CI counts",
    )
    gpu_hide_kvm: bool = Field(
        False,
        description="hide from the GPU nodes that they are virtual machines, for drivers that "
        "refuse to work in one",
    )
    simulated_gpus: bool = Field(
        False,
        description="write GPUs that are not there into the status of Kubernetes' nodes while a "
        "check of GPU scheduling runs; such checks are called SIMULATED",
    )
    gpu_wait: int = Field(
        600, ge=0, description="seconds to wait for a GPU that another cluster holds"
    )
    up_timeout: int = Field(
        900, ge=30, description="seconds until every virtual machine has to answer"
    )
    boot_timeout: int = Field(
        420, ge=10, description="seconds until one virtual machine has to answer over ssh"
    )
    deploy_timeout: int = Field(
        2400, ge=30, description="seconds one run of the playbooks may take"
    )
    reports: Path = Field(
        Path("reports"), description="folder of the reports, one folder a run beneath it"
    )
    cache_dir: Path = Field(
        Path(platformdirs.user_cache_dir(_APP)), description="folder of built boxes"
    )
    state_dir: Path = Field(
        Path(platformdirs.user_state_dir(_APP)), description="folder of the clusters' ledgers"
    )

    #: In words, what DeepOps' own variables chose.
    _chosen_by: tuple[str, ...] = PrivateAttr(())

    @field_validator("vagrant_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @field_validator("inventory", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        named = str(value) == "local" and not Path("local").exists()
        return resources.inventory("local") if named else value

    @field_validator("reports", "cache_dir", "state_dir", "inventory", "vagrant_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @field_validator("reports", "cache_dir", "state_dir")
    @classmethod
    def _a_folder(cls, value: Path) -> Path:
        # What this user may not look at is told when it is used.
        with suppress(OSError):
            there = next(path for path in (value, *value.parents) if path.exists())
            if not there.is_dir():
                raise ValueError(f"'{there}' is there and is no folder")
        return value

    @field_validator("name")
    @classmethod
    def _short(cls, value: str) -> str:
        if value and not _NAME.fullmatch(value):
            raise ValueError("a name is 2 to 32 of a-z, 0-9 and '-', a letter first, no '-' last")
        return value

    @field_validator("playbook", "extra_vars", mode="before")
    @classmethod
    def _one_a_line(cls, value: Any) -> Any:
        # A variable of the environment, or an ini key, has one on each line.
        if isinstance(value, str):
            return tuple(line.strip() for line in value.splitlines() if line.strip())
        return value

    @property
    def chosen_by(self) -> tuple[str, ...]:
        """In words, which of DeepOps' own variables chose what (see ``upstream_env``)."""
        return self._chosen_by

    @property
    def existing(self) -> Path | None:
        """What describes hosts that are there already and are left as they are."""
        return self.inventory or self.vagrant_file

    @property
    def checkpoint_bytes(self) -> int:
        """The checkpoints' budget in bytes."""
        return self.checkpoint_budget * 1024**3

    @property
    def chosen_parts(self) -> tuple[str, ...]:
        """The parts that were asked for by name, none where that is left to the tests."""
        return tuple(part.strip() for part in self.parts.split(",") if part.strip())

    @classmethod
    def load(
        cls, options: Mapping[str, Any] | None = None, ini: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the settings from options (None = not given), environment and ini values.

        Raises UsageProblem that names the setting in all three spellings.
        """
        environment = {
            name: os.environ[variable(name)]
            for name in cls.model_fields
            if variable(name) in os.environ
        }
        given = {key: value for key, value in (options or {}).items() if value is not None}
        # From what counts least to what counts most.
        places = [dict(ini or {}), environment, given]
        said = {key: value for place in places for key, value in place.items()}
        chosen = upstream_env.choose(os.environ, said, cluster_named=_cluster_named(places))
        try:
            settings = cls(**{**said, **chosen.values})
            settings._chosen_by = tuple(chosen.told)
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                name = str(problem["loc"][0])
                value = problem.get("input")
                lines.append(
                    f"{option(name)} ({variable(name)}): '{value}' is refused: "
                    f"{problem['msg'].removeprefix('Value error, ')}."
                )
            raise UsageProblem(
                "\n".join(lines), hint="pytest --help   (section DeepOps Virtual)"
            ) from None
        if settings.inventory and settings.attach:
            raise UsageProblem(
                "--deepops-inventory and --deepops-attach exclude each other.",
                hint="give one of them",
            )
        if settings.airgap and settings.existing:
            raise UsageProblem(
                "--deepops-airgap is for virtual machines that a run makes; the network of the "
                "hosts in --deepops-inventory is left as it is.",
                hint="leave out one of them (the variable is DEEPOPS_AIRGAP)",
            )
        return settings


def _cluster_named(places: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a cluster is named in a place that counts as much as that of the
    Vagrantfile, or more."""
    for place in reversed(places):
        if place.get("cluster"):
            return True
        if place.get("vagrant_file"):
            return False
    return False


def several(name: str) -> bool:
    """Return whether a setting may be given several times."""
    return isinstance(Settings.model_fields[name].default, tuple)


def option(name: str) -> str:
    """Return the command line option of a setting."""
    return f"--deepops-{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"DEEPOPS_{name.upper()}"


def ini_key(name: str) -> str:
    """Return the key of a setting in pytest's ini file."""
    return f"deepops_{name}"
