"""Who holds an IOMMU group: plain data that the lease files hold and the lists show."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Holder(BaseModel):
    """The owner of a lease, as written into its file."""

    model_config = ConfigDict(frozen=True)

    #: Name of the cluster instance.
    instance: str
    user: str
    #: The process that took the lease, and when that started (clock ticks since the boot):
    #: together they are unique.
    pid: int
    process_started: int
    #: When the lease was taken, epoch seconds.
    since: float
    #: Addresses, as in '0000:08:00.0', of what is handed through.
    bdfs: tuple[str, ...] = ()
    #: Names of the libvirt domains that get them.
    domains: tuple[str, ...] = ()
    #: Whether the lease outlives the process, for a cluster that is left running.
    kept: bool = False
    #: The driver that each device had before, by address; "" for none.
    drivers: dict[str, str] = {}

    def __str__(self) -> str:
        if not self.instance:
            return "a process that left no record of itself"
        return f"cluster '{self.instance}' of user '{self.user}' since {self.since_text}"

    @property
    def since_text(self) -> str:
        """The moment in local time, to the minute."""
        return f"{datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M}"
