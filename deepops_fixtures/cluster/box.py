"""Vagrant boxes that the project builds itself, from a distribution's packages alone.

A recipe is a folder under ``vagrant/boxes``. What it builds is cached under the user's cache
folder by a hash of the recipe; the box appears there by one rename, so that an interrupted build
leaves nothing that could be taken for a box. Not for public boxes: Vagrant fetches those itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import vagrant
from deepops_fixtures import debian, resources
from deepops_fixtures.cluster import public_box
from deepops_fixtures.errors import BoxError, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail

#: Raised when the way a box is put together changes, so that older ones are built anew.
BUILDER_VERSION = 2
_SECTOR = 512
_FIRST_SECTOR = 2048
_BLOCK = 4096
_GIB = 1024**3


class BoxRecipe(BaseModel):
    """What goes into a box: Debian suite, mirrors, packages, size of its disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    mirror: str
    security_mirror: str
    disk_gib: int = Field(ge=4, le=200)
    packages: list[str]
    path_exclude: list[str] = []
    path_include: list[str] = []


class Box:
    """One box: its recipe, the name Vagrant knows it by, and where it is cached."""

    def __init__(self, name: str, cache: Path, recipes: Path | None = None) -> None:
        folder = (recipes or resources.vagrant() / "boxes") / name
        if not (folder / "box.yml").is_file():
            known = ", ".join(available()) or "none"
            raise UsageProblem(
                f"There is no recipe for a box named '{name}'.", hint=f"choose one of: {known}"
            )
        self.name = name
        self.folder = folder
        try:
            self.recipe = BoxRecipe(**yaml.safe_load((folder / "box.yml").read_text()))
        except (ValidationError, TypeError, yaml.YAMLError) as error:
            raise UsageProblem(
                f"File '{folder / 'box.yml'}' is not a box recipe: {error}"
            ) from None
        if mirror := debian.mirror_wanted():
            self.recipe = self.recipe.model_copy(update={"mirror": mirror})
        self.cache = cache / "boxes"

    @property
    def key(self) -> str:
        """Hash of everything the box is made from."""
        digest = hashlib.sha256(f"{BUILDER_VERSION}\n{self.recipe.model_dump_json()}".encode())
        for path in sorted(p for p in self.folder.iterdir() if p.name != "box.yml"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    @property
    def vagrant_name(self) -> str:
        """Name in Vagrant's list of boxes."""
        return f"deepops/{self.name}"

    @property
    def version(self) -> str:
        """Version in Vagrant's list: numbers only, so the recipe's key is the last of them."""
        return f"{BUILDER_VERSION}.0.{int(self.key[:7], 16)}"

    @property
    def path(self) -> Path:
        """The cached box file; it exists only when it is complete."""
        return self.cache / f"{self.name}-{self.key[:16]}.box"

    @property
    def kernel(self) -> Path:
        """The box's kernel, kept beside it: what the KVM probe starts a guest with."""
        return self.path.with_suffix(".vmlinuz")

    @property
    def volume(self) -> str:
        """Name of the base image that vagrant-libvirt uploads to the pool and shares between
        clusters."""
        name = self.vagrant_name.replace("/", "-VAGRANTSLASH-")
        return f"{name}_vagrant_box_image_{self.version}_box.img"

    def registered(self) -> bool:
        """Return whether Vagrant knows this very build."""
        return any(
            known.name == self.vagrant_name and known.version == self.version
            for known in _listed()
        )

    def ensure(self, journal: Journal, *, wait: float = 1800, build: bool = True) -> bool:
        """Build the box unless it is cached, register it with Vagrant; return whether it was
        built.

        Two processes never build one box twice: the second waits up to ``wait`` seconds for the
        first. Raises BoxError when the build fails or ``build`` is false and nothing is cached.
        """
        lock = self.cache / f"{self.name}.lock"
        with debian.one_at_a_time(lock, journal, "box", f"box '{self.name}'", wait, BoxError):
            built = False
            if not self.path.is_file():
                if not build:
                    raise BoxError(
                        f"Box '{self.name}' is not built.",
                        hint=f"deepops-virtual box build {self.name}",
                    )
                BoxBuilder(self, journal).build()
                built = True
            if not self.registered():
                self._register(journal)
            return built

    def _register(self, journal: Journal) -> None:
        catalog = self.cache / f"{self.name}.json"
        provider = {"name": "libvirt", "url": f"file://{self.path}"}
        catalog.write_text(
            json.dumps(
                {
                    "name": self.vagrant_name,
                    "description": f"Debian {self.recipe.suite}, built from packages",
                    "versions": [{"version": self.version, "providers": [provider]}],
                }
            )
        )
        log = self.cache / f"{self.name}-add.log"
        with journal.step(
            "box", f"registering box '{self.vagrant_name}' with Vagrant", detail=str(log)
        ):
            status = run_logged(
                ["vagrant", "box", "add", "--force", "--provider", "libvirt", catalog],
                log=log,
                deadline=Deadline.after(600),
                what="'vagrant box add'",
            )
        if status != 0:
            raise BoxError(
                f"Vagrant did not accept box '{self.path}'.",
                detail=tail(log),
                hint=f"deepops-virtual box remove {self.name}, then try again",
            )

    def remove(self) -> None:
        """Forget every cached build of this box, in the cache and in Vagrant's list."""
        with FileLock(self.cache / f"{self.name}.lock"):
            for suffix in ("box", "vmlinuz"):
                for path in self.cache.glob(f"{self.name}-*.{suffix}"):
                    path.unlink()
            for known in _listed():
                if known.name == self.vagrant_name:
                    subprocess.run(
                        [
                            "vagrant",
                            "box",
                            "remove",
                            "--force",
                            "--box-version",
                            known.version,
                            "--provider",
                            "libvirt",
                            known.name,
                        ],
                        check=False,
                        capture_output=True,
                        timeout=120,
                    )


def of_cluster(name: str, cluster: str, cache: Path) -> Box | None:
    """Return our own box, or None for one that Vagrant has or can download. Raises UsageProblem
    for neither."""
    if name in available():
        return Box(name, cache)
    if public_box.can_be_public(name) or public_box.known(name):
        return None
    raise UsageProblem(
        f"Box '{name}' of cluster '{cluster}' is neither a recipe of this project "
        f"({', '.join(available())}) nor in Vagrant's list.",
        hint=f"vagrant box add --name {name} FILE.box, or another --deepops-box",
    )


def _listed() -> list[vagrant.Box]:
    """Return the boxes that Vagrant has. Raises BoxError where Vagrant itself does not work."""
    try:
        found: list[vagrant.Box] = vagrant.Vagrant(quiet_stdout=False).box_list()
    except subprocess.CalledProcessError as error:
        raise BoxError(
            f"'vagrant box list' ended with status {error.returncode}.",
            detail=str(error.output or ""),
            hint="vagrant box list   (where a plugin is broken: vagrant plugin repair)",
        ) from None
    return found


class BoxBuilder:
    """Makes one box file. Needs no rights on the host beyond those of mmdebstrap."""

    def __init__(self, box: Box, journal: Journal) -> None:
        self.box = box
        self.journal = journal
        self.work = box.cache / f"{box.name}.building"
        self.log = box.cache / f"{box.name}-build.log"
        #: What the new system's first start runs as process 1.
        self.finish = box.folder / "finish.sh"
        #: More of mmdebstrap's hooks, run before customize.sh.
        self.hooks: list[str] = []

    def build(self) -> None:
        """Build in a working folder and move the finished box into place; the folder goes in any
        case.

        Called under the box's lock, so a working folder that is already there is a dead build's.
        """
        shutil.rmtree(self.work, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.work.mkdir(parents=True)
        try:
            with self.journal.step("box", f"building box '{self.box.name}'", detail=str(self.log)):
                with self.journal.step("box", "installing packages into a root file system"):
                    self._bootstrap()
                with self.journal.step("box", "making the disk image"):
                    self._make_disk()
                with self.journal.step("box", "installing the boot loader in the guest"):
                    self._finish()
                with self.journal.step("box", "packing the box"):
                    self._pack()
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def _run(self, command: list[str | Path], what: str, seconds: float) -> None:
        status = run_logged(
            command,
            log=self.log,
            deadline=Deadline.after(seconds),
            what=what,
            cwd=self.work,
            env={"SOURCE_DATE_EPOCH": "1700000000"},
        )
        if status != 0:
            raise BoxError(
                f"Building box '{self.box.name}' failed: {what} ended with status {status}.",
                detail=tail(self.log),
                hint=f"read {self.log}; ./setup.sh --check",
            )

    def _bootstrap(self) -> None:
        recipe, folder = self.box.recipe, self.box.folder
        script = (folder / "customize.sh").read_text()
        if (folder / "vagrant.pub").exists():
            key = (folder / "vagrant.pub").read_text().strip()
            script = script.replace("@VAGRANT_KEY@", key)
        (self.work / "customize.sh").write_text(script)
        options = [f"--dpkgopt=path-exclude={path}" for path in recipe.path_exclude]
        options += [f"--dpkgopt=path-include={path}" for path in recipe.path_include]
        options += debian.keyring()
        sources = debian.sources(recipe.suite, recipe.mirror, recipe.security_mirror)
        self._run(
            [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(recipe.packages)}",
                '--aptopt=Acquire::Retries "3"',
                "--dpkgopt=force-unsafe-io",
                *options,
                f"--customize-hook=copy-in {self.work / 'customize.sh'} /",
                f"--customize-hook=copy-in {self.finish} /",
                *(f"--customize-hook={hook}" for hook in self.hooks),
                '--customize-hook=chroot "$1" sh /customize.sh',
                '--customize-hook=rm -f "$1/customize.sh"',
                recipe.suite,
                self.work / "root.tar",
                *sources,
            ],
            "mmdebstrap",
            1200,
        )

    def _make_disk(self) -> None:
        sectors = self.box.recipe.disk_gib * _GIB // _SECTOR
        blocks = (sectors - _FIRST_SECTOR) * _SECTOR // _BLOCK
        disk = self.work / "disk.img"
        with disk.open("wb") as image:
            image.truncate(sectors * _SECTOR)
        script = (
            "set -e; mkdir root; tar -C root -xf root.tar --exclude='./dev/*'; rm root.tar;"
            "cp root/boot/vmlinuz-* vmlinuz; cp root/boot/initrd.img-* initrd;"
            f"echo '{_FIRST_SECTOR},,L,*' | sfdisk -q disk.img;"
            f"mke2fs -q -t ext4 -b {_BLOCK} -L root -d root -F"
            f" -E offset={_FIRST_SECTOR * _SECTOR},nodiscard,lazy_itable_init=1 disk.img {blocks};"
            "rm -rf root"
        )
        # The files belong to the guest's users. Root writes that as it is, anyone else under
        # fakeroot.
        wrapper = [] if os.geteuid() == 0 else ["fakeroot", "--"]
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        self._run(
            [*wrapper, "env", f"PATH={path}", "sh", "-c", script], "making the disk image", 600
        )

    def _finish(self) -> None:
        serial = self.work / "serial.log"
        self._run(
            [
                "qemu-system-x86_64",
                "-machine",
                "q35,accel=tcg",
                "-cpu",
                "max",
                "-m",
                "512",
                "-nographic",
                "-no-reboot",
                "-nic",
                "none",
                "-monitor",
                "none",
                "-serial",
                f"file:{serial}",
                "-drive",
                "file=disk.img,format=raw,if=virtio,cache=unsafe,discard=unmap",
                "-kernel",
                "vmlinuz",
                "-initrd",
                "initrd",
                "-append",
                "root=/dev/vda1 rw console=ttyS0 net.ifnames=0 panic=-1 quiet init=/finish.sh",
            ],
            "the new system's first start",
            300,
        )
        text = serial.read_text(errors="replace") if serial.exists() else ""
        with self.log.open("a") as log:
            log.write(text)
        if "BOX FINISHED" not in text:
            raise BoxError(
                f"Building box '{self.box.name}' failed: "
                "the new system did not install its boot loader.",
                detail="\n".join(text.splitlines()[-25:]),
                hint=f"read {self.log}",
            )

    def _pack(self) -> None:
        recipe = self.box.recipe
        self._run(["qemu-img", "convert", "-O", "qcow2", "disk.img", "box.img"], "qemu-img", 600)
        (self.work / "metadata.json").write_text(
            json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": recipe.disk_gib})
        )
        (self.work / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n')
        partial = self.work / "box.tar"
        with tarfile.open(partial, "w") as archive:
            for name in ("metadata.json", "Vagrantfile", "box.img"):
                archive.add(self.work / name, arcname=name)
        (self.work / "vmlinuz").rename(self.box.kernel)
        partial.rename(self.box.path)


def available() -> list[str]:
    """Return the names of the boxes that can be built."""
    return sorted(path.parent.name for path in (resources.vagrant() / "boxes").glob("*/box.yml"))
