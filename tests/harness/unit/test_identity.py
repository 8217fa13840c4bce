"""The script that gives a new node its name, address and key, on each way of Linux to configure a
network. It runs in a folder that stands for the node's root, with fakes for what it calls."""

import os
import subprocess

import pytest

from deepops_fixtures import resources

#: What the script calls that must not happen to this host; each call is noted.
FAKES = ("hostname", "networkctl", "nmcli", "restorecon")


@pytest.fixture
def node(tmp_path):
    """A node's root: the files that the script finds, and the commands that its system has."""

    class Node:
        root = tmp_path / "root"
        bin = tmp_path / "bin"
        calls = tmp_path / "calls"

        def has(self, *commands: str, addressed: str = "") -> None:
            for name in commands:
                self.write(name, f'echo {name} "$@" >>{self.calls}')
            self.write("ip", f'[ "$6" = "{addressed}" ] && echo "2: $6 inet 192.168.121.9/24"')

        def write(self, name: str, text: str) -> None:
            path = self.bin / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)

        def interface(self, name: str) -> None:
            (self.root / "sys/class/net" / name / "device").mkdir(parents=True)

        def identify(self) -> subprocess.CompletedProcess:
            script = (resources.vagrant() / "identity.sh").read_text()
            for folder in ("etc", "home", "root", "run", "sys"):
                for before in (" ", '"'):
                    script = script.replace(f"{before}/{folder}", f"{before}{self.root}/{folder}")
            return subprocess.run(
                ["sh", "-c", script, "sh", "ssh-ed25519 KEY", "virtual-mgmt", "10.86.1.2", "24"],
                env={"PATH": f"{self.bin}:{os.defpath}"}, capture_output=True, text=True,
            )  # fmt: skip

        def said(self) -> str:
            return self.calls.read_text().replace(str(self.root), "")

    made = Node()
    made.bin.mkdir()
    for folder in ("etc/systemd/network", "home/vagrant/.ssh", "run", "sys/class/net/lo"):
        (made.root / folder).mkdir(parents=True)
    (made.root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 debian12\n")
    return made


def test_networkd_gets_a_file_for_the_clusters_interface(node):
    node.interface("eth0")
    node.interface("eth1")
    node.has("hostname", "networkctl")
    done = node.identify()
    assert (done.returncode, done.stderr) == (0, "")
    file = node.root / "etc/systemd/network/05-eth1.network"
    assert file.read_text().startswith("[Match]\nName=eth1\n\n[Network]\nAddress=10.86.1.2/24\n")
    assert node.said().splitlines() == ["hostname virtual-mgmt", "networkctl reload"]
    assert (node.root / "etc/hosts").read_text().endswith("127.0.1.1 virtual-mgmt\n")
    for user in ("root", "home/vagrant"):
        keys = node.root / user / ".ssh/authorized_keys"
        assert keys.read_text() == "ssh-ed25519 KEY\n"


def test_where_interfaces_have_other_names_it_is_the_one_without_an_address(node):
    node.interface("ens5")
    node.interface("ens6")
    node.has("hostname", "networkctl", addressed="ens5")
    assert node.identify().returncode == 0
    assert [path.name for path in (node.root / "etc/systemd/network").iterdir()] == [
        "05-ens6.network"
    ]


def test_networkmanager_gets_a_connection(node):
    (node.root / "run/NetworkManager").mkdir()
    node.interface("eth1")
    node.has(*FAKES)
    assert node.identify().returncode == 0
    said = node.said()
    assert "nmcli connection add type ethernet con-name deepops ifname eth1" in said
    assert "ipv4.addresses 10.86.1.2/24" in said
    assert "nmcli connection up deepops" in said
    assert "restorecon -R /etc/hostname /root/.ssh /home/vagrant/.ssh" in said
    assert "networkctl" not in said


def test_a_node_without_a_second_interface_says_so(node):
    node.interface("ens5")
    node.has("hostname", "networkctl", addressed="ens5")
    done = node.identify()
    assert done.returncode == 1
    assert "no network interface without an address" in done.stderr
