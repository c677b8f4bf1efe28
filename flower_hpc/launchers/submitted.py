"""One call as a Slurm job through submitit: the script, what of the environment it gets, and refusals."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LaunchError
from .slurm_queue import said
from .slurm_site import SlurmOptions, interpreter, parameters

if TYPE_CHECKING:
    from submitit import SlurmExecutor

SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE|AUTH)_?KEY", re.I)
# what Slurm sets in a job, which would be read by sbatch or by the job within as its own
OF_A_JOB = re.compile(r"(SLURM|SRUN|PMI|PMIX)_(?!CONF$).*|SLURMD_.*|SUBMITIT_.*|.*_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL")


def sbatch(
    folder: Path,
    options: SlurmOptions,
    name: str,
    minutes: int | None,
    env: Collection[str],
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> str:
    """Submit ``fn(*args, **kwargs)`` and return the job's id.

    Raises
    ------
    LaunchError
        In one line, with sbatch's own words.
    """
    try:
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError as error:
        raise LaunchError("Slurm jobs need submitit: pip install 'flower-hpc[slurm]'") from error
    before = set(folder.iterdir())
    try:
        return str(_executor(folder, options, name, minutes, env).submit(fn, *args, **kwargs).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        for file in set(folder.iterdir()) - before:  # it leaves them there
            file.unlink(missing_ok=True)
        raise LaunchError(f"sbatch: {said(str(error))}") from error
    except (OSError, RuntimeError) as error:
        raise LaunchError(f"no job could be submitted: {error}") from error


def _executor(
    folder: Path, options: SlurmOptions, name: str, minutes: int | None, env: Collection[str]
) -> "SlurmExecutor":
    from submitit import SlurmExecutor

    class Scrubbed(SlurmExecutor):
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            # of this one process: submitit itself hands all of it over
            unset = [word for name in withheld(os.environ, env) for word in ("-u", name)]
            return ["env", *unset, *super()._make_submission_command(submission_file_path)]

    made = Scrubbed(folder, max_num_timeout=0, max_pickle_size_gb=1000.0, python=interpreter(options))
    wanted = parameters(options, job_name=name, minutes=minutes)
    # a job that is lost is replaced by one with less time, not requeued with the same
    wanted["additional_parameters"] = {"no-requeue": True, **wanted.get("additional_parameters", {})}
    wanted["signal_delay_s"] = min(60, wanted["time"] * 60 // 4)
    made.update_parameters(**wanted)
    return made


def withheld(environ: Mapping[str, str], env: Collection[str]) -> list[str]:
    """Variables that a job does not get: an enclosing job's, and what looks like a secret but for ``env``."""
    hidden = (name for name in environ if OF_A_JOB.fullmatch(name) or SECRET.search(name))
    return sorted(name for name in hidden if name not in env)
