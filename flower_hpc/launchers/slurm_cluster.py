"""What a Slurm cluster offers: its partitions, nodes and rules, read from its commands without a job."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..errors import LaunchError
from .slurm_queue import Run
from .slurm_site import SlurmOptions, minutes_of

UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}
GPU = re.compile(r"gpu(?::([A-Za-z0-9_.-]*[A-Za-z_.-][A-Za-z0-9_.-]*))?:(\d+)")
USABLE = ("idle", "mixed", "allocated", "completing", "planned")


@dataclass(frozen=True)
class Nodes:
    """Some nodes that are alike."""

    count: int
    cpus: int
    mem_mb: float
    gpus: Mapping[str, int]
    """By type; an empty one where they have none."""
    state: str

    @property
    def usable(self) -> bool:
        """Whether jobs start on them, now or when others have ended."""
        return self.state.startswith(USABLE) and not self.state.endswith("*")

    def lacks(self, options: SlurmOptions) -> str:
        """What they have too little of for a job; empty where it fits."""
        if options.cpus > self.cpus:
            return f"{self.cpus} CPUs, not {options.cpus}"
        if options.mem and megabytes(options.mem) > self.mem_mb:
            return f"{self.mem_mb:.0f} MB of memory, not {options.mem}"
        kind, _, count = (options.gpus or "0").rpartition(":")
        have = self.gpus.get(kind, 0) if kind else sum(self.gpus.values())
        if int(count) > have:
            there = ", ".join(f"{name or 'gpu'}:{number}" for name, number in self.gpus.items()) or "none"
            return f"GPUs: {there}; not {options.gpus}"
        return ""


def megabytes(text: str) -> float:
    """A size in sbatch's form; without a unit it is megabytes."""
    unit = text.rstrip("Bb")[-1:]
    return float(text.rstrip("Bb").rstrip("KMGT")) * UNITS.get(unit, 1.0)


def partitions(run: Run) -> dict[str, dict[str, str]]:
    """Every partition's settings, by its name."""
    found = (pairs(line) for line in run(("scontrol", "-o", "show", "partition")).splitlines())
    return {each["PartitionName"]: each for each in found if "PartitionName" in each}


def pairs(line: str) -> dict[str, str]:
    """``Name=value`` words."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def settings(run: Run) -> dict[str, str]:
    """The cluster's configuration; empty where it is not shown."""
    try:
        lines = run(("scontrol", "show", "config")).splitlines()
    except LaunchError:
        return {}
    split = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, sign, value in split if sign}


def nodes(run: Run, names: Iterable[str]) -> list[Nodes]:
    """The nodes of some partitions, those that are alike together."""
    command = ("sinfo", "-h", "-e", "-p", ",".join(names), "-o", "%D|%c|%m|%G|%T")
    split = (line.split("|", 4) for line in run(command).splitlines() if line.count("|") >= 4)
    return [
        Nodes(int(count), int(cpus), float(mem), gpus_of(gres), state)
        for count, cpus, mem, gres, state in split
        if count.isdigit() and cpus.isdigit() and mem.isdigit()
    ]


def gpus_of(gres: str) -> dict[str, int]:
    """GPUs by type, from such as ``gpu:a100:4(S:0-1),gpu:2``."""
    found: dict[str, int] = {}
    for kind, count in GPU.findall(gres):
        found[kind] = found.get(kind, 0) + int(count)
    return found


def limit_minutes(text: str) -> int | None:
    """A limit such as ``1-00:00:00``; None for no limit."""
    try:
        return minutes_of(text)
    except ValueError:
        return None


def walls(run: Run, user: str, options: SlurmOptions) -> dict[str, int]:
    """Limits in minutes of the account and the qos that a job would have, by whose they are."""
    command = ("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=Account,MaxWall")
    rows = _rows(run, command)
    if options.account is None and len(rows) > 1:
        rows = []  # which of them is the default is not told
    found = {f"account {name}": wall for name, wall in rows if options.account in (None, name)}
    if options.qos:
        command = ("sacctmgr", "-n", "-P", "show", "qos", f"name={options.qos}", "format=Name,MaxWall")
        found |= {f"qos {name}": wall for name, wall in _rows(run, command)}
    return {whose: minutes for whose, wall in found.items() if (minutes := limit_minutes(wall)) is not None}


def accounts(run: Run, user: str) -> dict[str, set[str]]:
    """The accounts that a user may name, each with its qos; empty where there is no accounting."""
    command = ("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=Account,QOS")
    found: dict[str, set[str]] = {}
    for name, qos in _rows(run, command):
        found.setdefault(name, set()).update(filter(None, qos.split(",")))
    return found


def _rows(run: Run, command: Collection[str]) -> list[tuple[str, str]]:
    try:
        lines = run(command).splitlines()
    except LaunchError:  # no accounting, or none for users
        return []
    return [(first, second) for first, sign, second in (line.partition("|") for line in lines) if sign]
