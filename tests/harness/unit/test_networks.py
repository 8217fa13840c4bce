"""The two networks of an instance, as libvirt is told to make them."""

import pytest

from deepops_fixtures.cluster import networks
from deepops_fixtures.cluster.ledger import Lease
from deepops_fixtures.errors import ProvisionError
from tests.harness.unit.fakes import Network, refusal

NAMES = ["deepops-one", "deepops-one-mgmt"]


@pytest.fixture
def instance(ledger):
    return ledger("one", networks=NAMES, subnets=["10.86.7.0/24", "10.87.9.0/24"])


@pytest.fixture
def made(connection, instance):
    """Return a function that makes the networks and gives the XML of both."""

    def make(**given):
        networks.create(instance, **given)
        assert all(network.started for network in connection.networks.values())
        return [connection.networks[name].xml for name in NAMES]

    return make


def test_libvirt_chooses_the_bridges_names_and_no_spanning_tree_delays_them(made):
    for network in made():
        assert network.find("bridge").attrib == {"stp": "off", "delay": "0"}


def test_the_own_network_has_no_way_out_no_names_and_no_leases(made):
    own, _ = made()
    assert own.find("forward") is None
    assert own.find("dns").get("enable") == "no"
    assert own.find("ip/dhcp") is None
    assert own.find("ip").attrib == {"address": "10.86.7.1", "netmask": "255.255.255.0"}


def test_the_management_network_leads_out_and_gives_addresses(made):
    _, management = made()
    assert management.find("forward").get("mode") == "nat"
    assert management.find("dns") is None
    assert management.find("ip").get("address") == "10.87.9.1"
    span = management.find("ip/dhcp/range")
    assert span.attrib == {"start": "10.87.9.2", "end": "10.87.9.254"}


def test_the_management_network_of_an_airgapped_instance_has_no_way_out_and_no_names(
    made, instance
):
    instance.airgap = True
    _, management = made()
    # No default route and no name server are in a lease then (libvirt, dnsmasq).
    assert management.find("forward") is None
    assert management.find("dns").get("enable") == "no"
    assert management.find("ip").get("address") == "10.87.9.1"
    assert management.find("ip/dhcp/range") is not None


def test_new_networks_have_neither_addresses_of_their_own_nor_leases(made):
    for network in made():
        assert network.find("mac") is None
        assert network.find("ip/dhcp/host") is None


def test_restored_networks_have_the_addresses_that_the_guests_remember(made):
    own, management = made(
        macs={"deepops-one": "52:54:00:aa:00:01", "deepops-one-mgmt": "52:54:00:aa:00:02"},
        leases=[
            Lease(node="virtual-login", mac="52:54:00:bb:00:01", address="10.87.9.5"),
            Lease(node="virtual-gpu01", mac="52:54:00:bb:00:02", address="10.87.9.6"),
        ],
    )
    assert own.find("mac").get("address") == "52:54:00:aa:00:01"
    assert management.find("mac").get("address") == "52:54:00:aa:00:02"
    assert own.find("ip/dhcp") is None
    assert [host.attrib for host in management.iterfind("ip/dhcp/host")] == [
        {"mac": "52:54:00:bb:00:01", "name": "virtual-login", "ip": "10.87.9.5"},
        {"mac": "52:54:00:bb:00:02", "name": "virtual-gpu01", "ip": "10.87.9.6"},
    ]


def test_a_network_that_cannot_start_is_named_with_its_subnet(made, monkeypatch):
    def create(network):
        if network.name() == "deepops-one-mgmt":
            raise refusal("internal error: Network is already in use by interface eth0")

    monkeypatch.setattr(Network, "create", create)
    with pytest.raises(ProvisionError) as caught:
        made()
    assert "Network 'deepops-one-mgmt' (10.87.9.0/24) could not be started: " in str(caught.value)
    assert "already in use by interface eth0" in str(caught.value)


def test_networks_that_were_given_the_name_of_one_bridge_are_made_again(made, monkeypatch):
    refused = []

    def create(network):
        if not refused:
            refused.append(network.name())
            raise refusal("error creating bridge interface virbr3: File exists")
        network.started = True

    monkeypatch.setattr(Network, "create", create)
    assert len(made()) == 2
    assert len(refused) == 1


def test_the_bridges_addresses_are_read_back(made, instance):
    made(macs={"deepops-one": "52:54:00:aa:00:01"})
    assert networks.macs(instance) == {"deepops-one": "52:54:00:aa:00:01", "deepops-one-mgmt": ""}
