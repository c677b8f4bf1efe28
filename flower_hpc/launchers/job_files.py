"""The files of batch jobs that submitit wrote: results, logs, and what dead submitters left."""

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

from ..errors import JobFailed
from .attended import ALIVE, is_attended
from .tail import tail

PREFIX = "jobs-"
LONGEST_LINE = 300


def result_file(folder: Path, job_id: str) -> Path:
    """Where submitit leaves the result; it appears there whole."""
    return folder / f"{job_id}_0_result.pkl"


def finished(folder: Path) -> set[str]:
    """Ids of the jobs whose results are there; listing the folder makes NFS look anew."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return {entry.name.partition("_")[0] for entry in entries if entry.name.endswith("_result.pkl")}
    return set()


def read_result(folder: Path, job_id: str) -> Any:
    """What the job returned.

    Raises
    ------
    JobFailed
        It raised an error, or the result cannot be read.
    """
    try:
        with result_file(folder, job_id).open("rb") as file:
            outcome, value = pickle.load(file)
    except Exception as error:  # whatever unpickling leads to
        words = f"{type(error).__name__}: {error}"
        raise JobFailed(f"Slurm job {job_id}: its result cannot be read: {words}") from error
    if outcome != "success":
        lines = [line for line in str(value).splitlines() if line.strip()]
        failed = JobFailed(f"Slurm job {job_id}: {lines[-1] if lines else outcome}")
        failed.add_note(str(value))
        raise failed
    return value


def last_line(folder: Path, job_id: str) -> str:
    """The last that the job wrote; empty if nothing."""
    lines = [line.strip() for line in tail(folder / f"{job_id}_0_log.out", 8192).splitlines() if line.strip()]
    # srun's own last words only repeat the exit code
    said = [line for line in lines if not line.startswith(("srun: ", "submitit "))] or lines
    return said[-1][:LONGEST_LINE] if said else ""


def remove(folder: Path, job_id: str, *, logs: bool) -> None:
    """Remove a job's pickles, which are as large as a model, and perhaps its logs and script."""
    for file in folder.glob(f"{job_id}_*"):
        if logs or file.suffix == ".pkl":
            file.unlink(missing_ok=True)
    for link in folder.glob(".submission_file_*"):  # submitit leaves one to each script
        if not link.exists():
            link.unlink(missing_ok=True)


def abandoned(base: Path, patience_s: float) -> list[Path]:
    """Folders below ``base`` whose submitter is gone, in the order of their last change."""
    with contextlib.suppress(OSError):
        # by name and by content: whatever else lies there is not ours
        found = [folder for folder in base.glob(f"{PREFIX}*") if (folder / ALIVE).exists()]
        gone = [folder for folder in found if not is_attended(folder, patience_s)]
        return sorted(gone, key=lambda folder: folder.stat().st_mtime)
    return []


def jobs_left(folder: Path) -> list[str]:
    """Ids of jobs that may still be there after their submitter was killed."""
    if (folder / ALIVE).stat().st_mtime == 0:  # it left well, or another has looked after them
        return []
    return sorted(file.name.partition("_")[0] for file in folder.glob("[0-9]*_submission.sh"))


def tidy(folders: list[Path], keep: int) -> None:
    """Remove the folders but the last ``keep``, and from those all but logs and scripts."""
    kept = folders[max(0, len(folders) - keep) :]
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        for pickle_file in folder.glob("*.pkl"):
            pickle_file.unlink(missing_ok=True)
