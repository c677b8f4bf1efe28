"""Why a probe did not report: what Slurm says of its job, and what the job printed."""

import re
import time

from ...launchers import JobState, JobStatus
from .finding import Finding, problem, warning
from .probe import Outcome

SHARED_MEND = "shared: a folder that the compute nodes, and a container there, have at the same path"
PYTHON_MEND = "python: a Python that is at this path on the compute nodes; setup and container lead to it"
MENDS = (
    (r"_submitted\.pkl|report\.json", SHARED_MEND),
    (r"No module named|ImportError", "install flower-hpc[slurm] in the Python that `python:` names"),
    (r"[Mm]odule.*(unknown|not found)", "setup: module lines that work in a batch job of this cluster"),
    (r"No such file or directory|not found|execve|[Pp]ermission denied", PYTHON_MEND),
)
OTHERWISE = "setup, container and python must lead to a Python with flower-hpc[slurm] on the nodes"
TELLING = re.compile(r"error|No such file|not found|denied", re.IGNORECASE)
NOISE = re.compile(r"srun: error: \S+: task|.*CANCELLED AT|.*couldn't chdir|submitit (INFO|WARNING)")
"""Where the job's folder is missing on the node, Slurm starts it in another; what ended is no reason."""
LONGEST = 300


def silence(outcome: Outcome) -> Finding:
    """A job without a report: it waits, it hangs, or it could not run."""
    status, log = outcome.status, outcome.log
    if status.refused:
        mend = "change what the reason names, in the site's options"
        return problem("probe job", status.reason, mend)
    if status.state is JobState.PENDING:
        mend = "a longer --timeout waits for it; what else was checked counts"
        return warning("probe job", f"still in the queue: {waiting(status)}", mend)
    words = trouble(log) or last_line(log)
    if status.state is JobState.RUNNING:
        mend = f"setup lines that come to an end; {SHARED_MEND}; or a longer --timeout"
        return problem("probe job", f"it runs on {status.where} without a report. {words}", mend)
    where = status.where or "its node"
    return problem(
        "probe job", f"{status.state} on {where}: {words or f'no log, {status.reason}'}", mend_of_log(log)
    )


def waiting(status: JobStatus) -> str:
    """Why a job waits, and until when."""
    start = status.starts_at
    when = time.strftime("%a %H:%M", time.localtime(start)) if start else "unknown"
    return f"{status.reason or 'no reason yet'}, expected start {when}"


def trouble(log: str) -> str:
    """The last line of a log that tells of something wrong; empty where there is none."""
    return next((line for line in reversed(_lines(log)) if TELLING.search(line)), "")[-LONGEST:]


def last_line(log: str) -> str:
    """The last that was said."""
    return "".join(_lines(log)[-1:])[-LONGEST:]


def mend_of_log(log: str) -> str:
    """What mends a job that ended before it could report."""
    if not log.strip():
        return SHARED_MEND
    text = "\n".join(_lines(log))
    return next((mend for pattern, mend in MENDS if re.search(pattern, text)), OTHERWISE)


def _lines(log: str) -> list[str]:
    lines = (line.strip() for line in log.splitlines())
    return [line for line in lines if line and not NOISE.match(line)]
