"""The variables of a run: what the checkout's own virtual scripts pass, what would be lost on the
way, and what the user says, which counts most.

All of them go with ``-e``. Values may be Jinja templates: Ansible fills them in on the nodes. Not
for the files of the configuration: that is ``config``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deepops_fixtures import yaml_refusal
from deepops_fixtures.deepops.playbooks import Import, Playbooks
from deepops_fixtures.errors import UsageProblem

Variables = dict[str, Any]
#: Part → the file of variables that DeepOps' virtual/scripts/setup_*.sh pass for it.
VIRTUAL = {
    "slurm": Path("virtual/vars_files/virt_slurm.yml"),
    "kubernetes": Path("virtual/vars_files/virt_k8s.yml"),
}
#: The same where a checkout has no such file (NVIDIA/deepops at 3957a42, virtual/vars_files).
_VIRTUAL_DEFAULTS: dict[str, Variables] = {
    "slurm": {
        "hosts_network_interface": "eth1",
        "slurm_allow_ssh_user": ["vagrant", "root"],
        "hpcsdk_clean_up_tarball_after_extract": True,
        "hpcsdk_clean_up_temp_dir": True,
        "slurm_build_dir_cleanup": False,
        "rsyslog_client_tcp_host": "{{ groups['slurm-master'][0] }}",
    },
    "kubernetes": {
        "container_registry_persistence_enabled": False,
        "rsyslog_client_tcp_host": "{{ groups['kube_control_plane'][0] }}",
    },
}
#: The interface of the cluster's own network on our guests, as in DeepOps' virtual clusters.
_INTERFACE = {"hosts_network_interface": "eth1"}
_FILE = re.compile(r"\.(ya?ml|json)$")
_WORD = re.compile(r"\b[a-z_][a-z0-9_]*\b")


def virtual(tree: Path, part: str) -> Variables:
    """Return what DeepOps' own virtual scripts pass for a part. Raises UsageProblem."""
    file = tree / VIRTUAL[part]
    found = from_file(file) if file.is_file() else _VIRTUAL_DEFAULTS[part]
    return {**_INTERFACE, **found}


def configured(tree: Path) -> Variables:
    """Return the variables of config.example/group_vars, 'all' and those of the two kinds of
    cluster; where several files set one, that of Slurm counts. Raises UsageProblem."""
    found: Variables = {}
    for name in ("all", "k8s_cluster", "slurm-cluster"):
        file = tree / "config.example" / "group_vars" / f"{name}.yml"
        # What is encrypted there is Ansible's to read, and decides nothing here.
        found |= from_file(file, loader=_Tolerant) if file.is_file() else {}
    return found


def lost(
    imports: Sequence[Import], hosts: Sequence[str], settings: Mapping[str, Any]
) -> Variables:
    """Return the settings of the configuration that decide which hosts a play is for.

    A group's variables are not known yet when Ansible works out the hosts of a play, so that
    ``nfs_server_group`` in group_vars/slurm-cluster.yml has no effect by itself.
    """
    patterns = [*hosts, *(value for each in imports for _, value in each.given)]
    templates = " ".join(text for text in patterns if "{{" in text)
    # 'default(…)' and the like are words too, and no settings.
    return {name: settings[name] for name in _WORD.findall(templates) if name in settings}


def hosts_of(playbook: Path, tree: Playbooks, cluster_playbooks: Sequence[Path]) -> Variables:
    """Return the variables that the cluster's own playbook gives a playbook where it imports it:
    ``hostlist`` above all, without which a play of it is for all hosts.

    Also those behind the name on an ``import_playbook`` line, which ansible-core drops.
    """
    file = tree.root / playbook
    for outer in cluster_playbooks:
        if not (tree.root / outer).is_file() or tree.root / outer == file:
            continue
        for each in tree.imports(outer):
            if each.target == file and (each.given or each.dropped):
                return {**dict(each.given), **dict(each.dropped)}
    return {}


def dropped(imports: Sequence[Import], root: Path) -> list[str]:
    """Return a sentence for every import whose variables ansible-core drops."""
    return [
        f"{each.file.relative_to(root)}:{each.line}: ansible-core drops "
        f"'{' '.join('='.join(pair) for pair in each.dropped)}' behind import_playbook, so that "
        f"{each.text} is for all hosts"
        for each in imports
        if each.dropped
    ]


# -- what the user says -------------------------------------------------------------------


def from_user(words: Sequence[str]) -> Variables:
    """Return what ``--deepops-extra-vars`` says, given several times: '@FILE' of YAML or JSON
    (the '@' may be left out: pytest takes a word that begins with one for a file of its own
    options), a JSON object, or 'name=value' as for ansible-playbook; the last counts.

    Raises UsageProblem that names the option, or file and line.
    """
    found: Variables = {}
    for word in words:
        found |= _said(word)
    return found


def _said(word: str) -> Variables:
    text = word.strip()
    if text.startswith("@") or (_FILE.search(text) and "=" not in text):
        return from_file(Path(text.removeprefix("@")).expanduser(), "--deepops-extra-vars: ")
    if text.startswith("{"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UsageProblem(
                f"--deepops-extra-vars: '{text}' is no JSON: {error}.",
                hint="""--deepops-extra-vars '{"name": "value"}'""",
            ) from None
        assert isinstance(data, dict)
        return data
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name.strip()):
        raise UsageProblem(
            f"--deepops-extra-vars: '{word}' is neither name=value, nor JSON, nor a file.",
            hint="--deepops-extra-vars name=value   (or FILE.yml, or a JSON object)",
        )
    return {name.strip(): value.strip().strip("'\"")}


class _Strict(yaml.SafeLoader):
    """YAML where a tag of Ansible's (``!vault``) is refused with its line."""


class _Tolerant(yaml.SafeLoader):
    """YAML where what has such a tag counts as unknown."""


def _tagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if suffix == "unsafe" and isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(loader, _Tolerant):
        return None
    raise yaml.constructor.ConstructorError(
        None, None, f"'!{suffix}' is not understood here", node.start_mark
    )


for _each in (_Strict, _Tolerant):
    _each.add_multi_constructor("!", _tagged)


def from_file(
    file: Path, whose: str = "", *, loader: type[yaml.SafeLoader] = _Strict
) -> Variables:
    """Return the variables of a YAML or JSON file. Raises UsageProblem naming file and line."""
    with yaml_refusal.refusing(file, whose):
        data = yaml.load(file.read_text(), Loader=loader)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageProblem(
            f"{whose}{file}:1: a file of variables is a mapping, not a {type(data).__name__}.",
            hint=f"write 'name: value' lines into '{file}'",
        )
    return {str(name): value for name, value in data.items()}
