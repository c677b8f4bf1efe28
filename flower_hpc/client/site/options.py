"""What the environment tells a SuperNode that is a site of many clients."""

import json
import os
import shlex
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from ...errors import ConfigError
from ...protocol import MPI_ENV, SLURM_JOB_ENV, SiteShape

MPIEXEC = ("mpiexec",)
# rank 0 hardly works: it needs no CPU of its own, and the others share all that the job has
SRUN = ("srun", "--mpi=pmi2", "--overlap", "--overcommit", "--cpu-bind=none", "--kill-on-bad-exit=1")


@dataclass(frozen=True, kw_only=True)
class SiteOptions(SiteShape):
    """How many clients a node has, and how their job is started.

    Parameters
    ----------
    launch : str
        The words that start an MPI job, to which ``-n RANKS`` is added, and to ``srun`` the id of the node's
        Slurm job; default ``srun --mpi=pmi2 --overlap ...`` inside a Slurm job, else ``mpiexec``.
    """

    launch: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.launch, str):
            raise ConfigError(f"launch must be words as a shell reads them, got {self.launch!r}")
        try:
            shlex.split(self.launch)
        except ValueError as error:
            raise ConfigError(
                f"launch must be words as a shell reads them ({error}), got {self.launch!r}"
            ) from None

    @classmethod
    def read(cls, text: str) -> Self:
        """From the variable ``FLOWER_HPC_MPI``; ConfigError where that cannot be."""
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{MPI_ENV} must be a JSON object: {error}") from error
        if not isinstance(found, dict):
            raise ConfigError(f"{MPI_ENV} must be a JSON object, got {text!r}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(found.keys() - known):
            raise ConfigError(f"{MPI_ENV} has no {unknown[0]!r}, must be one of: {', '.join(sorted(known))}")
        try:
            return cls(**found)
        except ConfigError as error:
            raise ConfigError(f"{MPI_ENV}: {error}") from None

    @property
    def nodes(self) -> int:
        """To how many a message goes: the clients, or the ranks of the one."""
        return self.workers if self.together else self.clients or 1

    def command(self) -> list[str]:
        """The words that start the job's ranks; ConfigError where there is no such program."""
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get(SLURM_JOB_ENV)
        default = SRUN if job and shutil.which("srun") else MPIEXEC
        words = shlex.split(self.launch) or list(default)
        if shutil.which(words[0]) is None:
            raise ConfigError(f"launch must start with a program of this host, got {words[0]!r}")
        if job and Path(words[0]).name == "srun":
            words.insert(1, f"--jobid={job}")
        return [*words, "-n", str(self.workers + 1)]
