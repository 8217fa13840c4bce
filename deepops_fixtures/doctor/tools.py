"""Whether the programs that make the machines are here and work for this user: commands, Vagrant
and its plugin, libvirt, group membership, the box.

Not for what they then do with them: see `cluster`. Sources: ./setup.sh of this project (versions),
the issues of vagrant-libvirt named in `PAIRS`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deepops_fixtures.cluster import box as boxes
from deepops_fixtures.cluster import hypervisor, public_box
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Question, Verdict, fail, ok, skip, warn
from deepops_fixtures.errors import UsageProblem

_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "vagrant", "ssh")
#: Sockets of libvirt's one daemon, and of the daemon for QEMU alone that newer systems have.
_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
#: Groups and what they open.
_GROUPS: Final = {"libvirt": "libvirt's socket", "kvm": "/dev/kvm"}
Version = tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Versions of Vagrant and vagrant-libvirt that are known not to work together, and whence."""

    wrong: Callable[[Version, Version, bool], bool]
    why: str
    fix: str


#: Asked in this order with both versions and whether Vagrant installed the plugin itself, into its
#: own Ruby ('global'), where a distribution's packages of both ('system') share the system's Ruby.
#: Known to work: 2.3.4 with 0.11.2 (Debian 12, this project's own tests), 2.4.1 with 0.12.2
#: (https://github.com/vagrant-libvirt/vagrant-libvirt/issues/1749).
PAIRS: Final = (
    Pair(
        lambda vagrant, plugin, own: vagrant < (2, 2, 19),
        "Vagrant is older than 2.2.19",
        "./setup.sh, or a newer Vagrant",
    ),
    Pair(
        lambda vagrant, plugin, own: plugin < (0, 7),
        "vagrant-libvirt is older than 0.7",
        "./setup.sh, or: vagrant plugin update vagrant-libvirt",
    ),
    Pair(
        lambda vagrant, plugin, own: own and (2, 3, 5) <= vagrant < (2, 4, 1),
        "HashiCorp's packages 2.3.5 to 2.4.0 do not load the plugin (vagrant-libvirt issue 1749)",
        "install Vagrant 2.4.1 or 2.3.4, then: vagrant plugin repair",
    ),
    Pair(
        lambda vagrant, plugin, own: own and vagrant == (2, 4, 2),
        "HashiCorp's package 2.4.2 conflicts with the plugin over 'logger' "
        "(vagrant-libvirt issue 1831)",
        "install Vagrant 2.4.3 or 2.4.1, then: vagrant plugin repair",
    ),
)


def programs(case: Case) -> Verdict:
    """Look for the commands that a run starts."""
    missing = [name for name in _PROGRAMS if not shutil.which(name)]
    if missing:
        return fail("\n".join(f"Command '{name}' not found." for name in missing), "./setup.sh")
    return ok(f"found: {', '.join(_PROGRAMS)}")


def versions(case: Case) -> Verdict:
    """Ask Vagrant for its version and the plugin's, and whether the two work together."""
    if not shutil.which("vagrant"):
        return skip("Vagrant is not installed")
    own = re.search(r"Vagrant (\d[\d.]*)", _vagrant("--version"))
    plugins = re.search(
        r"^vagrant-libvirt \((\d[\w.]*), (\w+)", _vagrant("plugin", "list"), re.MULTILINE
    )
    if not own:
        return fail("'vagrant --version' names no version", "./setup.sh, or install Vagrant anew")
    if not plugins:
        return fail(
            f"Vagrant {own[1]} has no plugin 'vagrant-libvirt'",
            "./setup.sh, or: vagrant plugin install vagrant-libvirt",
        )
    return judge(own[1], plugins[1], plugins[2])


def judge(own: str, plugin: str, origin: str) -> Verdict:
    """Return whether these versions work together; ``origin`` is 'system', 'global' or 'local'."""
    found = f"Vagrant {own} with vagrant-libvirt {plugin} ({origin})"
    for pair in PAIRS:
        if pair.wrong(_version(own), _version(plugin), origin != "system"):
            return fail(f"{found}: {pair.why}", pair.fix)
    return ok(found)


def _version(text: str) -> Version:
    return tuple(map(int, re.findall(r"\d+", text)))


