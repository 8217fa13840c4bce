"""What a tester talks about: one class per noun, in the style of testinfra's modules.

>>> slurm.nodes["virtual-gpu01"].cpus
2
>>> slurm.run("hostname", nodes=2)
"""

from deepops_fixtures.checks.gpu_census import GpuCensus, GpuJobs, JobView
from deepops_fixtures.checks.gpu_probe import CudaView, NvmlView
from deepops_fixtures.checks.gpu_rules import Verdict, VerdictWarning
from deepops_fixtures.checks.gpu_survey import Device, Survey
from deepops_fixtures.checks.gpus import Gpus
from deepops_fixtures.checks.kube_api import ApiRefused, ApiSilent, ExecResult
from deepops_fixtures.checks.kube_data import KubeJob, KubeNode, Pod
from deepops_fixtures.checks.kube_deepops import DeepopsKubernetes
from deepops_fixtures.checks.kube_gpu_pods import GpuPods
from deepops_fixtures.checks.kube_web import WebServers
from deepops_fixtures.checks.kube_workloads import KubeEvent, Workload
from deepops_fixtures.checks.kubernetes import Kubernetes
from deepops_fixtures.checks.nvidia_smi import NvidiaSmi
from deepops_fixtures.checks.nvidia_smi_data import Gpu, GpuProcess, MigDevice, SmiReport
from deepops_fixtures.checks.services import Access, Clocks, Munge, Nfs, Rsyslog, Unit, Units
from deepops_fixtures.checks.slurm import Slurm
from deepops_fixtures.checks.slurm_data import AccountingRecord, JobInfo, Partition, SlurmNode
from deepops_fixtures.checks.waiting import wait_until
from deepops_fixtures.checks.way_out import WayOut

__all__ = [
    "Access",
    "AccountingRecord",
    "ApiRefused",
    "ApiSilent",
    "Clocks",
    "CudaView",
    "DeepopsKubernetes",
    "Device",
    "ExecResult",
    "Gpu",
    "GpuCensus",
    "GpuJobs",
    "GpuPods",
    "GpuProcess",
    "Gpus",
    "JobInfo",
    "JobView",
    "KubeEvent",
    "KubeJob",
    "KubeNode",
    "Kubernetes",
    "MigDevice",
    "Munge",
    "Nfs",
    "NvidiaSmi",
    "NvmlView",
    "Partition",
    "Pod",
    "Rsyslog",
    "Slurm",
    "SlurmNode",
    "SmiReport",
    "Survey",
    "Unit",
    "Units",
    "Verdict",
    "VerdictWarning",
    "WayOut",
    "WebServers",
    "Workload",
    "wait_until",
]
