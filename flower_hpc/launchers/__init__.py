"""Where processes run: one protocol, one file a scheduler."""

from .base import JobSpec, JobState, Launcher
from .local import LocalLauncher

__all__ = ["JobSpec", "JobState", "Launcher", "LocalLauncher"]
