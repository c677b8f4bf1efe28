"""What a job asks of a Slurm site, and its translation for submitit."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """Resources and place of a job.

    Parameters
    ----------
    folder : Path
        On a file system that login and compute nodes share.
    partition, account, qos, constraint, reservation : str, optional
        As sbatch's; default the site's.
    minutes : int
        Time limit, >= 1; default 60.
    cpus : int
        Cores, >= 1; default 1.
    mem : str, optional
        Memory, such as ``16G``; default the site's.
    gpus : str or int, optional
        ``2`` or ``a100:1``; default none.
    setup : tuple of str
        Lines of shell before the job's command; default none.
    container : str, optional
        A command that runs what follows it in a container; default none.
    options : mapping of str to str
        Other long options of sbatch; default none.
    python : str, optional
        The interpreter; default this one.
    """

    folder: Path
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    minutes: int = 60
    cpus: int = 1
    mem: str | None = None
    gpus: str | int | None = None
    setup: tuple[str, ...] = ()
    container: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None

    def __post_init__(self) -> None:
        for name in ("minutes", "cpus"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ConfigError(f"{name} must be a whole number >= 1, got {value!r}")


def parameters(options: SlurmOptions, *, job_name: str, minutes: int | None = None) -> dict[str, Any]:
    """For the ``update_parameters`` of submitit's SlurmExecutor."""
    wanted = {
        "job_name": job_name,
        "time": minutes or options.minutes,
        "cpus_per_task": options.cpus,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus,
        # since 22.05 srun does not take it over from sbatch
        "setup": ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK", *options.setup],
    }
    more = {"mem": options.mem, "reservation": options.reservation}
    additional = {k: v for k, v in more.items() if v} | dict(options.options)
    return {k: v for k, v in wanted.items() if v is not None} | {"additional_parameters": additional}


def interpreter(options: SlurmOptions) -> str:
    """The command line that starts Python."""
    return " ".join(filter(None, (options.container, options.python or shlex.quote(sys.executable))))
