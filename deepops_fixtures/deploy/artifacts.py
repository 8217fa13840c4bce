"""What a deployment needs that no mirror has ready: built on this host once, then cached.

A recipe is a folder under ``playbooks/artifacts``. What it makes is a folder of files, cached by a
hash of the recipe; it appears there by one rename, so that an interrupted build leaves nothing
that could be taken for an artifact. Everything is built in a throw-away root file system, so the
host needs mmdebstrap and no rights. Not for boxes: those are Vagrant's (``cluster.box``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepops_fixtures import debian, resources
from deepops_fixtures.errors import ArtifactError, UsageProblem
from deepops_fixtures.journal import Journal
from deepops_fixtures.proc import Deadline, run_logged, tail

#: Raised when the way an artifact is put together changes, so that older ones are built anew.
BUILDER_VERSION = 1
#: The programs of a Kubernetes cluster on box 'debian12'.
KUBERNETES = "kubernetes-debian12"
#: The container images that such a cluster needs where there is no registry.
IMAGES = "images-debian12"
#: An apt repository of all that the playbooks install on box 'debian12'.
PACKAGES = "packages-debian12"
#: The variable by which a playbook learns where an artifact is on this host.
VARIABLES = {
    KUBERNETES: "deepops_kubernetes_artifact",
    IMAGES: "deepops_images_artifact",
    PACKAGES: "deepops_packages_artifact",
}
#: The variables of a user by which an artifact is not needed: the vendor's archive, images of
#: somebody else's (playbooks/roles/kubernetes_*).
_INSTEAD = {
    KUBERNETES: {"kubernetes_archive"},
    IMAGES: {"kubernetes_image_archives", "kubernetes_pause_image"},
}
_GIB = 1024**3
#: All that a build is told of this host's environment.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


class ArtifactRecipe(BaseModel):
    """What an artifact is made from: Debian suite, mirrors, packages of the throw-away root.

    ``variables`` reach build.sh, a list as one word after the other; ``uses`` names the artifacts
    whose files it finds in /used; ``files`` are what it has to leave in /out; ``disk_gib`` is what
    the build takes meanwhile.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    suite: str
    mirror: str
    security_mirror: str
    source_packages: bool = False
    minutes: int = Field(ge=1, le=240)
    disk_gib: float = Field(gt=0, le=100)
    packages: list[str]
    uses: list[str] = []
    variables: dict[str, str | list[str]] = {}
    versions: dict[str, str] = {}
    files: list[str] = Field(min_length=1)


