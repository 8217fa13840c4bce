"""The failure bundle: what an engineer would log in to collect, from every node at once, while the
cluster lives.

One shell script a node, over one connection; each section becomes a file
``bundle/<node>/<section>.txt``.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deepops_fixtures import facts
from deepops_fixtures.cluster.running import Node, Nodes
from deepops_fixtures.report.scrub import scrub

_LOGS = facts.SLURM_LOG_DIR
_MARK = "=====deepops-bundle====="
#: Section name → shell command, by the DeepOps group of the nodes it concerns ('' for every node).
SECTIONS: dict[str, dict[str, str]] = {
    "": {
        "journal": "journalctl --no-pager -b -n 1500 -o short-iso",
        "dmesg": "dmesg --ctime | tail -n 400",
        "units": "systemctl --plain list-units --failed; systemctl list-jobs",
        "network": "ip -brief address; ip route; ss -tlnp; cat /etc/hosts",
        "storage": "df -hT; cat /proc/mounts; cat /etc/fstab",
        "processes": "free -m; uptime; "
        "ps -eo pid,user,stat,pcpu,rss,etime,args --sort=-pcpu | head -n 60",
        "clock": "date --rfc-3339=ns; chronyc -n tracking; chronyc -n sources",
    },
    "slurm-cluster": {
        "munge": "systemctl status --no-pager munge; sha256sum /etc/munge/munge.key | cut -c1-12; "
        "ls -ln /etc/munge; munge -n | unmunge | head -n 3; tail -n 30 /var/log/munge/munged.log",
        "nfs": "exportfs -v; grep -w nfs /proc/mounts; nfsstat -c 2>/dev/null | head -n 30",
    },
    "slurm-master": {
        "sinfo": "sinfo --all --Node --long; sinfo --list-reasons; squeue --all --long",
        "scontrol": "scontrol show nodes; scontrol show partitions; scontrol show jobs",
        "slurm-config": "scontrol show config",
        "accounting": "sacctmgr -n show cluster; sacctmgr -n show associations; "
        "sacct -a -X -S now-1hour",
        "slurmctld": f"tail -n 400 {_LOGS}/slurmctld.log",
        "slurmdbd": f"tail -n 100 {_LOGS}/slurmdbd.log",
    },
    "slurm-node": {
        "slurmd": f"slurmd -C; tail -n 400 {_LOGS}/slurmd.log; ls /var/spool/slurm/d",
        "slurm.conf": f"cd {facts.SLURM_CONFIG_DIR} && cat slurm.conf cgroup.conf",
    },
}


def _script(node: Node) -> str:
    lines = ["exec 2>&1"]
    for group, sections in SECTIONS.items():
        if not group or group in node.groups:
            for name, command in sections.items():
                lines.append(f"echo; echo '{_MARK} {name}'; timeout 10 sh -c {_quoted(command)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _collect(node: Node, folder: Path, seconds: int) -> str:
    """Collect from one node; return '' or why nothing came."""
    try:
        output = node.run_script(_script(node), seconds)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{node.name}: {error}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = re.split(rf"^{_MARK} (\S+)\n", output, flags=re.MULTILINE)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        (folder / f"{name}.txt").write_text(scrub(text))
    return "" if len(parts) > 1 else f"{node.name}: {output.strip()[-300:] or 'said nothing'}"


def collect(nodes: Nodes, folder: Path, seconds: int = 90) -> list[str]:
    """Collect from every node at once; return what could not be had, one line a node."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=len(nodes) or 1) as pool:
        said = pool.map(lambda node: _collect(node, folder / node.name, seconds), list(nodes))
        problems = [text for text in said if text]
    if problems:
        (folder / "not-collected.txt").write_text("\n".join(problems) + "\n")
    return problems


def pack(run_dir: Path, names: Iterable[str]) -> Path:
    """Pack files and folders of a run into ``bundle.tar.gz``, for a ticket; return its path."""
    path = run_dir / "bundle.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            if (run_dir / name).exists():
                archive.add(run_dir / name, arcname=f"{run_dir.name}/{name}")
    return path
