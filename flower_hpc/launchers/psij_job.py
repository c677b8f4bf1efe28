"""What PSI/J is told of a job, and what it says of one: pure translations.

A job's environment, directory, log and setup travel in a shell script of ours, not in PSI/J's own fields:
PSI/J misquotes paths with spaces, sets neither environment nor directory under Flux, and leaves no exit code
for a process that finds the job again later. https://exaworks.org/psij-python
"""

import re
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, LaunchError
from .base import JobSpec, JobState, JobStatus
from .filled import command

if TYPE_CHECKING:
    import psij

EXECUTORS = ("local", "slurm", "pbs", "pbs_classic", "lsf", "flux")
PREFIXES = {"slurm": "slurm", "pbs": "pbs", "pbs_classic": "pbs", "lsf": "lsf"}
"""What the names of an executor's own attributes begin with; the others have none."""

NAMES = {"slurm": "slurm.job-name", "pbs": "pbs.N", "pbs_classic": "pbs.N", "lsf": "lsf.J"}
"""PSI/J's templates look for the job's name in a place where it never is."""

COUNTS_PROCESSES = frozenset({"pbs", "pbs_classic", "lsf"})
"""PSI/J asks these for processes alone: a job's CPUs are given as so many, of which it starts one."""

STATES = {
    "NEW": JobState.PENDING,
    "QUEUED": JobState.PENDING,
    "ACTIVE": JobState.RUNNING,
    "COMPLETED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "CANCELED": JobState.CANCELLED,
}
NOT_ASKED = JobStatus(JobState.PENDING, "the scheduler has not answered yet")
TIME_IS_UP = "exhausted its time limit"  # PSI/J's words for Slurm's TimeLimit
TRANSIENT = re.compile(r"contact|connect|tim(ed?|ing) ?out|temporar|try again|is down", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class PsijOptions:
    """What jobs of a site ask of its scheduler, in PSI/J's terms.

    Parameters
    ----------
    executor : str
        One of :data:`EXECUTORS`; ``pbs`` is PBS Pro and OpenPBS, ``pbs_classic`` Torque.
    folder : Path
        Absolute, and shared by this host and the nodes: scripts, exit codes, and what was started.
    queue, account, reservation : str
        Where the job goes and who pays; default the scheduler's own.
    minutes : int
        Its time limit; default 60.
    cpus, gpus : int
        Of one job; default 1 and 0.
    mem_gb : float, optional
        Memory of one job in GiB; default the scheduler's own. Flux is not told.
    setup : tuple of str
        Lines of shell that come before the command, such as ``module load cuda``; default none.
    attributes : mapping of str to str
        More of the scheduler's directives, such as ``{"pbs.l": "place=excl"}``; default none.
    poll_s : int
        Seconds between two questions to the scheduler; default 10.

    Raises
    ------
    ConfigError
        An executor, a number or a text that cannot work.
    """

    executor: str
    folder: Path
    queue: str = ""
    account: str = ""
    reservation: str = ""
    minutes: int = 60
    cpus: int = 1
    gpus: int = 0
    mem_gb: float | None = None
    setup: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    poll_s: int = 10

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise ConfigError(f"executor must be one of {', '.join(EXECUTORS)}, got {self.executor!r}")
        if not self.folder.is_absolute():
            raise ConfigError(f"folder must be an absolute path, got {str(self.folder)!r}")
        self._check_numbers()
        self._check_texts()

    def _check_numbers(self) -> None:
        for name, least in (("minutes", 1), ("cpus", 1), ("gpus", 0), ("poll_s", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.mem_gb is not None and self.mem_gb <= 0:
            raise ConfigError(f"mem_gb must be above 0, got {self.mem_gb}")
        if self.gpus and self.executor == "pbs":
            raise ConfigError("PSI/J asks PBS Pro for no GPUs: name a queue that has them, with gpus=0")
        if self.gpus and self.executor == "lsf" and self.cpus > 1:
            raise ConfigError("PSI/J counts LSF's GPUs by CPU: gpus=0 and attributes={'lsf.gpu': 'num=...'}")

    def _check_texts(self) -> None:
        prefix = PREFIXES.get(self.executor)
        for key in self.attributes:
            if prefix is None or not re.fullmatch(rf"{prefix}\.[\w-]+", key):
                allowed = f"{prefix}.NAME" if prefix else f"none for {self.executor}"
                raise ConfigError(f"attributes must be {allowed}, got {key!r}")
        texts = {"folder": str(self.folder), "queue": self.queue, "account": self.account}
        for name, text in (texts | {"reservation": self.reservation} | dict(self.attributes)).items():
            if text and shlex.quote(text) != text:
                raise ConfigError(f"PSI/J cannot quote what is unsafe in a shell: {name} is {text!r}")


def script(spec: JobSpec, options: PsijOptions, exit_file: Path) -> str:
    """The shell script that runs ``spec`` on a node and leaves its exit code in ``exit_file``.

    Raises
    ------
    LaunchError
        A variable's name that no shell takes.
    """
    odd = next((key for key in spec.env if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key)), None)
    if odd is not None:
        raise LaunchError(f"{spec.name} cannot be started: no shell takes a variable called {odd!r}")
    log, cwd, code = (shlex.quote(str(path.absolute())) for path in (spec.log, spec.cwd, exit_file))
    lines = [
        "#!/bin/bash",
        # 3 is a pipe of PSI/J's, which would wait for all that holds it
        f"exec 3>&- </dev/null >>{log} 2>&1",
        f"rm -f {code}",
        "trap : TERM USR2",  # the shell stays, and tells how the command, which gets them too, has ended
        "(",
        *options.setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in sorted(spec.env.items())),
        f"mkdir -p {cwd} && cd {cwd} && exec {shlex.join(command(spec))}",
        ")",
        "code=$?",
        f'echo "$code" >{code}.part && mv {code}.part {code}',
        'exit "$code"',
    ]
    return "\n".join((*lines, ""))


def request(name: str, program: Path, options: PsijOptions) -> "psij.JobSpec":
    """Our words for a job whose script is ``program``, in PSI/J's."""
    import psij

    return psij.JobSpec(
        executable="/bin/bash",
        arguments=[str(program)],
        name=name,
        resources=resources(options),
        attributes=psij.JobAttributes(
            duration=timedelta(minutes=options.minutes),
            queue_name=options.queue or None,
            account=options.account or None,
            reservation_id=options.reservation or None,
            custom_attributes=attributes(name, options),
        ),
    )


def resources(options: PsijOptions) -> "psij.ResourceSpecV1":
    """What one job needs of a node."""
    import psij

    memory = None if options.mem_gb is None else int(options.mem_gb * 2**30)
    gpus = options.gpus or None
    if options.executor in COUNTS_PROCESSES:
        return psij.ResourceSpecV1(
            node_count=1, processes_per_node=options.cpus, gpu_cores_per_process=gpus, memory=memory
        )
    return psij.ResourceSpecV1(
        process_count=1, cpu_cores_per_process=options.cpus, gpu_cores_per_process=gpus, memory=memory
    )


def attributes(name: str, options: PsijOptions) -> dict[str, object]:
    """The scheduler's own directives, the job's name among them."""
    key = NAMES.get(options.executor)
    named: dict[str, object] = {key: plain(name)} if key else {}
    return named | dict(options.attributes)


def plain(name: str) -> str:
    """``name`` for queues and files: letters, digits, and few others."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name) or "job"


def read_status(told: "psij.JobStatus", code: int | None, asked: bool) -> JobStatus:
    """PSI/J's words for a job, in ours.

    Parameters
    ----------
    told : psij.JobStatus
        What PSI/J says.
    code : int, optional
        The exit code, where the job left one: it is known before PSI/J asks again.
    asked : bool
        Whether it was asked to stop before it ended: then it counts as cancelled.
    """
    state, reason = STATES[str(told.state)], one_line(told.message or "")
    if code is None and not state.final:
        return JobStatus(state, reason)
    if asked:
        return JobStatus(JobState.CANCELLED, reason)
    if code is not None:
        # somebody sent it away: the scheduler, which preempts so too, or a person
        failed = JobState.CANCELLED if code == 128 + signal.SIGTERM else JobState.FAILED
        return JobStatus(failed, ending(code)) if code else JobStatus(JobState.SUCCEEDED)
    if TIME_IS_UP in reason:
        return JobStatus(JobState.TIMEOUT, reason)
    if state is JobState.SUCCEEDED:  # what a queue has forgotten, PSI/J takes for completed
        return JobStatus(JobState.FAILED, "it ended without an exit code: killed, or its node was lost")
    return JobStatus(state, reason)


def ending(code: int) -> str:
    """What an exit code of a shell says; above 128 it is the signal that ended the program."""
    try:
        return f"killed by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"exit code {code}"


def one_line(text: str) -> str:
    """The words of a command that failed, each line once and without its prefixes."""
    lines = (line.split("error:", 1)[-1].strip() for line in text.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))
