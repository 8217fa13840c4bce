"""What a node is in DeepOps' terms, read from its name.

For machines that no cluster file and no inventory describes. Not for clusters of the project:
their files name the groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from deepops_fixtures import facts

#: What a node of DeepOps' virtual clusters is, by a word of its name (virtual/virtual_inventory,
#: virtual_inventory_large_slurm): 'virtual-login', 'virtual-mgmt01', 'virtual-gpu01-3'.
_NAME_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "login": ("slurm-master", "slurm-nfs"),
    "mgmt": ("kube_control_plane", "etcd", "kube_node"),
    "gpu": ("slurm-node", "kube_node"),
    "wm": ("slurm-master",),
    "cache": ("slurm-cache",),
    "metric": ("slurm-metric",),
    "nfs": ("slurm-nfs",),
}


def groups_by_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Return node → groups by the nodes' names; none for a name that says nothing.

    Where workload managers have nodes of their own, login nodes are that alone, and there is no
    Kubernetes.
    """
    words = {name: set(re.findall(r"[a-z]+", name)) & set(_NAME_GROUPS) for name in names}
    large = any("wm" in found for found in words.values())
    groups = {}
    for name, found in words.items():
        mine = [group for word in sorted(found) for group in _NAME_GROUPS[word]]
        if large and "login" in found:
            mine = ["slurm-login"]
        kube = facts.PART_GROUPS["kubernetes"] if large else ()
        groups[name] = [group for group in mine if group not in kube]
    return groups
