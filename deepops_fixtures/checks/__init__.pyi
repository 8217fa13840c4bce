from .gpu_census import GpuCensus, GpuJobs, JobView
from .gpu_probe import CudaView, NvmlView
from .gpu_rules import Verdict, VerdictWarning
from .gpu_survey import Device, Survey
from .gpus import Gpus
from .kube_api import ApiRefused, ApiSilent, ExecResult
from .kube_data import KubeJob, KubeNode, Pod
from .kube_deepops import DeepopsKubernetes
from .kube_gpu_pods import GpuPods
from .kube_web import WebServers
from .kube_workloads import KubeEvent, Workload
from .kubernetes import Kubernetes
from .nvidia_smi import NvidiaSmi
from .nvidia_smi_data import Gpu, GpuProcess, MigDevice, SmiReport
from .services import Access, Clocks, Munge, Nfs, Rsyslog, Unit, Units
from .slurm import Slurm
from .slurm_data import AccountingRecord, JobInfo, Partition, SlurmNode
from .waiting import wait_until
from .way_out import WayOut

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
