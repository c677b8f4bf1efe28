"""What the doctor checks of a Slurm site without a job: what sbatch, scontrol and sinfo tell."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from ...errors import LaunchError
from ...launchers import SlurmOptions
from ...launchers.slurm_cluster import Nodes, accounts, limit_minutes, nodes, partitions, settings, walls
from ...launchers.slurm_queue import COMMAND_S, Run, said
from ...launchers.slurm_submit import batch_file
from .finding import Finding, ok, problem, warning
from .folders import borrowed, filesystem, is_local

COMMANDS = ("sbatch", "srun", "squeue", "scancel")
LEAST_KILL_WAIT_S = 10
STARTS = re.compile(r"to start at (\S+) using (\d+) processors on nodes (\S+)")
MENDS = (
    (r"account", "account: one of {accounts}"),  # Slurm says "account or account/partition combination"
    (r"partition", "partition: one of {partitions}"),
    (r"qos", "qos: one of {qos}"),
    (r"feature|constraint", "constraint: features that `sinfo -o '%N %f'` shows"),
    (r"reservation", "reservation: one that `scontrol show reservation` shows, or none"),
    (r"time limit", "time: at most {limit}"),
    (r"memory|node configuration|cpu count|gres", "cpus, mem, gpus and partition must fit one node: {nodes}"),
    (r"unrecognized option|invalid option", "options: long options of this cluster's sbatch, without '--'"),
)


def commands() -> Finding:
    """Whether this is a host from which jobs can be submitted."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if not missing:
        return ok("Slurm's commands", str(Path(shutil.which("sbatch") or "").parent))
    mend = "run this on a login node of the cluster; where Slurm is a module: module load slurm"
    return problem("Slurm's commands", f"not on PATH: {', '.join(missing)}", mend)


def submitit() -> Finding:
    """Whether the library that submits is there."""
    if importlib.util.find_spec("submitit") is None:
        return problem("submitit", "not installed", "pip install 'flower-hpc[slurm]'")
    return ok("submitit", version("submitit"))


def controller(run: Run) -> Finding:
    """Whether Slurm answers."""
    try:
        run(("squeue", "-h", "-u", str(os.getuid()), "-o", "%i"))
    except LaunchError as error:
        mend = "try `squeue` by hand: a login node, the right SLURM_CONF, or patience until slurmctld is back"
        return problem("Slurm answers", str(error), mend)
    return ok("Slurm answers", "squeue does")


class Cluster:
    """What a site's checks read of the cluster, once.

    Parameters
    ----------
    options : SlurmOptions
        What the site asks for.
    run : callable
        Runs Slurm's commands.
    """

    def __init__(self, options: SlurmOptions, run: Run) -> None:
        self.options, self.user = options, user_name()
        self.partitions = partitions(run)
        wanted = options.partition.split(",") if options.partition else self._default()
        self.chosen = [name for name in wanted if name in self.partitions]
        self.unknown = [name for name in wanted if name not in self.partitions]
        self.settings = settings(run)
        self.nodes = nodes(run, self.chosen) if self.chosen else []
        self.accounts = accounts(run, self.user)
        enforced = re.search("limits|safe", self.settings.get("AccountingStorageEnforce", ""))
        self.walls = walls(run, self.user, options) if enforced else {}

    def _default(self) -> list[str]:
        return [name for name, each in self.partitions.items() if each.get("Default") == "YES"]

    def words(self) -> dict[str, str]:
        """For what mends."""
        qos = self.accounts.get(self.options.account or "") or set().union(*self.accounts.values())
        limits = [self.partitions[name].get("MaxTime", "?") for name in self.chosen]
        return {
            "partitions": ", ".join(self.partitions) or "those of `sinfo`",
            "accounts": ", ".join(sorted(self.accounts)) or "those of `sacctmgr show assoc user=$USER`",
            "qos": ", ".join(sorted(qos)) or "those of `sacctmgr show assoc user=$USER format=account,qos`",
            "limit": ", ".join(limits) or "the partition's MaxTime",
            "nodes": offered(self.nodes),
        }


def examine_cluster(cluster: Cluster, job_name: str) -> Iterator[Finding]:
    """What can be known of the site's jobs before one is submitted."""
    yield partition(cluster)
    if cluster.nodes:
        yield size(cluster)
    if cluster.chosen:
        yield time_limit(cluster)
        yield from preemption(cluster)
    yield kill_wait(cluster.settings)
    yield request(cluster, job_name)


def partition(cluster: Cluster) -> Finding:
    """Whether the partition exists and takes jobs."""
    mend = f"partition: one of {cluster.words()['partitions']}"
    if cluster.unknown:
        return problem("partition", f"{', '.join(cluster.unknown)} does not exist", mend)
    if not cluster.chosen:
        return problem("partition", "none is given, and the cluster has no default", mend)
    states = {name: cluster.partitions[name].get("State", "UP") for name in cluster.chosen}
    closed = [f"{name} is {state}" for name, state in states.items() if state != "UP"]
    if len(closed) == len(states):
        return problem("partition", ", ".join(closed), f"wait until it is UP again, or {mend}")
    return ok("partition", f"{', '.join(cluster.chosen)} is up")


