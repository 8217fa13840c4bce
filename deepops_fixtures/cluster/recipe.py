"""Everything that decides how a cluster looks when its machines are up: the inputs of stage 'up'.

A checkpoint is good for a run when all of these are the same. Not for what is deployed on the
machines: that is ``deploy.sources``.
"""

from __future__ import annotations

from pathlib import Path

import libvirt

from deepops_fixtures import inputs, resources
from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.cluster.vagrant_tool import vagrantfile
from deepops_fixtures.inputs import Inputs

#: Modules that have a part in how a machine looks when it is up, most of them in this room. The
#: rest chooses, watches, reports or removes.
_CODE = (
    "freezer.py",
    "instance.py",
    "inventory_file.py",
    "networks.py",
    "running.py",
    "ssh.py",
    "taking.py",
    "vagrant_tool.py",
    "waking.py",
    "providers/vagrant.py",
    "../facts.py",
)


def up_inputs(
    spec: ClusterSpec, box: Box | None, accelerator: str, gpu: dict[str, str] | None = None
) -> Inputs:
    """Return the inputs of stage 'up': box, cluster file, Vagrantfile, our code, this host, and
    what was asked of its GPUs where anything was."""
    here = Path(__file__).resolve().parent
    code = [(here / name).resolve() for name in _CODE]
    vagrant = resources.vagrant()
    # An absolute path, as DEEPOPS_VAGRANT_FILE may hold, is one wherever it is joined to.
    machines = vagrant / vagrantfile()
    files = inputs.of_files(machines.parent, [machines] if machines.is_file() else [])
    cluster = spec.model_dump(exclude={"description", "box", "source"})
    return {
        "box": {spec.box: box.version if box else "Vagrant's own"},
        "cluster": inputs.of_data(cluster),
        "vagrant": {**files, **inputs.of_files(vagrant, [vagrant / "identity.sh"])},
        "harness": inputs.of_files(here.parent, code),
        "host": _host(accelerator),
        **({"gpu": gpu} if gpu else {}),
    }


def _host(accelerator: str) -> dict[str, str]:
    """What the guests' memory depends on: another QEMU or another processor may not read it."""
    with hypervisor.connect() as connection:
        found = {
            "accelerator": accelerator,
            "qemu": str(connection.getVersion()),
            "libvirt": str(connection.getLibVersion()),
            "libvirt-python": str(libvirt.getVersion()),
        }
    if accelerator == "kvm":
        found["processor"] = _processor()
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"
