"""One call as a Slurm job through submitit: the script, what of the environment it gets, and refusals."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LaunchError
from ..protocol import OFFLOAD_ENV
from .slurm_queue import said
from .slurm_site import SlurmOptions, parameters, python_command
from .slurm_submit import refusals, remove_new

if TYPE_CHECKING:
    from submitit import SlurmExecutor

# what Slurm sets in a job, and sbatch or the job within would read as meant for it
OF_A_JOB = re.compile(r"(SLURM|SLURMD|SRUN|PMI|PMIX|SUBMITIT)_(?!CONF$).*")
OURS = "FLOWER_HPC_"


def sbatch(
    folder: Path,
    options: SlurmOptions,
    name: str,
    minutes: int,
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
    refused, before = refusals(), set(folder.glob("*"))
    try:
        return str(_executor(folder, options, name, minutes, env).submit(fn, *args, **kwargs).job_id)
    except refused as error:
        remove_new(folder, before)
        raise LaunchError(f"sbatch: {said(str(error))}") from error
    except (OSError, RuntimeError) as error:
        raise LaunchError(f"no job could be submitted: {error}") from error


def _executor(
    folder: Path, options: SlurmOptions, name: str, minutes: int, env: Collection[str]
) -> "SlurmExecutor":
    from submitit import SlurmExecutor

    class Scrubbed(SlurmExecutor):
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            unset = [word for name in os.environ if OF_A_JOB.fullmatch(name) for word in ("-u", name)]
            return ["env", *unset, *super()._make_submission_command(submission_file_path)]

    made = Scrubbed(folder, max_num_timeout=0, max_pickle_size_gb=1000.0, python=python_command(options))
    wanted = parameters(options, name, minutes)
    more = wanted["additional_parameters"]
    more.pop("requeue", None)  # a lost job is replaced by one with less time
    more |= {"no-requeue": True, "export": exported(more["export"], os.environ, env)}
    made.update_parameters(**wanted)
    return made


def exported(names: str, environ: Mapping[str, str], env: Collection[str]) -> str:
    """What a job gets of the environment: a site's list, the variables of this package, and ``env``."""
    ours = sorted(name for name in environ if name.startswith(OURS) and name != OFFLOAD_ENV)
    return ",".join(dict.fromkeys([*names.split(","), *ours, *env]))
