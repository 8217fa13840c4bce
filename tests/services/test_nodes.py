"""The nodes themselves: they answer, know each other, and are in good health."""

import re

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import remote
from deepops_fixtures.checks.remote import odd_ones_out
from deepops_fixtures.checks.units import PORTS, Units

pytestmark = pytest.mark.services

#: What a kernel says when the machine below the services is in trouble. A job's own cgroup running
#: out of memory ("Memory cgroup out of memory") is not among it.
KERNEL_TROUBLE = re.compile(
    r"Kernel panic|Oops:|general protection fault|I/O error|EXT4-fs error|\bOut of memory: Killed"
)


@pytest.mark.nodes()
def test_every_node_answers(node):
    said = remote.ask(node, {"user": "id -un", "name": "hostname -s"})
    assert said["user"].text == "root", (
        f"root's commands on '{node.name}' run as {said['user'].text}"
    )
    assert said["name"].text == node.name, f"'{node.name}' calls itself '{said['name'].text}'"


@pytest.mark.nodes()
def test_services_of_each_role_are_active_and_enabled(node):
    units = Units(node)
    wrong = [unit for unit in units.all if not (unit.is_active and unit.is_enabled)]
    assert not wrong, "\n".join(
        f"On '{node.name}' {unit}; group '{unit.group}' needs it active and enabled.\n"
        + units.journal(unit.name)
        for unit in wrong
    )


@pytest.mark.nodes()
def test_no_systemd_unit_has_failed(node):
    units = Units(node)
    failed = units.failed
    assert not failed, f"Failed on '{node.name}': {', '.join(failed)}.\n" + "\n".join(
        units.journal(name) for name in failed
    )


@pytest.mark.nodes()
def test_services_answer_on_their_ports_from_another_node(node, services, requires):
    ports = {}
    for group in node.groups:
        ports |= PORTS.get(group, {})
    if not ports:
        pytest.skip(f"no service of '{node.name}' has a port in the table")
    requires(*ports, on=node)
    neighbour = services.network.neighbour(node)
    requires("ssh", on=neighbour)
    answering = services.network.answering(node, ports, asked_from=neighbour)
    silent = [f"{name} (port {ports[name]})" for name, ok in answering.items() if not ok]
    assert not silent, (
        f"'{node.name}' at {node.address} does not answer '{neighbour.name}': {', '.join(silent)}."
    )


@pytest.mark.nodes()
def test_node_resolves_every_node_to_its_address_in_the_cluster_network(node, services):
    wrong = {
        name: found
        for name, found in services.network.addresses(node).items()
        if not found
        or any(address.startswith("127.") for address in found)
        or (services.nodes[name].address and found != [services.nodes[name].address])
    }
    assert not wrong, f"On '{node.name}' names resolve wrongly: " + "; ".join(
        f"'{name}' to {', '.join(found) or 'nothing'}, not {services.nodes[name].address}"
        for name, found in wrong.items()
    )


@pytest.mark.nodes()
def test_file_systems_have_room(node):
    said = remote.run(node, "df -Pk --local --exclude-type=tmpfs --exclude-type=devtmpfs").text
    rows = [line.split(None, 5) for line in said.splitlines()[1:]]
    full = [
        f"{row[5]} has {int(row[3]) // 1024} MiB left"
        for row in rows
        if row[0].startswith("/dev/") and int(row[3]) < 0.05 * int(row[1])
    ]
    assert not full, f"Less than 5 % is free on '{node.name}': {'; '.join(full)}."


@pytest.mark.nodes()
def test_kernel_reports_no_trouble(node):
    said = remote.run(node, "journalctl --dmesg --boot --no-pager --output=cat").text
    trouble = [line for line in said.splitlines() if KERNEL_TROUBLE.search(line)]
    assert not trouble, f"The kernel of '{node.name}' reports:\n" + "\n".join(trouble[-10:])


@pytest.mark.parametrize("user", ["munge", "slurm", facts.PLAIN_USER])
def test_user_has_the_same_number_on_every_node(user, services, requires):
    members = services.nodes.group("slurm-cluster")
    requires("ssh", on=members)
    numbers = remote.everywhere(
        members, lambda node: remote.run(node, f"id -u {user}").text.strip()
    )
    odd = odd_ones_out(numbers, prefer=services.nodes.slurm_controller.name)
    assert not odd, f"User '{user}' has another number on some nodes: {numbers}."
