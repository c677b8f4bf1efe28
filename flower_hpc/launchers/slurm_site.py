"""What a site asks of sbatch, and its translation into submitit's parameters; touches no cluster."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError

DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
GPUS = re.compile(r"(?:[A-Za-z0-9_.-]+:)?[1-9][0-9]*")
MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?B?")
ENVIRONMENT = (
    "BASH_ENV,CONDA_EXE,HOME,LANG,LC_ALL,LD_LIBRARY_PATH,LMOD_CMD,LMOD_DIR,LMOD_PKG,LOGNAME,MODULEPATH,"
    "MODULESHOME,PATH,SHELL,SLURM_CONF,SSL_CERT_DIR,SSL_CERT_FILE,TZ,USER"
)
"""What a job gets of the environment that it is submitted from; the rest, with its secrets, stays there."""


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What a site asks of sbatch.

    Parameters
    ----------
    folder : Path
        For job files; shared between this machine and the compute nodes.
    partition, account, qos, constraint, reservation : str, optional
        As in sbatch; default: the cluster's own.
    minutes : int
        Time limit; default 60.
    cpus : int
        Per node of the federation; default 1.
    mem : str, optional
        Such as ``16G``; default: the cluster's own.
    gpus : str, optional
        ``2``, or with a type ``a100:1``; default none.
    setup : tuple of str
        Lines of bash before Python starts, such as ``module load python``; default none.
    container : str, optional
        What Python runs in: a command such as ``apptainer exec --nv image.sif``, or options of srun, such as
        Pyxis' ``--container-image=image.sqsh``; default none.
    options : mapping of str to str
        More of sbatch's long options, without ``--``; an empty value is a switch. Default none.
    python : str, optional
        The Python on the compute nodes; default: this one, which is right where the disk is shared.
    lead_s : int
        Seconds before the time limit at which a job is told to hand in; default 120, at most a third of it.
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
    gpus: str | None = None
    setup: tuple[str, ...] = ()
    container: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    lead_s: int = 120

    def __post_init__(self) -> None:
        for name, least in (("minutes", 1), ("cpus", 1), ("lead_s", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be an integer >= {least}, got {value!r}")
        if self.gpus is not None and not GPUS.fullmatch(str(self.gpus)):
            raise ConfigError(f"gpus must be a number, or TYPE:NUMBER such as a100:1, got {self.gpus!r}")
        if self.mem is not None and not MEMORY.fullmatch(self.mem):
            raise ConfigError(f"mem must be a size such as 16G, got {self.mem!r}")

    @property
    def signal_s(self) -> int:
        """Seconds before the time limit at which the signal comes."""
        return signal_s(self.lead_s, self.minutes)


def signal_s(lead_s: int, minutes: int) -> int:
    """Seconds before the time limit at which a job is told to hand in: at most a third of it."""
    return min(lead_s, minutes * 20)


def minutes_of(text: str | int) -> int:
    """A time in Slurm's forms, in whole minutes, rounded up.

    Minutes, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` or ``D-HH:MM:SS``.

    Raises
    ------
    ValueError
        It is none of these, or zero.
    """
    found = DURATION.fullmatch(str(text).strip())
    if not found:
        raise ValueError(text)
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is not None:  # the first is hours
        seconds = days * 86400 + first * 3600 + (second or 0) * 60 + (third or 0)  # type: ignore[operator]
    elif third is not None:
        seconds = first * 3600 + second * 60 + third  # type: ignore[operator]
    else:
        seconds = first * 60 + (second or 0)  # type: ignore[operator]
    if not seconds:
        raise ValueError(text)
    return -(-seconds // 60)


def parameters(options: SlurmOptions, job_name: str, minutes: int | None = None) -> dict[str, Any]:
    """The keyword arguments of submitit's ``SlurmExecutor.update_parameters``."""
    more: dict[str, Any] = {"requeue": True, "export": ENVIRONMENT}
    if options.reservation:
        more["reservation"] = options.reservation
    more |= {key: value or True for key, value in options.options.items()}
    # since Slurm 22.05 srun does not take this over from sbatch
    srun = [f"--cpus-per-task={options.cpus}"]
    if options.container and options.container.startswith("-"):
        srun += options.container.split()
    wanted = {
        "job_name": job_name,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "time": minutes or options.minutes,
        "ntasks_per_node": 1,
        "cpus_per_task": options.cpus,
        "mem": options.mem,
        "gres": f"gpu:{options.gpus}" if options.gpus else None,
        "setup": setup_lines(options.setup),
        "signal_delay_s": signal_s(options.lead_s, minutes or options.minutes),
        "stderr_to_stdout": True,
        "srun_args": srun,
        "additional_parameters": more,
    }
    # submitit's own key would be refused where keys are tracked
    return {key: value for key, value in wanted.items() if value is not None} | {"wckey": None}


def setup_lines(lines: tuple[str, ...]) -> list[str]:
    """What a job does before Python starts."""
    # srun would pass on only what sbatch was told to, and not what these lines set
    first = ["export SLURM_EXPORT_ENV=ALL"]
    if any(line.split()[:1] in (["module"], ["ml"]) for line in lines):
        first.append("type module >/dev/null 2>&1 || . /etc/profile")
    return [*first, *lines]


def python_command(options: SlurmOptions) -> str:
    """How Python is started on the compute nodes, for a shell."""
    python = options.python or sys.executable
    prefix = options.container if options.container and not options.container.startswith("-") else None
    return f"{prefix} {python}" if prefix else python
