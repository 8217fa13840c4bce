"""The two libvirt networks of an instance: its own, without a way out, and the management network
with NAT, over which this host reaches the nodes; in an airgapped instance that one has no way out
either.

Without ``<forward>`` libvirt refuses to forward what comes from the network and has dnsmasq hand
out no default route. It would still have dnsmasq answer with the names in this host's /etc/hosts,
so names are switched off: then a lease tells of no name server (dnsmasq(8), --port=0). Source:
libvirt, Network XML format, "Isolated network config" and "dns".

They are made here and not by Vagrant: its plugin chooses the bridge's name itself, and two
clusters that start in the same second choose the same. libvirt, asked for any name, gives each its
own. There is no loop for a spanning tree to find; with one, a bridge carries nothing for its first
four seconds.
"""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import jinja2
import libvirt
import tenacity

from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.cluster.ledger import Lease, Ledger
from deepops_fixtures.errors import ProvisionError

_NETWORK = jinja2.Template(
    """\
<network>
  <name>{{ name }}</name>
  <bridge stp='off' delay='0'/>
{%- if mac %}
  <mac address='{{ mac }}'/>
{%- endif %}
{%- if way_out %}
  <forward mode='nat'/>
{%- else %}
  <dns enable='no'/>
{%- endif %}
  <ip address='{{ network[1] }}' netmask='{{ network.netmask }}'>
{%- if management %}
    <dhcp>
      <range start='{{ network[2] }}' end='{{ network[254] }}'/>
{%- for lease in leases %}
      <host mac='{{ lease.mac }}' name='{{ lease.node }}' ip='{{ lease.address }}'/>
{%- endfor %}
    </dhcp>
{%- endif %}
  </ip>
</network>
"""
)


def create(
    ledger: Ledger, *, macs: Mapping[str, str] | None = None, leases: Sequence[Lease] = ()
) -> None:
    """Define and start the instance's networks. Raises ProvisionError.

    A restored guest remembers the hardware address of its gateway and its own lease: ``macs``
    gives each network's bridge the address it had, ``leases`` keeps the nodes' addresses theirs.
    """
    with hypervisor.connect() as connection:

        def make(place: int) -> None:
            name = ledger.networks[place]
            text = _NETWORK.render(
                name=name,
                mac=(macs or {}).get(name, ""),
                management=place == 1,
                way_out=place == 1 and not ledger.airgap,
                network=ipaddress.IPv4Network(ledger.subnets[place]),
                leases=leases,
            )
            try:
                _start(connection, text)
            except libvirt.libvirtError as error:
                raise ProvisionError(
                    f"Network '{name}' ({ledger.subnets[place]}) could not be started: "
                    f"{error.get_error_message()}.",
                    hint="virsh -c qemu:///system net-list --all",
                ) from None

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(make, range(len(ledger.networks))))


def _same_bridge(error: BaseException) -> bool:
    return isinstance(error, libvirt.libvirtError) and "File exists" in str(error)


@tenacity.retry(
    retry=tenacity.retry_if_exception(_same_bridge),
    stop=tenacity.stop_after_attempt(5),
    wait=tenacity.wait_random(0, 0.5),
    reraise=True,
)
def _start(connection: libvirt.virConnect, text: str) -> None:
    """Define and start a network. libvirt gives two that are defined in the same moment one
    bridge's name, and the later to start finds it taken: it is defined anew then."""
    network = connection.networkDefineXML(text)
    try:
        network.create()
    except libvirt.libvirtError:
        with suppress(libvirt.libvirtError):
            network.undefine()
        raise


def macs(ledger: Ledger) -> dict[str, str]:
    """Return each network's name and the hardware address of its bridge."""
    found = {}
    with hypervisor.connect() as connection:
        for name in ledger.networks:
            with suppress(libvirt.libvirtError):
                root = ElementTree.fromstring(connection.networkLookupByName(name).XMLDesc(0))
                mac = root.find("mac")
                found[name] = mac.get("address", "") if mac is not None else ""
    return found
