"""Where processes run: one protocol, one file a scheduler."""

from .base import Found, JobSpec, JobState, JobStatus, Launcher
from .k8s import KubernetesOptions
from .kubernetes import KubernetesLauncher
from .local import LocalLauncher
from .slurm import SlurmLauncher
from .slurm_site import SlurmOptions

__all__ = [
    "Found",
    "JobSpec",
    "JobState",
    "JobStatus",
    "KubernetesLauncher",
    "KubernetesOptions",
    "Launcher",
    "LocalLauncher",
    "SlurmLauncher",
    "SlurmOptions",
]
