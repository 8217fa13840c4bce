"""What the tests of carrying out a preparation share: a host that was never prepared, programs
that run nothing, and what a host is like."""

from __future__ import annotations

from pathlib import Path

from deepops_fixtures.passthrough import prepared
from deepops_fixtures.passthrough.pci import Host
from tests.harness.unit import pci_trees
from tests.harness.unit.pci_trees import V100, HostTree

GRUB = "GRUB_CMDLINE_LINUX_DEFAULT"
Snapshot = dict[str, tuple[bytes, int, int, int]]


class Programs:
    """Runs nothing; notes what it was asked to run, and fails what it is told to."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[str] = []

    def __call__(self, argv: tuple[str, ...], log: Path) -> int:
        self.ran.append(" ".join(argv))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"$ {argv[0]}\nno space left\n")
        return 1 if argv[0] in self.failing else 0


def debian(tree: HostTree) -> HostTree:
    """Make a Debian host that was never prepared, with files of odd modes and bytes."""
    pci_trees.no_iommu(tree)
    tree.file("/etc/default/grub", f'{GRUB}="quiet"')
    tree.file("/proc/sys/kernel/random/boot_id", "first\n")
    (tree.root / "etc/modules").write_bytes(b"# Gr\xfc\xdfe\nloop")
    (tree.root / "etc/modules").chmod(0o640)
    return tree


def snapshot(tree: HostTree) -> Snapshot:
    """Every file below /etc, with mode and owner, and every folder."""
    found: Snapshot = {}
    for path in sorted((tree.root / "etc").rglob("*")):
        status = path.stat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (data, status.st_mode, status.st_uid, status.st_gid)
    return found


def apply(tree: HostTree, *devices: str, run: Programs | None = None) -> prepared.Outcome:
    return prepared.apply(Host(tree.root), devices or (V100,), run=run or Programs())


def undo(tree: HostTree, run: Programs | None = None, force: bool = False) -> prepared.Outcome:
    return prepared.undo(Host(tree.root), run=run or Programs(), force=force)


def state(tree: HostTree) -> prepared.Prepared:
    return prepared.state(Host(tree.root))
