"""Whether a node reaches beyond its host: what is said of one, and the probe itself in networks of
its own that lead somewhere or nowhere."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepops_fixtures.checks import WayOut, way_out
from deepops_fixtures.checks.remote import way_out as probe
from deepops_fixtures.errors import CheckFailed

CLOSED = {
    "default_routes": [],
    "way": "",
    "connection": "ENETUNREACH",
    "connection_seconds": 0.0,
    "name_servers": [],
    "addresses": [],
    "look_up_seconds": 0.1,
    "host": "10.87.1.1",
    "host_answers": True,
}
ROUTE = "default via 10.87.1.1 dev eth0 proto dhcp src 10.87.1.5 metric 1024"
WAY = "192.0.2.1 via 10.87.1.1 dev eth0 src 10.87.1.5 uid 0"


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"look_up_seconds": 3.0},
        # A name server that refuses names of outside is none that leads there.
        {"name_servers": ["10.87.1.1"]},
        {"connection": "EHOSTUNREACH"},
        {"connection": "EACCES", "connection_seconds": 0.9},
    ],
    ids=["closed", "busy", "own names alone", "unreachable", "prohibited"],
)
def test_a_node_that_reaches_its_host_alone_has_no_leak(seen):
    assert WayOut.model_validate(CLOSED | seen).leaks == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"default_routes": [ROUTE]}, f"it has a default route: {ROUTE}"),
        (
            {"connection": "", "way": WAY},
            f"a connection to 192.0.2.1:443 came about ({WAY})",
        ),
        (
            {"connection": "ETIMEDOUT", "connection_seconds": 3.0, "way": WAY},
            (
                f"a packet to 192.0.2.1:443 leaves the node ({WAY}): connecting ended with "
                "ETIMEDOUT after 3.0 s"
            ),
        ),
        # Halves of the address space are no default route.
        (
            {"connection": "ECONNREFUSED", "way": "192.0.2.1 via 10.86.1.1 dev eth1"},
            (
                "a packet to 192.0.2.1:443 leaves the node (192.0.2.1 via 10.86.1.1 dev eth1): "
                "connecting ended with ECONNREFUSED after 0.0 s"
            ),
        ),
        # Somebody on the way has no route, but this node has.
        (
            {"connection": "ENETUNREACH", "way": WAY},
            (
                f"a packet to 192.0.2.1:443 leaves the node ({WAY}): connecting ended with "
                "ENETUNREACH after 0.0 s"
            ),
        ),
        (
            {"connection_seconds": 3.1},
            "connecting to 192.0.2.1:443 failed after 3.1 s and not at once",
        ),
        (
            {"addresses": ["93.184.215.14"], "name_servers": ["10.87.1.1"]},
            "'example.com' resolves to 93.184.215.14; it asks 10.87.1.1",
        ),
        (
            {"look_up_seconds": 10.0, "name_servers": ["10.0.0.53"]},
            (
                "looking 'example.com' up took 10.0 s, so that somebody was waited for; it asks "
                "10.0.0.53"
            ),
        ),
        (
            {"host_answers": False},
            "its host, 10.87.1.1, does not answer either: that it reaches nobody proves nothing",
        ),
        (
            {"host": "", "host_answers": False},
            (
                "its host, of unknown address, does not answer either: that it reaches nobody "
                "proves nothing"
            ),
        ),
    ],
)
def test_a_leak_is_named_with_its_route_its_address_or_its_name_server(seen, said):
    assert WayOut.model_validate(CLOSED | seen).leaks == [said]


def test_all_that_an_ordinary_cluster_has_is_named():
    seen = WayOut.model_validate(
        CLOSED
        | {"default_routes": [ROUTE], "way": WAY, "connection": "ETIMEDOUT",
           "connection_seconds": 3.0, "name_servers": ["10.87.1.1"], "addresses": ["2001:db8::1"]}
    )  # fmt: skip
    assert len(seen.leaks) == 3


# -- the probe ------------------------------------------------------------------------------


def look(setup: str, name: str = "localhost") -> WayOut:
    """Return what the probe sees in a network of its own that ``setup`` makes; nothing of it leads
    out of this process."""
    script = f"ip link set lo up; {setup}\nexec {sys.executable} {probe.__file__} "
    words = [way_out.ADDRESS, str(way_out.PORT), name, "10.87.1.1"]
    alone = ["unshare", "--map-root-user", "--net", "sh", "-c"]
    if subprocess.run([*alone, "ip link set lo up"], capture_output=True).returncode:
        pytest.skip("this user may make no network of his own (unshare(1))")
    done = subprocess.run(
        [*alone, script + " ".join(words)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(probe.MARK)
    return WayOut.model_validate_json(done.stdout.removeprefix(probe.MARK))


#: An interface at whose other end nobody listens.
LINK = (
    "ip link add out type veth peer name nobody; ip link set nobody up; ip link set out up; "
    "ip link set out arp off; ip addr add 10.87.1.1/24 dev out;"
)


def test_the_probe_finds_no_way_where_there_is_none():
    seen = look(LINK, "nobody.invalid")
    assert (seen.default_routes, seen.way, seen.connection) == ((), "", "ENETUNREACH")
    assert seen.connection_seconds < way_out.AT_ONCE
    assert seen.addresses == ()


def test_the_probe_finds_a_default_route_and_that_packets_leave_by_it():
    seen = look(f"{LINK} ip route add default via 10.87.1.2 dev out")
    assert seen.default_routes == ("default via 10.87.1.2 dev out",)
    assert seen.way.startswith("192.0.2.1 via 10.87.1.2 dev out")
    # One attempt, given up in time.
    assert seen.connection == "ETIMEDOUT"
    assert seen.connection_seconds < probe.CONNECT + 1
    assert len(seen.leaks) >= 2


def test_the_probe_finds_a_default_route_of_another_table():
    seen = look(f"{LINK} ip route add default dev out table 77; ip rule add to all lookup 77")
    assert any("table 77" in leak for leak in seen.leaks)


def test_the_probe_finds_a_route_that_is_no_default_one():
    seen = look(f"{LINK} ip route add 192.0.0.0/8 dev out")
    assert seen.default_routes == ()
    assert seen.leaks[0].startswith("a packet to 192.0.2.1:443 leaves the node (192.0.2.1 dev out")


def test_the_probe_takes_a_route_that_leads_nowhere_for_none():
    seen = look(f"{LINK} ip route add unreachable default")
    assert (seen.default_routes, seen.way) == ((), "")
    assert seen.connection == "EHOSTUNREACH"


def test_the_host_is_who_ssh_came_from_unless_it_is_named(monkeypatch, capsys):
    monkeypatch.setattr(probe, "said", lambda *_: (0, ""))
    monkeypatch.setattr(probe, "connect", lambda *_: ("ECONNREFUSED", 0.0))
    monkeypatch.setenv("SSH_CONNECTION", "10.87.9.1 50000 10.87.9.5 22")
    hosts = []
    for more in ([], ["10.87.1.1"]):
        probe.main(["192.0.2.1", "443", "example.com", *more])
        hosts.append(json.loads(capsys.readouterr().out.removeprefix(probe.MARK))["host"])
    assert hosts == ["10.87.9.1", "10.87.1.1"]


@pytest.mark.parametrize(
    ("connection", "ping", "answers"),
    [("", 1, True), ("ECONNREFUSED", 1, True), ("ETIMEDOUT", 0, True), ("ETIMEDOUT", 1, False)],
)
def test_a_host_answers_by_a_port_or_by_a_ping(monkeypatch, connection, ping, answers):
    monkeypatch.setattr(probe, "connect", lambda *_: (connection, 0.0))
    monkeypatch.setattr(probe, "said", lambda *_: (ping, ""))
    assert probe.answers("10.87.1.1") is answers
    assert probe.answers("") is False


def test_what_a_node_answers_is_read_and_silence_is_no_pass():
    text = f"motd\n{probe.MARK}{json.dumps(CLOSED)}\n"
    sent = []
    node = SimpleNamespace(name="gpu01", run_script=lambda *words: sent.append(words) or text)
    assert WayOut.of(node).leaks == []
    script, seconds = sent[0]
    assert "- 192.0.2.1 443 example.com <<" in script
    assert Path(probe.__file__).read_text() in script
    assert seconds == way_out.PATIENCE
    silent = SimpleNamespace(name="gpu01", run_script=lambda *_: "sh: python3: not found\n")
    with pytest.raises(CheckFailed, match="on 'gpu01' gave no answer:\nsh: python3: not found"):
        WayOut.of(silent)