def _vagrant(*words: str) -> str:
    done = subprocess.run(
        ["vagrant", *words],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"},
    )
    return done.stdout


def libvirt(case: Case) -> Verdict:
    """Connect to the system's libvirt as this user."""
    try:
        with hypervisor.connect() as connection:
            number = connection.getLibVersion()
    except UsageProblem as error:
        return _unreachable(case, error)
    version = f"{number // 10**6}.{number // 1000 % 1000}.{number % 1000}"
    return ok(f"libvirt {version} answers this user at {hypervisor.URI}")


def _unreachable(case: Case, error: UsageProblem) -> Verdict:
    """Say why libvirt does not answer, as far as its socket tells."""
    sockets = [name for name in _SOCKETS if case.host.path(name).exists()]
    if not sockets:
        return fail(
            f"{error.message} It does not run: there is no {_SOCKETS[0]}.",
            "./setup.sh, or: sudo systemctl enable --now libvirtd",
        )
    if not any(os.access(case.host.path(name), os.R_OK | os.W_OK) for name in sockets):
        return fail(
            f"{error.message} This user may not open {sockets[0]}.",
            "./setup.sh   (joins group libvirt), then log in again",
        )
    return fail(error.message, error.hint)


def groups(case: Case) -> Verdict:
    """Look whether this user's membership in the groups counts in this very login.

    Groups are read at login; one that was joined since is in /etc/group and not yet here.
    """
    if os.geteuid() == 0:
        return ok("root needs no group")
    user = pwd.getpwuid(os.geteuid()).pw_name
    known = _group_file(case)
    mine = {*os.getgroups(), os.getegid()}
    outside = {name: users for name, (number, users) in known.items() if number not in mine}
    if not outside:
        return ok(f"user '{user}' is in {' and '.join(known) or 'no group, and needs none'}")
    late = [name for name, users in outside.items() if user in users]
    if late:
        names = " and ".join(f"'{name}'" for name in late)
        detail = f"user '{user}' is in {names} in the group file, but not in this login"
        fix = "log in again, or run it through: ./setup.sh COMMAND"
    else:
        names = " and ".join(f"'{name}' ({_GROUPS[name]})" for name in outside)
        detail = f"user '{user}' is not in {names}"
        fix = f"./setup.sh, or: sudo usermod -aG {','.join(outside)} {user}, then log in again"
    # Without the first nothing works, unless polkit lets this user in; without the second KVM.
    if "libvirt" in outside and not _answers():
        return fail(detail, fix)
    return warn(f"{detail}; libvirt answers all the same", fix)


def _answers() -> bool:
    try:
        with hypervisor.connect():
            return True
    except UsageProblem:
        return False


def _group_file(case: Case) -> dict[str, tuple[int, list[str]]]:
    """Return number and members of each group that matters and exists."""
    found = {}
    for line in case.host.text("/etc/group").splitlines():
        name, _, number, users = (*line.split(":"), "", "", "")[:4]
        if name in _GROUPS and number.isdecimal():
            found[name] = (int(number), [user for user in users.split(",") if user])
    return found


def box(case: Case) -> Verdict:
    """Look for the cluster's box: built, buildable, or in Vagrant's list."""
    assert case.spec is not None
    name = case.spec.box
    try:
        made = boxes.of_cluster(name, case.spec.name, case.settings.cache_dir)
    except UsageProblem as error:
        return fail(error.message, error.hint)
    if made is None:
        if public_box.known(name):
            return ok(f"box '{name}' is in Vagrant's list")
        return warn(
            f"box '{name}' is not on this host; the first run has Vagrant download it",
            public_box.command(name),
        )
    if made.path.is_file():
        return ok(f"box '{name}' is built ({made.version})")
    if shutil.which("mmdebstrap"):
        return ok(f"box '{name}' is not built yet; the first run builds it")
    return fail(
        f"box '{name}' is not built, and 'mmdebstrap' is not here to build it", "./setup.sh"
    )


QUESTIONS = (
    Question("programs", programs, here=True),
    Question("vagrant", versions, here=True, preflight=False),
    Question("groups", groups, here=True),
    Question("libvirt", libvirt, here=True),
    Question("box", box, here=True),
)
