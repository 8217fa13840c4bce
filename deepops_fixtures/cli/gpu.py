"""``deepops-virtual gpu``: the devices of this host that can be handed through, and their
drivers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepops_fixtures.cli.common import json_option, root_option, saved_host
from deepops_fixtures.cluster import gpus
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.binding import Binder
from deepops_fixtures.passthrough.candidates import Candidate, Rules, Unit, candidates, units
from deepops_fixtures.passthrough.leases import Leases
from deepops_fixtures.passthrough.pci import Bdf, Host, PciDevice, device_id
from deepops_fixtures.passthrough.selection import named_units

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def gpu() -> None:
    """GPUs of this host: which can be handed through to a virtual machine, and making them ready.

    \b
    From a fresh host to a GPU in a guest:
      deepops-virtual gpu list                          what there is, and what stands in the way
      sudo deepops-virtual gpu prepare --device 10de:1db1 --apply     once; then reboot
      deepops-virtual up --gpu auto                     one GPU for each GPU node
    """


def _device_option(command: _F) -> _F:
    return click.option(
        "--device",
        "-d",
        "extra_ids",
        multiple=True,
        metavar="VENDOR:DEVICE",
        help="also devices of this ID that are no GPUs; may be given several times",
    )(command)


#: What `bind` and `unbind` work on.
this_host: Callable[[], Host] = Host
binder: Callable[[Host], Binder] = Binder


def _rules(host: Host, *, away: bool = True) -> tuple[Rules, bool]:
    """Return the rules with what leases and virtual machines are known, and whether libvirt
    told. ``away``: whether a lease counts of which nothing is left but a device on vfio-pci."""
    holders, guests, told = gpus.taken(host, away=away)
    return Rules(host, holders, guests), told


@gpu.command("list")
@_device_option
@root_option("read the files of another host, saved below DIR: sys, proc, dev")
@json_option
def list_devices(extra_ids: Sequence[str], root: Path, as_json: bool) -> None:
    """Show every device that could be handed through, who holds it, and why others are refused.

    \b
    Examples:
      deepops-virtual gpu list
      deepops-virtual gpu list --device 8086:10d3       a network card as well
      deepops-virtual gpu list --root /tmp/dump --json  a saved host, for a script

    As root the programs of other users that have a GPU open are seen, too.
    """
    host = saved_host(root)
    for wanted in map(device_id, extra_ids):
        if not host.with_id(wanted):
            raise UsageProblem(f"This host has no device '{wanted}'.", hint=_lspci(host))
    rules, asked = _rules(host)
    found = candidates(host, rules.holders, extra_ids=extra_ids, guests=rules.guests)
    if as_json:
        click.echo(json.dumps([item.model_dump(mode="json") for item in found], indent=1))
    elif not found:
        click.echo("This host has no GPU and no NVSwitch. Others: --device VENDOR:DEVICE")
    else:
        _show(found, host)
    if host.is_this_host and not asked:
        warning = click.style("warning", fg="yellow")
        click.echo(
            f"{warning}: libvirt does not answer, so what its virtual machines have is not known. "
            "Next: ./setup.sh --check",
            err=True,
        )


def _lspci(host: Host) -> str:
    return "lspci -nn" if host.is_this_host else "on that host: lspci -nn"


def _show(found: Sequence[Candidate], host: Host) -> None:
    table = Table("device", "id", "name", "driver", "group", "state")
    for item in found:
        group = "none" if item.iommu_group is None else str(item.iommu_group)
        texts = item.bdf, item.id, item.name, item.driver or "none", group
        state, colour = _state(item)
        table.add_row(*map(Text, texts), Text(state, colour))
    Console().print(table)
    for text in dict.fromkeys(_told(item) for item in found if item.reason):
        click.echo(text)
    if all(item.iommu_group is None for item in found):
        click.echo(f"Next: {host.reading('doctor --gpu auto')}")


def _state(item: Candidate) -> tuple[str, str]:
    """Return a word and its colour."""
    if item.lease:
        return "leased", "yellow"
    return ("free", "green") if item.assignable else ("refused", "red")


def _told(item: Candidate) -> str:
    """Return the sentence below the table."""
    if item.lease:
        kept = "kept" if item.lease.kept else f"process {item.lease.pid}"
        return f"{item.reason.removesuffix('.')} ({kept})."
    return f"'{item.bdf}' {item.reason}." if item.assignable else item.reason


def _units(host: Host, words: Sequence[str], extra_ids: Sequence[str]) -> list[Unit]:
    """Return the units that these addresses name. Raises UsageProblem."""
    return named_units(host, [Bdf.parse(word) for word in words], units(host, extra_ids))


def _devices(found: Sequence[Unit]) -> list[PciDevice]:
    return [item for unit in found for item in unit.devices]


def _refuse(reason: str, unit: Unit) -> None:
    if reason:
        raise UsageProblem(f"'{unit}' stays as it is. {reason}", hint="deepops-virtual gpu list")


@gpu.command()
@click.argument("bdf", nargs=-1, required=True)
@_device_option
def bind(bdf: Sequence[str], extra_ids: Sequence[str]) -> None:
    """Move devices to vfio-pci until the next reboot, with all functions of their cards.

    \b
    Examples:
      sudo deepops-virtual gpu bind 08:00.0
      sudo deepops-virtual gpu bind 0000:08:00.0 0000:0a:00.0
      sudo deepops-virtual gpu bind --device 8086:10d3 01:00.0      a network card

    A run does not need it: libvirt moves the devices itself, and back. Use it where a driver would
    not let go, and `gpu prepare` for good.
    """
    host = this_host()
    found = _units(host, bdf, extra_ids)
    rules, _ = _rules(host)
    for unit in found:
        _refuse(rules.refusal(unit), unit)
    moved = binder(host).bind(_devices(found))
    for item in _devices(found):
        was = f"was on {item.driver or 'no driver'}" if item.bdf in moved else "as before"
        click.echo(f"{item.bdf}: vfio-pci, {was}")


@gpu.command()
@click.argument("bdf", nargs=-1, required=True)
@_device_option
def unbind(bdf: Sequence[str], extra_ids: Sequence[str]) -> None:
    """Give devices back to the drivers that they had before `gpu bind`, or before a cluster that
    is gone and whose devices did not come back.

    \b
    Example:
      sudo deepops-virtual gpu unbind 08:00.0
    """
    host = this_host()
    found = _units(host, bdf, extra_ids)
    rules, _ = _rules(host, away=False)
    for unit in found:
        _refuse(rules.busy(unit), unit)
    leased_from = Leases(host.root).drivers_before()
    for address, driver in binder(host).unbind(_devices(found), leased_from).items():
        click.echo(f"{address}: {driver or 'no driver'}, as before")
