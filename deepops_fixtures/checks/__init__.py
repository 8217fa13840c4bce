"""What a tester talks about: one class per noun, in the style of testinfra's modules.

>>> slurm.nodes["virtual-gpu01"].cpus
2
>>> slurm.run("hostname", nodes=2)
"""

from deepops_fixtures.checks.services import Access, Clocks, Munge, Nfs, Rsyslog, Unit, Units
from deepops_fixtures.checks.slurm import Slurm
from deepops_fixtures.checks.slurm_data import AccountingRecord, JobInfo, Partition, SlurmNode
from deepops_fixtures.checks.waiting import wait_until

__all__ = [
    "Access",
    "AccountingRecord",
    "Clocks",
    "JobInfo",
    "Munge",
    "Nfs",
    "Partition",
    "Rsyslog",
    "Slurm",
    "SlurmNode",
    "Unit",
    "Units",
    "wait_until",
]
