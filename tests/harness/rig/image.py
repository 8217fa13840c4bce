"""The rig's disk image: built once from packages, natively, and cached.

It is made the way the project's boxes are made (``cluster.box``), with this project's Python
packages and a Vagrant box for the second-level guest inside. The project's own code is not in
it, so that an edit needs no new image. Not for starting it: see ``machine``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from deepops_fixtures import resources
from deepops_fixtures.cluster.box import Box, BoxBuilder
from deepops_fixtures.journal import Journal
from deepops_fixtures.settings import Settings

_HERE = Path(__file__).resolve().parent
#: Raised when the way the image is put together changes, so that older ones are built anew.
_VERSION = 1
#: Version of the recipe's Python, which its packages have to fit.
_PYTHON = "3.11"
#: Packages that the rig has from Debian, since they must fit its libraries.
_FROM_DEBIAN = ("libvirt-python",)
#: Puts the second-level guest's kernel, which is not the rig's, where guest.sh looks for it.
_FETCH_KERNEL = (
    'cd "$1/rig" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && apt-get -q download '
    "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)"
)


def _requirements() -> list[str]:
    """Return what pip installs into the rig: the project's dependencies but those of Debian."""
    wanted = importlib.metadata.requires("deepops-fixtures") or []
    own = (text for text in wanted if "extra ==" not in text)
    return sorted(text for text in own if not text.startswith(_FROM_DEBIAN))


class RigImage(Box):
    """The image of this version of the recipe, in this user's cache."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("image", (settings or Settings.load()).cache_dir, _HERE)
        self.cache = self.cache.parent / "rig"

    @property
    def key(self) -> str:
        """Hash of everything the image is made from."""
        parts = [super().key, str(_VERSION), *_requirements()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def path(self) -> Path:
        """The disk image (qcow2); it exists only when it is complete."""
        return self.cache / f"rig-{self.key[:16]}.qcow2"

    @property
    def private_key(self) -> Path:
        """The key that the rig's root user lets in."""
        return self.path.with_suffix(".key")

    def provide(self, journal: Journal) -> RigImage:
        """Build the image unless it is cached; older ones go. Raises BoxError."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / "rig.lock"):
            if not self.path.is_file():
                _Builder(self, journal).build()
                for path in self.cache.glob("rig-*.*"):
                    if path.stem != self.path.stem:
                        path.unlink()
        return self


class _Builder(BoxBuilder):
    """Makes the image. What differs from a box: what is put into it, and what comes out."""

    def __init__(self, image: RigImage, journal: Journal) -> None:
        super().__init__(image, journal)
        self.image = image
        self.finish = resources.vagrant() / "boxes" / "debian12" / "finish.sh"
        self.hooks = [f"copy-in {self.work / 'rig'} /", _FETCH_KERNEL]

    def _bootstrap(self) -> None:
        parts = self.work / "rig"
        parts.mkdir()
        for path in (
            self.box.folder / "guest.sh",
            self.box.folder / "guest-init",
            resources.vagrant() / "boxes" / "debian12" / "vagrant.pub",
        ):
            shutil.copy(path, parts)
        self.image.private_key.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.image.private_key],
            check=True,
            timeout=30,
        )
        shutil.move(f"{self.image.private_key}.pub", parts / "id_ed25519.pub")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        target = ["--target", parts / "site", "--python-version", _PYTHON]
        self._run([*pip, *target, "--only-binary=:all:", *_requirements()], "pip install", 600)
        super()._bootstrap()

    def _pack(self) -> None:
        self._run(
            ["qemu-img", "convert", "-O", "qcow2", "disk.img", "image.qcow2"], "qemu-img", 600
        )
        (self.work / "image.qcow2").rename(self.image.path)
