"""Clusters as data: the files in ``vagrant/clusters``, validated before anything starts.

An error names the file, the line and the field. Not for running clusters: see ``instance``.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
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


#: Part → groups that need a member for it, and whether that is exactly one.
_NEEDED: dict[str, dict[str, bool]] = {
    "slurm": {"slurm-master": True, "slurm-node": False},
    "kubernetes": {"kube_control_plane": False, "etcd": False, "kube_node": False},
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
            for group, one in _NEEDED[part].items():
                count = sum(group in node.groups for node in value.values())
                if one and count != 1:
                    raise ValueError(
                        f"deployment '{part}' needs one node in group {group}, not {count}"
                    )
                if not count:
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


def available() -> list[str]:
    """Return the names of the clusters that come with the project."""
    return sorted(path.stem for path in (resources.vagrant() / "clusters").glob("*.yml"))


def find(name_or_path: str) -> Path:
    """Return the file of a cluster given by name or by path."""
    if "/" in name_or_path or name_or_path.endswith((".yml", ".yaml")):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise UsageProblem(f"File '{path}' not found.", hint="deepops-virtual clusters")
        return path
    path = resources.vagrant() / "clusters" / f"{name_or_path}.yml"
    if not path.is_file():
        raise UsageProblem(
            f"There is no cluster named '{name_or_path}'.",
            hint=f"choose one of {', '.join(available())}, or give the path of a cluster file",
        )
    return path


def load(name_or_path: str) -> ClusterSpec:
    """Read and validate a cluster file. Raises UsageProblem naming file, line and field."""
    path = find(name_or_path)
    try:
        text = path.read_text()
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"File '{path}' cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageProblem(
            f"{where}: not YAML: {getattr(error, 'problem', error)}.", hint=f"mend '{path}'"
        ) from None
    if not isinstance(data, dict):
        raise UsageProblem(
            f"{path}:1: a cluster file is a mapping with 'box' and 'nodes'.",
            hint="see vagrant/clusters/debian.yml",
        )
    data.setdefault("name", path.stem)
    try:
        return ClusterSpec(**data)
    except ValidationError as error:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = [_located(path, root, problem) for problem in error.errors()]
        raise UsageProblem("\n".join(lines), hint=f"mend '{path}'; nothing was created") from None
    except TypeError as error:
        raise UsageProblem(f"{path}:1: {error}", hint=f"mend '{path}'") from None


def _located(path: Path, root: Any, problem: Any) -> str:
    """Return 'file:line: field: message' for one of pydantic's errors."""
    location = [str(part) for part in problem["loc"]]
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}:{_line(root, location)}: {'.'.join(location) or 'cluster'}: {message}"


def _line(node: Any, location: list[str]) -> int:
    line: int = node.start_mark.line + 1 if node is not None else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and part.isdigit():
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line
