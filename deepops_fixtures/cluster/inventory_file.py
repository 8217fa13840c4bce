"""The Ansible inventory of a cluster that we made: DeepOps' groups, one host variable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from deepops_fixtures.cluster.running import NodeData

_INVENTORY = jinja2.Template(
    """\
# Groups as in DeepOps' config.example/inventory. Addresses for ssh are in the ssh_config beside
# this file; deepops_address is the node's address in the cluster's own network.
[all]
{%- for node in nodes %}
{{ node.name }} deepops_address={{ node.address }}
{%- endfor %}

[all:vars]
ansible_python_interpreter=/usr/bin/python3
{% for group in groups %}
[{{ group }}]
{%- for node in nodes if group in node.groups %}
{{ node.name }}
{%- endfor %}
{% endfor %}""",
    keep_trailing_newline=True,
)


def write(path: Path, nodes: Sequence[NodeData]) -> None:
    """Write the inventory; parent groups (slurm-cluster) are written out member by member."""
    groups = sorted({group for node in nodes for group in node.groups})
    path.write_text(_INVENTORY.render(nodes=nodes, groups=groups))
