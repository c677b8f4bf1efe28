"""The parts of the Kubernetes launcher: what is asked for, as which objects, through which calls."""

from .options import KubernetesOptions, Standing, Volume

__all__ = ["KubernetesOptions", "Standing", "Volume"]
