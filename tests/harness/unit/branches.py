"""A branch of a DeepOps checkout, to change: the small tree, with scripts that playbooks name."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.harness.unit import checkouts

_MORE = {
    "docs/readme.md": "Words.\n",
    "config.example/helm/monitoring.yml": "a: 1\n",
    "config.example/nvidia-mig-config.yml": "a: 1\n",
    "scripts/k8s/install_helm.sh": ". $(dirname $0)/../deepops/paths.sh\n",
    "scripts/deepops/paths.sh": "ROOT=.\n",
    "scripts/k8s/by_hand.sh": "helm install -f config/helm/monitoring.yml\n",
    "playbooks/utilities/helm.yml": "- hosts: all\n  tasks:\n"
    "    - command: bash {{ playbook_dir }}/../../scripts/k8s/install_helm.sh\n"
    "    - template: {src: ../../config/nvidia-mig-config.yml, dest: /etc/mig.yml}\n",
    "playbooks/tools.yml": "- import_playbook: tools/own.yml\n",
    "playbooks/tools/own.yml": "- hosts: all\n  gather_facts: false\n  roles: [own]\n",
    "roles/own/tasks/main.yml": "- debug:\n",
    "roles/own/README.md": "Words.\n",
    "roles/own/templates/own.sh": "true\n",
    "roles/unused/tasks/main.yml": "- debug:\n",
}


class Branch:
    """A working tree on branch 'feature', which left 'main' at its only commit."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder
        shutil.copytree(checkouts.TREE, folder)
        for name, text in _MORE.items():
            self.write(name, text)
        self.git("init", "-q", "-b", "main")
        self.commit()
        self.git("checkout", "-q", "-b", "feature")

    def git(self, *words: str) -> str:
        return checkouts.git(self.tree, *words)

    def write(self, name: str, text: str) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def touch(self, *names: str) -> None:
        """Change files so that they say the same."""
        for name in names:
            self.write(name, (self.tree / name).read_text() + "\n# changed\n")

    def commit(self) -> None:
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "-m", "x")