def size(cluster: Cluster) -> Finding:
    """Whether a node of the partition has what a job asks for."""
    lacks = [each.lacks(cluster.options) for each in cluster.nodes]
    fits = [each for each, lack in zip(cluster.nodes, lacks, strict=True) if not lack]
    if not fits:
        lack = " or ".join(dict.fromkeys(lacks))
        mend = f"cpus, mem and gpus must fit one node: {offered(cluster.nodes)}"
        return problem("nodes", f"no node of {', '.join(cluster.chosen)} is large enough: {lack}", mend)
    usable = sum(each.count for each in fits if each.usable)
    if not usable:
        states = ", ".join(sorted({each.state for each in fits}))
        return warning("nodes", f"all that are large enough are {states}", "wait, or take another partition")
    idle = sum(each.count for each in fits if each.usable and each.state.startswith("idle"))
    return ok("nodes", f"{usable} are large enough, {idle} of them idle")


def offered(found: list[Nodes]) -> str:
    """What the nodes of a partition have, for people."""
    if not found:
        return "see `sinfo -N -o '%N %c %m %G'`"
    kinds = dict.fromkeys(
        " ".join((f"{each.cpus} CPUs,", f"{each.mem_mb:.0f} MB,", _gpus(each.gpus))) for each in found
    )
    return "; ".join(kinds)


def time_limit(cluster: Cluster) -> Finding:
    """Whether the time fits the limits, above which a job waits for ever."""
    minutes = cluster.options.minutes
    each = {name: limit_minutes(cluster.partitions[name].get("MaxTime", "")) for name in cluster.chosen}
    above = {name: limit for name, limit in each.items() if limit is not None and limit < minutes}
    tight = {f"partition {name}": limit for name, limit in above.items() if len(above) == len(each)}
    tight |= {whose: limit for whose, limit in cluster.walls.items() if limit < minutes}
    if not tight:
        return ok("time", f"{minutes} minutes are within the limits")
    words = ", ".join(f"{limit} of {whose}" for whose, limit in tight.items())
    mend = f"time: {min(tight.values())} or less; jobs that end are submitted again"
    return problem("time", f"{minutes} minutes are above the {words}: it would wait for ever", mend)


def kill_wait(settings: Mapping[str, str]) -> Finding:
    """Whether a cancelled job has time to hand its work in."""
    found = re.match(r"\d+", settings.get("KillWait", ""))
    seconds = int(found[0]) if found else None
    if seconds is None:
        return ok("KillWait", "the cluster does not say; 30 s is Slurm's default")
    if seconds < LEAST_KILL_WAIT_S:
        mend = "nothing to do but by the administrators; work of cancelled jobs is done again"
        return warning("KillWait", f"{seconds} s: a cancelled job has no time to hand its work in", mend)
    return ok("KillWait", f"{seconds} s")


def preemption(cluster: Cluster) -> Iterator[Finding]:
    """What a job of higher priority does to one of this site."""
    if cluster.settings.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        return
    modes = {name: cluster.partitions[name].get("PreemptMode", "OFF") for name in cluster.chosen}
    risky = [name for name, mode in modes.items() if mode != "OFF"]
    if not risky:
        yield ok("preemption", "not in this partition")
        return
    grace = ", ".join(cluster.partitions[name].get("GraceTime", "0") for name in risky)
    words = f"jobs in {', '.join(risky)} may give way to others ({modes[risky[0]]}), after {grace} s of grace"
    mend = "none is needed: nodes come back by themselves; a partition with PreemptMode=OFF is calmer"
    yield warning("preemption", words, mend)


def request(cluster: Cluster, job_name: str) -> Finding:
    """What sbatch itself says of a job with the site's options, which it does not submit."""
    words, taken = asked_of_sbatch(cluster.options, job_name)
    if not taken:
        found = said(words)
        return problem("sbatch", found, mend_of(found, cluster.words()))
    when = STARTS.search(words)
    if when is None:
        return ok("sbatch", "it would take the job")
    return ok("sbatch", f"it would take the job, and start it on {when[3]} at {when[1]}")


def asked_of_sbatch(options: SlurmOptions, job_name: str) -> tuple[str, bool]:
    """The words of ``sbatch --test-only``, and whether it would take the job."""
    text = batch_file(options, job_name)
    try:
        # by standard input: no file is left, and none must be written
        done = subprocess.run(
            ("sbatch", "--test-only"),
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), False
    return done.stderr + done.stdout, done.returncode == 0


def mend_of(words: str, known: Mapping[str, str]) -> str:
    """What mends a request that Slurm refused in these words."""
    for pattern, mend in MENDS:
        if re.search(pattern, words, re.IGNORECASE):
            return mend.format(**known)
    return "`flower-hpc up --dry-run` prints the sbatch file: compare it with a job that works there"


def shared_folder(folder: Path) -> Finding:
    """Whether job files, keys and logs can be written where the compute nodes shall find them."""
    mend = "shared: a folder of yours on a file system that the compute nodes have too"
    try:
        with borrowed(folder) as place:
            (place / "file").write_text("written")
    except OSError as error:
        return problem("shared folder", f"{folder} cannot be written: {error.strerror or error}", mend)
    kind = filesystem(folder)
    if is_local(kind):
        return warning("shared folder", f"{folder} is on {kind}, which other machines seldom see", mend)
    return ok("shared folder", f"{folder}{f' on {kind}' if kind else ''}")


def user_name() -> str:
    """Whom accounting knows; a number where this machine does not."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _gpus(found: Mapping[str, int]) -> str:
    return "GPUs " + (" ".join(f"{kind or 'gpu'}:{count}" for kind, count in found.items()) or "none")
