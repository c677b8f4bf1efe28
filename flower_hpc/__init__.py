"""flower-hpc: Flower federations across Slurm clusters, clouds and workstations.

The parts are imported by name (``flower_hpc.strategies``, ``flower_hpc.client``, ...), so that importing
the package itself costs nothing.
"""

__version__ = "0.1.0"
