"""Which ways out of its network this node has.

    python3 - 192.0.2.1 443 example.com 10.87.1.1

The arguments: an address and a port outside, a name outside, this host's address (left out: the
one that ssh came from). It prints one line of JSON after the mark 'WAY-OUT '. What it sends is one
attempt at a TCP connection, one look-up of the name, and to the host a connection or a ping.
"""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Tuple

MARK = "WAY-OUT "
#: Seconds that a connection may take, and a look-up.
CONNECT, LOOK_UP = 3, 10
#: A port of the host that is refused or taken.
SSH = 22
#: What ip-route(8) calls a route that leads nowhere.
NOWHERE = ("unreachable", "blackhole", "prohibit", "throw")


def said(argv: List[str], seconds: float) -> Tuple[int, str]:
    """Return status and output of a program; -1 where it did not end in time."""
    environment = dict(
        os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    )
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout.decode(errors="replace").strip()


def default_routes() -> List[str]:
    """Return the default routes of every table, IPv4 and IPv6, as ip-route(8) writes them."""
    found = []
    for family in ("-4", "-6"):
        _, text = said(["ip", family, "route", "show", "default", "table", "all"], 10)
        lines = [" ".join(line.split()) for line in text.splitlines()]
        found += [line for line in lines if line.startswith("default")]
    return found


def way(address: str) -> str:
    """Return how the kernel would send a packet to an address, '' for not at all."""
    status, text = said(["ip", "route", "get", address], 10)
    first = " ".join(text.splitlines()[0].split()) if text else ""
    return "" if status or first.startswith(NOWHERE) else first.replace(" cache", "")


def connect(address: str, port: int) -> Tuple[str, float]:
    """Return how one attempt at a TCP connection ended ('' for a connection, else the error's
    name), and after how many seconds."""
    begin = time.monotonic()
    with socket.socket() as connection:
        connection.settimeout(CONNECT)
        try:
            connection.connect((address, port))
            ended = ""
        except OSError as error:
            # A timeout has no number.
            ended = errno.errorcode.get(error.errno or errno.ETIMEDOUT, str(error))
    return ended, round(time.monotonic() - begin, 2)


def answers(host: str) -> bool:
    """Return whether a host answers at all: a port of it that takes or refuses a connection, else
    a ping."""
    if not host:
        return False
    if connect(host, SSH)[0] in ("", "ECONNREFUSED"):
        return True
    try:
        return said(["ping", "-n", "-c", "1", "-W", str(CONNECT), host], 10)[0] == 0
    except OSError:
        return False


def look_up(name: str) -> Tuple[List[str], float]:
    """Return the addresses of a name, and after how many seconds they were or were not known."""
    begin = time.monotonic()
    status, text = said(["getent", "ahosts", name], LOOK_UP)
    found = sorted({line.split()[0] for line in text.splitlines() if line}) if not status else []
    return found, round(time.monotonic() - begin, 2)


def name_servers() -> List[str]:
    """Return the name servers that this node asks; systemd-resolved, where it runs, stands between
    them and /etc/resolv.conf."""
    found = []
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)
    return sorted({server for server in found if not server.startswith("127.")})


def main(argv: List[str]) -> None:
    """Look, and print what was seen."""
    address, port, name = argv[:3]
    came_from = (os.environ.get("SSH_CONNECTION", "").split() or [""])[0]
    host = argv[3] if len(argv) > 3 else came_from
    ended, seconds = connect(address, int(port))
    addresses, patience = look_up(name)
    found = {
        "default_routes": default_routes(),
        "way": way(address),
        "connection": ended,
        "connection_seconds": seconds,
        "name_servers": name_servers(),
        "addresses": addresses,
        "look_up_seconds": patience,
        "host": host,
        "host_answers": answers(host),
    }
    print(MARK + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
