"""Clusters as data: the files in ``vagrant/clusters``, validated before anything starts.

An error names the file, the line and the field. Not for running clusters: see ``instance``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from deepops_fixtures import facts, resources
from deepops_fixtures.cluster.cluster_file import ClusterFile
from deepops_fixtures.cluster.cluster_file import available as available
from deepops_fixtures.cluster.cluster_file import find as find
from deepops_fixtures.errors import UsageProblem

_HOST_NAME = re.compile(r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")
Accelerator = Literal["auto", "kvm", "tcg"]


def _known_group(value: str) -> str:
    if value not in facts.GROUPS:
        raise ValueError(f"'{value}' is not a DeepOps group; known: {', '.join(facts.GROUPS)}")
    return value


def _known_part(value: str) -> str:
    if value not in facts.PARTS:
        raise ValueError(f"'{value}' is not a part of DeepOps; known: {', '.join(facts.PARTS)}")
    return value


#: Part → groups that need a member for it.
_NEEDED: dict[str, tuple[str, ...]] = {
    "slurm": ("slurm-master", "slurm-node"),
    "kubernetes": ("kube_control_plane", "etcd", "kube_node"),
}


class NodeSpec(BaseModel):
    """One virtual machine: its DeepOps groups and its size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: list[Annotated[str, AfterValidator(_known_group)]] = Field(default_factory=list)
    cpus: int = Field(ge=1, le=256, description="virtual CPUs")
    memory: int = Field(ge=256, le=4 * 1024 * 1024, description="MiB of RAM")
    disk: int = Field(ge=4, le=4096, description="GiB of disk, thinly allocated")
    address: int = Field(ge=2, le=254, description="host part of the node's address in the subnet")


class ClusterSpec(BaseModel):
    """A cluster file: the box, the parts to deploy, the nodes and what they are in DeepOps'
    terms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    description: str = ""
    box: str = Field(
        min_length=1, description="a recipe of vagrant/boxes, or a Vagrant box's name"
    )
    vagrantfile: str = Field(
        default="Vagrantfile-debian",
        min_length=1,
        description="a Vagrantfile of vagrant/, or one's path, that reads the instance's data",
    )
    deployment: list[Annotated[str, AfterValidator(_known_part)]] = Field(
        default=["slurm"], description="the parts it carries, in the order of their deployment"
    )
    source: str = Field(
        default="",
        description="what is deployed, as for --deepops-source, which counts more: distro, none, "
        "or a checkout of DeepOps (a path is relative to where the run starts)",
    )
    subnet: str = Field(
        default="auto", description="'auto', or a private IPv4 /24 such as 10.86.7.0/24"
    )
    nodes: dict[str, NodeSpec] = Field(min_length=1)

    @field_validator("deployment", mode="before")
    @classmethod
    def _one_or_none(cls, value: Any) -> Any:
        # One part may stand there by itself; 'none' is no part.
        if isinstance(value, str):
            return [] if value == "none" else [value]
        return value

    @field_validator("deployment")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        return [part for part in facts.PARTS if part in value]

    @field_validator("subnet")
    @classmethod
    def _private_24(cls, value: str) -> str:
        if value == "auto":
            return value
        network = ipaddress.IPv4Network(value)
        if network.prefixlen != 24 or not network.is_private:
            raise ValueError("a private IPv4 network with 24 bits is needed")
        return value

    @field_validator("nodes")
    @classmethod
    def _host_names(cls, value: dict[str, NodeSpec]) -> dict[str, NodeSpec]:
        for name in value:
            if not _HOST_NAME.match(name):
                raise ValueError(f"'{name}' is not a host name")
        return value

    @field_validator("nodes")
    @classmethod
    def _enough_for_each_part(
        cls, value: dict[str, NodeSpec], info: ValidationInfo
    ) -> dict[str, NodeSpec]:
        # Where the parts are refused themselves there is no 'deployment' here.
        for part in info.data.get("deployment", []):
            for group in _NEEDED[part]:
                if not any(group in node.groups for node in value.values()):
                    raise ValueError(
                        f"deployment '{part}' needs at least one node in group {group}"
                    )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSpec:
        taken: dict[int, str] = {}
        for name, node in self.nodes.items():
            if node.address in taken:
                raise ValueError(
                    f"'{name}' has the address of '{taken[node.address]}': {node.address}"
                )
            taken[node.address] = name
        return self

    def members(self, group: str) -> list[str]:
        """Return the names of the nodes in this group, in the file's order."""
        return [name for name, node in self.nodes.items() if group in node.groups]

    @property
    def gpu_nodes(self) -> list[str]:
        """The names of the nodes that GPUs are handed through to, in the file's order."""
        return [name for name in self.nodes if facts.is_gpu_node(name)]

    @property
    def memory(self) -> int:
        """MiB of RAM that all nodes take together."""
        return sum(node.memory for node in self.nodes.values())

    @property
    def disk(self) -> int:
        """GiB of disk that all nodes may grow to together."""
        return sum(node.disk for node in self.nodes.values())


def with_parts(data: Any, state: str) -> Any:
    """Return what a ledger or a manifest holds with its parts: one from when a cluster had one
    deployment names none, and had that one where its ``state`` is 'deployed'."""
    if not isinstance(data, dict) or "parts" in data or data.get(state) != "deployed":
        return data
    spec = data.get("spec", {})
    known = spec if isinstance(spec, ClusterSpec) else ClusterSpec.model_validate(spec)
    return {**data, "parts": list(known.deployment)}


def load(name_or_path: str, box: str = "") -> ClusterSpec:
    """Read and validate a cluster file; its nodes get another ``box`` where one is given. Raises
    UsageProblem naming file, line and field."""
    file = ClusterFile(name_or_path)
    try:
        spec = ClusterSpec(**{**file.data, **({"box": box} if box else {})})
    except ValidationError as error:
        lines = [_located(file, problem) for problem in error.errors()]
        hint = f"mend '{file.path}'; nothing was created"
        raise UsageProblem("\n".join(lines), hint=hint) from None
    except TypeError as error:
        raise UsageProblem(f"{file.path}:1: {error}", hint=f"mend '{file.path}'") from None
    if not (resources.vagrant() / spec.vagrantfile).is_file():
        raise UsageProblem(
            f"{file.where(['vagrantfile'])}: vagrantfile: '{spec.vagrantfile}' not found.",
            hint=f"mend '{file.path}': a Vagrantfile of {resources.vagrant()}, or ./NAME for one "
            "beside the cluster's file",
        )
    return spec


def _located(file: ClusterFile, problem: Any) -> str:
    """Return 'file:line: field: message' for one of pydantic's errors."""
    location = [str(part) for part in problem["loc"]]
    message = problem["msg"].removeprefix("Value error, ")
    return f"{file.where(location)}: {'.'.join(location) or 'cluster'}: {message}"
