"""Whether a node reaches anything beyond the host that it runs on: what an airgapped cluster must
not.

Asked is an address that is nobody's (RFC 5737) and a name that is kept for examples (RFC 2606);
``remote/way_out.py`` says what is sent. Not for how a network is closed: that is
``cluster.networks``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from deepops_fixtures.checks import remote_probe
from deepops_fixtures.checks.remote.way_out import LOOK_UP, MARK

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: An address of TEST-NET-1, and a port; a name of the reserved second-level domains.
ADDRESS, PORT, NAME = "192.0.2.1", 443, "example.com"
#: Seconds after which what has no way to go has failed, on an emulated node too.
AT_ONCE = 2.0
#: Seconds that the probe may take.
PATIENCE = 90
#: How connect(2) ends where the kernel knows no route, or one that leads nowhere (ip-route(8)).
_NO_WAY = frozenset({"ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL"})


class WayOut(BaseModel):
    """What one node has of ways out of its network.

    >>> WayOut.of(node).leaks
    ['it has a default route: default via 10.87.1.1 dev eth0']
    """

    model_config = ConfigDict(frozen=True)

    #: As ip-route(8) writes them, of every table.
    default_routes: tuple[str, ...]
    #: How a packet to ``ADDRESS`` would leave, '' for not at all.
    way: str
    #: How connecting there ended: '' for a connection, else the error's name (errno(3)).
    connection: str
    connection_seconds: float
    #: Who is asked for names, this node's own resolver aside.
    name_servers: tuple[str, ...]
    #: What ``NAME`` resolves to.
    addresses: tuple[str, ...]
    look_up_seconds: float
    #: The host's address as the node knows it, and whether it answers.
    host: str
    host_answers: bool

    @classmethod
    def of(cls, node: Node) -> WayOut:
        """Look at a node. Raises CheckFailed when the probe does not run there."""
        __tracebackhide__ = True
        words = (ADDRESS, str(PORT), NAME)
        found = remote_probe.ask(node, "way_out", MARK, words, PATIENCE, "The look for ways out")
        return cls.model_validate(found)

    @property
    def leaks(self) -> list[str]:
        """What is against the node reaching its host alone, a sentence each."""
        found = [f"it has a default route: {route}" for route in self.default_routes]
        target = f"{ADDRESS}:{PORT}"
        took = f"after {self.connection_seconds:.1f} s"
        if not self.connection:
            found.append(f"a connection to {target} came about{self._by}")
        elif self.way or self.connection not in _NO_WAY:
            found.append(
                f"a packet to {target} leaves the node{self._by}: connecting ended with "
                f"{self.connection} {took}"
            )
        elif self.connection_seconds >= AT_ONCE:
            found.append(f"connecting to {target} failed {took} and not at once")
        asked = f"; it asks {', '.join(self.name_servers)}" if self.name_servers else ""
        if self.addresses:
            found.append(f"'{NAME}' resolves to {', '.join(self.addresses)}{asked}")
        elif self.look_up_seconds >= LOOK_UP / 2:
            found.append(
                f"looking '{NAME}' up took {self.look_up_seconds:.1f} s, so that somebody was "
                f"waited for{asked}"
            )
        if not self.host_answers:
            who = f"its host, {self.host}," if self.host else "its host, of unknown address,"
            found.append(f"{who} does not answer either: that it reaches nobody proves nothing")
        return found

    @property
    def _by(self) -> str:
        return f" ({self.way})" if self.way else ""
