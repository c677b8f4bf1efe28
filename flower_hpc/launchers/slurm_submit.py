"""The thin call: pilots to sbatch through submitit, and the files that this leaves."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LaunchError
from .pilot import Pilot
from .slurm_queue import said
from .slurm_site import SlurmOptions, parameters, python_command

if TYPE_CHECKING:
    import submitit


def submit(options: SlurmOptions, job_name: str, pilots: Sequence[Callable[[], str]]) -> list[str]:
    """Slurm's ids of the jobs, in order; several pilots, or whatever else is called there, become one array.

    Raises
    ------
    LaunchError
        What sbatch said, in one line; or the shared folder cannot be written.
    """
    refused, before = refusals(), set(options.folder.glob("*"))
    try:
        executor = executor_for(options, job_name, len(pilots))
        with executor.batch():
            jobs = [executor.submit(pilot) for pilot in pilots]
        for path in options.folder.glob("*submission*.sh"):
            path.unlink(missing_ok=True)  # sbatch has its own copy
        return [job.job_id for job in jobs]
    except refused as error:
        remove_new(options.folder, before)
        raise LaunchError(f"Slurm refused {job_name}: {_words(error)}") from error
    except OSError as error:
        raise LaunchError(f"{error.filename or options.folder}: {error.strerror or error}") from error
    except RuntimeError as error:  # submitit: no srun on PATH
        raise LaunchError(f"no Slurm here: {error}") from error


def refusals() -> tuple[type[Exception], ...]:
    """What submitit raises where sbatch refuses; LaunchError where submitit is missing."""
    try:
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError as error:
        raise LaunchError("Slurm jobs need submitit: pip install 'flower-hpc[slurm]'") from error
    return FailedJobError, FailedSubmissionError


def remove_new(folder: Path, before: Collection[Path]) -> None:
    """Remove what submitit wanted to submit, and leaves."""
    for path in set(folder.glob("*")) - set(before):
        if path.is_file():
            path.unlink(missing_ok=True)


def executor_for(options: SlurmOptions, job_name: str, count: int = 1) -> "submitit.SlurmExecutor":
    """The executor of submitit with a site's parameters."""
    import submitit

    executor = submitit.SlurmExecutor(options.folder, python=python_command(options))
    executor.update_parameters(**parameters(options, job_name), array_parallelism=count)
    return executor


def script(options: SlurmOptions, job_name: str, pilot: Pilot) -> str:
    """The sbatch file that :func:`submit` would send, with the SuperNode's command as a comment."""
    return f"{batch_file(options, job_name)}\n# which runs: {' '.join(pilot.spec.command)}"


def batch_file(options: SlurmOptions, job_name: str) -> str:
    """The sbatch file of a job with a site's options, whatever it runs."""
    refusals()
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{python_command(options)} -u -m submitit.core._submit {options.folder}"
    text: str = _make_sbatch_string(command=command, folder=options.folder, **parameters(options, job_name))
    return text.rstrip()


def files_of(folder: Path, job: str) -> list[Path]:
    """What submitit and Slurm wrote for a job, its log first."""
    return [
        folder / f"{job}_0_log.out",
        folder / f"{job}_submitted.pkl",
        folder / f"{job}_0_result.pkl",
        folder / f"{job}_submission.sh",
    ]


def remove_files(folder: Path, job: str) -> None:
    """Remove a job's files."""
    for path in files_of(folder, job):
        path.unlink(missing_ok=True)


def _words(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    found = [line for line in text.splitlines() if "error:" in line]
    return said("\n".join(found)) or said(text)