class Artifact:
    """One artifact: its recipe, its key, and where it is cached."""

    def __init__(self, name: str, cache: Path, recipes: Path | None = None) -> None:
        recipes = recipes or _recipes()
        folder = recipes / name
        if not (folder / "recipe.yml").is_file():
            known = ", ".join(available(recipes)) or "none"
            raise UsageProblem(
                f"There is no recipe for an artifact named '{name}'.",
                hint=f"choose one of: {known}",
            )
        self.name = name
        self.folder = folder
        try:
            self.recipe = ArtifactRecipe(**yaml.safe_load((folder / "recipe.yml").read_text()))
        except (ValidationError, TypeError, yaml.YAMLError) as error:
            raise UsageProblem(
                f"File '{folder / 'recipe.yml'}' is not an artifact's recipe: {error}"
            ) from None
        if mirror := debian.mirror_wanted():
            self.recipe = self.recipe.model_copy(update={"mirror": mirror})
        self.cache = cache / "artifacts"
        self.used = [Artifact(other, cache, recipes) for other in self.recipe.uses]

    @cached_property
    def key(self) -> str:
        """Hash of everything the artifact is made from, as it was when it was first asked for."""
        return self.key_of(self.folder)

    def key_of(self, folder: Path) -> str:
        """Return the key that this recipe has with the files of ``folder``."""
        used = "".join(f"{artifact.name} {artifact.key}\n" for artifact in self.used)
        digest = hashlib.sha256(
            f"{BUILDER_VERSION}\n{self.recipe.model_dump_json()}\n{used}".encode()
        )
        for path in sorted(p for p in folder.iterdir() if p.name != "recipe.yml"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    @property
    def path(self) -> Path:
        """The cached folder; it exists only when it is complete."""
        return self.cache / f"{self.name}-{self.key[:16]}"

    @property
    def built(self) -> bool:
        """Whether the cache has it, every file at its full length."""
        try:
            files = json.loads((self.path / "manifest.json").read_text())["files"]
            sizes = {name: (self.path / name).stat().st_size for name in files}
        except (OSError, ValueError, KeyError):
            return False
        return all(sizes[name] == file["bytes"] for name, file in files.items())

    @property
    def size(self) -> int:
        """Bytes of its files, 0 when it is not built."""
        return sum(file.stat().st_size for file in self.path.glob("*"))

    def ensure(self, journal: Journal, *, wait: float = 3600, build: bool = True) -> Path:
        """Build the artifact, and before it those it uses, unless it is cached; return its folder.

        Two processes never build one artifact twice: the second waits up to ``wait`` seconds for
        the first. Raises ArtifactError when the build fails or ``build`` is false and nothing is
        cached, StepTimeout when the build takes longer than the recipe allows.
        """
        if self.built:
            return self.path
        if not build:
            raise ArtifactError(
                f"Artifact '{self.name}' ({self.recipe.about}) is not built.",
                hint=f"deepops-virtual artifact build {self.name}",
            )
        for artifact in self.used:
            artifact.ensure(journal, wait=wait)
        what = f"artifact '{self.name}'"
        with debian.one_at_a_time(
            self.cache / f"{self.name}.lock", journal, "artifact", what, wait, ArtifactError
        ):
            if not self.built:
                Builder(self, journal).build()
        return self.path

    def remove(self) -> list[Path]:
        """Forget every cached build of this artifact, of older recipes too; return what went."""
        builds = [path for path in self.cache.glob("*") if self._is_build(path.name)]
        for path in builds:
            # A reader that comes while it goes sees no manifest, so no artifact.
            (path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(path)
        return builds

    def _is_build(self, name: str) -> bool:
        return re.fullmatch(rf"{re.escape(self.name)}-[0-9a-f]{{16}}", name) is not None


class Builder:
    """Makes one artifact. Needs no rights on the host beyond those of mmdebstrap."""

    def __init__(self, artifact: Artifact, journal: Journal) -> None:
        self.artifact = artifact
        self.journal = journal
        self.work = artifact.cache / f"{artifact.name}.building"
        self.log = artifact.cache / f"{artifact.name}-build.log"

    def build(self) -> None:
        """Build in a working folder and move the result into place; the folder goes in any case.

        Called under the artifact's lock, so a working folder that is already there is a dead
        build's, and so is a result without its manifest.
        """
        self._look_for_obstacles()
        for old in (self.work, self.artifact.path):
            shutil.rmtree(old, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.work.mkdir(parents=True)
        try:
            what = f"building artifact '{self.artifact.name}': {self.artifact.recipe.about}"
            with self.journal.step("artifact", what, detail=str(self.log)):
                self._copy_recipe()
                self._run()
                self._describe()
                (self.work / "out").rename(self.artifact.path)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def _look_for_obstacles(self) -> None:
        """Refuse what would fail after minutes. Raises ArtifactError."""
        name, recipe = self.artifact.name, self.artifact.recipe
        if shutil.which("mmdebstrap") is None:
            raise ArtifactError(
                f"Artifact '{name}' cannot be built: program 'mmdebstrap' is not on this host.",
                hint="./setup.sh",
            )
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free / _GIB
        if free < recipe.disk_gib:
            raise ArtifactError(
                f"Artifact '{name}' cannot be built: it takes {recipe.disk_gib:g} GiB in {folder} "
                f"for a while, where {free:.1f} GiB are free.",
                hint=f"free some space, or TMPDIR=/another/folder deepops-virtual artifact build "
                f"{name}",
            )

    def _copy_recipe(self) -> None:
        folder = self.work / "recipe"
        shutil.copytree(self.artifact.folder, folder)
        if self.artifact.key_of(folder) != self.artifact.key:
            raise ArtifactError(
                f"The recipe in {self.artifact.folder} was edited while it waited to be built.",
                hint=f"deepops-virtual artifact build {self.artifact.name}",
            )
        (self.work / "out").mkdir()
        for used in self.artifact.used:
            shutil.copytree(used.path, self.work / "used" / used.name)
        recipe = self.artifact.recipe
        variables = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        variables["HOME"] = "/root"
        for name, value in recipe.variables.items():
            variables[name] = value if isinstance(value, str) else " ".join(value)
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
        (folder / "variables").write_text("".join(lines))

    def command(self) -> list[str | Path]:
        """Return mmdebstrap's command line: install, run build.sh, take /out, throw the rest away
        (mmdebstrap(1))."""
        recipe = self.artifact.recipe
        where = (recipe.suite, recipe.mirror, recipe.security_mirror)
        lines = debian.sources(*where)
        if recipe.source_packages:
            lines += debian.sources(*where, kind="deb-src")
        clean = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8"
        run = "set -a; . /recipe/variables; exec sh /recipe/build.sh"
        return [
            "mmdebstrap",
            "--variant=minbase",
            "--format=null",
            f"--include={','.join(recipe.packages)}",
            '--aptopt=Acquire::Retries "3"',
            "--dpkgopt=force-unsafe-io",
            *debian.keyring(),
            *(
                f"--customize-hook=copy-in {shlex.quote(str(self.work / folder))} /"
                for folder in ("recipe", *(["used"] if recipe.uses else []))
            ),
            f"--customize-hook={clean} chroot \"$1\" sh -c '{run}'",
            *(
                f"--customize-hook=copy-out {shlex.quote(f'/out/{name}')} "
                f"{shlex.quote(str(self.work / 'out'))}"
                for name in recipe.files
            ),
            recipe.suite,
            "/dev/null",
            *lines,
        ]

    def _run(self) -> None:
        recipe = self.artifact.recipe
        status = run_logged(
            self.command(),
            log=self.log,
            deadline=Deadline.after(recipe.minutes * 60),
            what=f"Building artifact '{self.artifact.name}'",
            cwd=self.work,
            env={"SOURCE_DATE_EPOCH": "1700000000"},
        )
        missing = [name for name in recipe.files if not (self.work / "out" / name).is_file()]
        if status != 0 or missing:
            again = f"deepops-virtual artifact build {self.artifact.name}"
            hint = f"read {self.log}; ./setup.sh --check; {again}"
            why = f"the build left no {', '.join(missing)}"
            if status != 0:
                why = f"mmdebstrap ended with status {status}"
            if status != 0 and (lost := _not_fetched(self.log)):
                why = f"{lost[0]} could not be fetched ({lost[1]})"
                hint = (
                    f"try it: curl -I {lost[0]}; another mirror: DEEPOPS_DEBIAN_MIRROR=URL {again}"
                )
            raise ArtifactError(
                f"Building artifact '{self.artifact.name}' failed: {why}.",
                detail=_cause(self.log),
                hint=hint,
            )

    def _describe(self) -> None:
        """Write manifest.json: name, key, versions, sha256 and bytes of each file."""
        out = self.work / "out"
        files = {}
        for path in sorted(out.iterdir()):
            path.chmod(0o644)
            files[path.name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
        document = {
            "name": self.artifact.name,
            "key": self.artifact.key,
            "about": self.artifact.recipe.about,
            "versions": self.artifact.recipe.versions,
            "files": files,
        }
        (out / "manifest.json").write_text(json.dumps(document, indent=1) + "\n")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _not_fetched(log: Path) -> tuple[str, str] | None:
    """Return the first address that apt could not fetch, and apt's reason, or None."""
    text = log.read_text(errors="replace")
    found = re.search(r"^E: Failed to fetch (\S+) +(.+)$", text, re.MULTILINE)
    return (found[1], found[2].strip().rstrip(".:")) if found else None


def _cause(log: Path) -> str:
    """The end of the log without what mmdebstrap says of its own clearing up."""
    noise = ("I: removing tempdir", "I: main() received signal", "I: cleaning ")
    lines = [line for line in tail(log, 40).splitlines() if not line.startswith(noise)]
    return "\n".join(lines[-25:])


def _recipes() -> Path:
    return resources.playbooks() / "artifacts"


def available(recipes: Path | None = None) -> list[str]:
    """Return the names of the artifacts that can be built."""
    return sorted(path.parent.name for path in (recipes or _recipes()).glob("*/recipe.yml"))


def spared(variables: Mapping[str, Any]) -> set[str]:
    """Return the artifacts that are not needed where a user gives these variables."""
    return {
        artifact
        for artifact, instead in _INSTEAD.items()
        if any(variables.get(name) for name in instead)
    }


def needed(parts: Collection[str], airgap: bool, box: str = "debian12") -> list[str]:
    """Return the artifacts that a deployment of these parts ('slurm', 'kubernetes') uses.

    Recipes exist for box 'debian12' alone: on any other box Kubernetes comes from the archive that
    variable ``kubernetes_archive`` names, and an airgapped run brings its packages along.
    """
    if box != "debian12":
        return []
    names: Iterable[tuple[str, bool]] = (
        (KUBERNETES, "kubernetes" in parts),
        (IMAGES, "kubernetes" in parts),
        (PACKAGES, airgap),
    )
    return [name for name, wanted in names if wanted]
