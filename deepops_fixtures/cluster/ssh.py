"""The generated OpenSSH configuration of a cluster, its key, and the life of its shared
connections.

Connections are multiplexed (ControlMaster): on an emulated guest a command costs 1 s without and
0.1 s with. The sockets live in a short path of their own, since a socket's path has about a
hundred characters.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2

from deepops_fixtures.cluster.ledger import MARK
from deepops_fixtures.errors import ProvisionError, StepTimeout
from deepops_fixtures.proc import Deadline

_CONFIG = jinja2.Template(
    """\
# Made by deepops-fixtures for cluster instance '{{ name }}'; it goes when the instance goes.
{%- for node, address in addresses.items() %}
Host {{ node }}
  HostName {{ address }}
{%- endfor %}
Host *
  User {{ user }}
{%- for key in keys %}
  IdentityFile "{{ key }}"
{%- endfor %}
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  # First what an emulated guest computes fastest.
  KexAlgorithms ^curve25519-sha256
  ConnectTimeout 20
  # An emulated guest that stood still for forty seconds went on as if nothing had been.
  ServerAliveInterval 10
  ServerAliveCountMax 6
  ControlMaster auto
  ControlPath "{{ sockets }}/%C"
  ControlPersist 900
""",
    keep_trailing_newline=True,
)


def socket_dir(name: str) -> Path:
    """Return the folder for an instance's sockets (made later, mode 0700)."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"deepops-{os.getuid()}-{name}"


def make_key(path: Path, name: str) -> None:
    """Make this cluster's own key pair, mode 0600."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"deepops-{name}", "-f", str(path)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    path.chmod(0o600)


def write_config(
    path: Path,
    name: str,
    addresses: Mapping[str, str],
    *,
    user: str,
    keys: Sequence[Path],
    sockets: Path,
) -> None:
    """Write the ssh_config and make the folder of the sockets."""
    sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(
        _CONFIG.render(name=name, addresses=addresses, user=user, keys=keys, sockets=sockets)
    )


def _true(config: Path, node: str, env: Mapping[str, str], seconds: float, user: str = "") -> str:
    """Try one command; return '' or what ssh said."""
    login = ["-l", user] if user else []
    try:
        done = subprocess.run(
            ["ssh", "-F", str(config), "-o", "BatchMode=yes", *login, node, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            timeout=max(1.0, seconds),
            start_new_session=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")


def wait_until_answering(
    config: Path,
    name: str,
    nodes: Sequence[str],
    deadline: Deadline,
    on_answer: Callable[[str, float], None],
    user: str = "",
) -> None:
    """Wait until every node runs a command over ssh, all at once. Raises StepTimeout naming those
    that do not."""
    env = {MARK: name}

    def wait(node: str) -> tuple[str, str]:
        begin = time.monotonic()
        said = "never tried"
        while not deadline.passed:
            said = _true(config, node, env, min(30.0, deadline.left), user)
            if not said:
                on_answer(node, time.monotonic() - begin)
                return node, ""
            time.sleep(1)
        return node, said

    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        silent = {node: said for node, said in pool.map(wait, nodes) if said}
    if silent:
        what = "; ".join(f"'{node}' ({said.splitlines()[-1]})" for node, said in silent.items())
        raise StepTimeout(
            f"No answer over ssh within {deadline.seconds:.0f} s from {what}.",
            hint=f"ssh -v -F {config} {next(iter(silent))}",
        )


def run_script(
    config: Path, name: str, node: str, script: Path, arguments: Sequence[str], seconds: float
) -> None:
    """Run a local shell script on a node as root. Raises ProvisionError with what it said."""
    command = " ".join(shlex.quote(part) for part in ("sudo", "sh", "-s", "--", *arguments))
    try:
        with script.open("rb") as text:
            done = subprocess.run(
                ["ssh", "-F", str(config), "-o", "BatchMode=yes", node, command],
                stdin=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, MARK: name},
                timeout=max(1.0, seconds),
                start_new_session=True,
            )
    except subprocess.TimeoutExpired:
        raise StepTimeout(
            f"'{script.name}' did not end on '{node}' within {seconds:.0f} s.",
            hint=f"ssh -v -F {config} {node}",
        ) from None
    if done.returncode != 0:
        raise ProvisionError(
            f"'{script.name}' failed on '{node}' with status {done.returncode}.",
            detail=done.stdout,
            hint=f"ssh -F {config} {node}",
        )


def on_all(
    config: Path, name: str, nodes: Sequence[str], command: str, deadline: Deadline
) -> dict[str, str]:
    """Run a command as root on every node at once; return node → all it wrote.

    Raises StepTimeout naming a node that was too slow, ProvisionError naming one where it failed.
    """

    def run(node: str) -> str:
        process = root_shell(config, name, node, command)
        try:
            said, _ = process.communicate(timeout=max(1.0, deadline.left))
        except subprocess.TimeoutExpired:
            raise StepTimeout(
                f"'{command}' did not end on '{node}' within {deadline.seconds:.0f} s.",
                hint=f"ssh -v -F {config} {node}",
            ) from None
        finally:
            process.kill()
        if process.returncode != 0:
            raise ProvisionError(
                f"'{command}' failed on '{node}' with status {process.returncode}.",
                detail=said,
                hint=f"ssh -F {config} {node}",
            )
        return said

    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        return dict(zip(nodes, pool.map(run, nodes), strict=True))


def root_shell(config: Path, name: str, node: str, command: str) -> subprocess.Popen[str]:
    """Start a command as root on a node, with pipes to it; both its outputs are one."""
    # A master that stays behind must not hold our pipe open: it gets its own ends.
    return subprocess.Popen(
        ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-l", "root", node, command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        env={**os.environ, MARK: name},
        start_new_session=True,
    )


def close_connections(config: Path, nodes: Sequence[str]) -> None:
    """Close the shared connections. Talks to local sockets alone, and only to those that exist."""
    for node in nodes:
        for login in ([], ["-l", "root"]):
            subprocess.run(
                ["ssh", "-F", str(config), "-O", "exit", *login, node],
                check=False,
                capture_output=True,
                timeout=10,
            )


def answers(config: Path, node: str, seconds: float = 20) -> bool:
    """Return whether a node runs a command over ssh within so many seconds."""
    return not _true(config, node, {}, seconds)
