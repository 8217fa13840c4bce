"""The Ansible that a checkout asks for, in a virtual environment of its own, made once.

Slurm and everything generic take the version that ``scripts/setup.sh`` pins. Kubernetes takes what
its Kubespray asks for: Kubespray asserts a range of ansible-core that DeepOps' pin is not in. An
environment is in the cache under a key of its packages and of Python; it counts once it is
complete. Not for our own Ansible, nor for roles of Galaxy: see ``galaxy``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from deepops_fixtures.deepops.checkout import Checkout
from deepops_fixtures.errors import ArtifactError, StepTimeout, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail

#: Raised when the way an environment is made changes, so that older ones are made anew.
_BUILDER_VERSION = 1
_SECONDS = 1800.0
_SETUP = Path("scripts/setup.sh")
_KUBESPRAY = Path("submodules/kubespray/requirements.txt")
#: For Kubernetes, where Kubespray's own requirements cannot be read: v2.31 asserts
#: 2.18 <= ansible-core < 2.19, which is ansible 11 (kubespray, playbooks/ansible_version.yml).
KUBESPRAY_ANSIBLE = "11.13.0"
#: What setup.sh installs beside Ansible, without what only its developers use (ansible-lint) and
#: what only an SELinux host needs.
_BESIDE = ("netaddr", "ruamel.yaml", "PyMySQL", "passlib", "paramiko")
#: Packages that setup.sh pins by a variable: variable → package.
_PINNED = {"JINJA2": "Jinja2", "JMESPATH": "jmespath", "MARKUPSAFE": "MarkupSafe"}
_PIN = re.compile(r'^(\w+)_VERSION="?(?:\$\{\w+:-)?([\w.]+)', re.MULTILINE)


def requirements(checkout: Checkout, part: str) -> tuple[str, ...]:
    """Return the packages that a part of DeepOps is deployed with, as pip reads them.

    Raises UsageProblem where the checkout does not say which Ansible it wants.
    """
    if part == "kubernetes":
        asked = _lines(_kubespray(checkout))
        return asked or (f"ansible=={KUBESPRAY_ANSIBLE}", "jmespath", "netaddr")
    setup = checkout.tree / _SETUP
    text = setup.read_text(errors="replace") if setup.is_file() else ""
    pins = dict(_PIN.findall(text))
    if "ANSIBLE" not in pins:
        raise UsageProblem(
            f"{checkout.told} does not say which Ansible it wants: there is no ANSIBLE_VERSION in "
            f"'{_SETUP}'.",
            hint=f"grep -n ANSIBLE_VERSION {setup}",
        )
    pinned = [f"{name}=={pins[key]}" for key, name in _PINNED.items() if key in pins]
    return (f"ansible=={pins['ANSIBLE']}", *sorted(pinned), *_BESIDE)


def _kubespray(checkout: Checkout) -> Path:
    for place, tree in checkout.added:
        if place == _KUBESPRAY.parent:
            return tree / _KUBESPRAY.name
    return checkout.tree / _KUBESPRAY


def _lines(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    lines = (line.split(" #")[0].strip() for line in file.read_text().splitlines())
    return tuple(line for line in lines if line and line[0] not in "#-")


@dataclass(frozen=True)
class Toolchain:
    """A virtual environment with the packages of ``requirements``."""

    packages: tuple[str, ...]
    #: Folder of the environments in the cache.
    store: Path

    @property
    def folder(self) -> Path:
        """Where the environment is, or will be; its name begins with what is in it."""
        python = ".".join(map(str, sys.version_info[:3]))
        text = json.dumps([_BUILDER_VERSION, python, sys.base_prefix, *self.packages])
        key = hashlib.sha256(text.encode()).hexdigest()[:10]
        return self.store / f"{self.packages[0].replace('==', '-')}-{key}"

    @property
    def bin(self) -> Path:
        """The folder with ansible-playbook."""
        return self.folder / "bin"

    @property
    def ready(self) -> bool:
        """Whether it was made, to the end."""
        return (self.folder / "complete.json").is_file()

    @property
    def collections(self) -> Path:
        """Where the collections of pip's package 'ansible' are."""
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return self.folder / "lib" / version / "site-packages" / "ansible_collections"

    @property
    def told(self) -> str:
        """Its packages in words, with the versions that are there."""
        try:
            versions = json.loads((self.folder / "complete.json").read_text())
        except (OSError, ValueError):
            return self.packages[0]
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    def ensure(self, journal: Journal) -> Path:
        """Return the folder with ansible-playbook; make the environment unless it is there.

        Raises ArtifactError with pip's last lines where a package cannot be had.
        """
        self.store.mkdir(parents=True, exist_ok=True)
        # Not 'with_suffix': a version has dots.
        beside = str(self.folder)
        with FileLock(f"{beside}.lock"):
            if not self.ready:
                log = Path(f"{beside}.log")
                log.unlink(missing_ok=True)
                what = f"making a virtual environment with {self.packages[0]}"
                with journal.step("prepare", what, detail=str(log)):
                    self._make(log)
        return self.bin

    def _make(self, log: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        deadline = Deadline.after(_SECONDS)
        self._run([sys.executable, "-m", "venv", self.folder], log, deadline)
        pip: list[str | Path] = [
            self.bin / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
        ]
        self._run([*pip, "install", "--quiet", *self.packages], log, deadline)
        ask = (
            "import json; from importlib.metadata import version; "
            "print(json.dumps({n: version(n) for n in ('ansible', 'ansible-core')}))"
        )
        answer = self.folder / "versions.log"
        self._run([self.bin / "python", "-c", ask], answer, deadline)
        new = self.folder / "complete.new"
        new.write_text(answer.read_text().splitlines()[-1])
        new.rename(self.folder / "complete.json")

    def _run(self, command: Sequence[str | Path], log: Path, deadline: Deadline) -> None:
        asked = " ".join(self.packages)
        problem = ArtifactError(
            f"The Ansible that this checkout asks for cannot be installed: {asked}.",
            hint=f"read {log}; try: python3 -m pip download --no-deps {self.packages[0]}",
        )
        try:
            status = run_logged(command, log=log, deadline=deadline, what="Installing Ansible")
        except StepTimeout as error:
            problem.detail = f"{error.message}\n{error.detail}"
            raise problem from None
        if status:
            lines = [line for line in tail(log, 40).splitlines() if not line.startswith("WARN")]
            problem.detail = "\n".join(line[:300] for line in lines[-12:])
            raise problem
