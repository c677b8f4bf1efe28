"""What a test cluster is like, and the configuration files that say so to Slurm (22.05 and later)."""

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CGROUPS_V1 = Path("/sys/fs/cgroup/freezer")
GPUS_A_NODE = 2


@dataclass(frozen=True)
class Knobs:
    """What can be chosen about a cluster.

    Parameters
    ----------
    nodes
        Virtual nodes vn1, vn2, ...; they share this machine and may claim more than it has.
    cpus, mem_mb
        What each of them claims.
    gpu_nodes
        How many of them, the last ones, have two fake GPUs each.
    accounting
        Also start a database and slurmdbd, with account ``fl`` and qos ``normal``, ``high``, ``tiny``.
    proctrack
        How Slurm knows the processes of a job. ``linuxproc`` signals all descendants, and misses those that
        were orphaned; ``cgroup``, as in production, signals the first process and kills all (needs root).
    kill_wait_s
        From the SIGTERM at a job's end to its SIGKILL.
    cred_expire_s
        How long a requeued job waits; above ``kill_wait_s`` and the clean-up, or its relaunch is refused.
    slurmd_timeout_s
        For how long a node may be silent; it is found DOWN up to 20 s later.
    """

    nodes: int = 4
    cpus: int = 4
    mem_mb: int = 4000
    gpu_nodes: int = 1
    accounting: bool = False
    proctrack: Literal["linuxproc", "cgroup"] = "linuxproc"
    kill_wait_s: int = 3
    cred_expire_s: int = 10
    slurmd_timeout_s: int = 15

    def __post_init__(self):
        if not 0 <= self.gpu_nodes < self.nodes:
            raise ValueError(f"gpu_nodes must be in [0, nodes), got {self.gpu_nodes} of {self.nodes}")
        if self.proctrack not in ("linuxproc", "cgroup"):
            raise ValueError(f"proctrack must be linuxproc or cgroup, got {self.proctrack!r}")
        if self.cred_expire_s <= self.kill_wait_s:
            raise ValueError(f"cred_expire_s must exceed kill_wait_s, got {self.cred_expire_s}")

    @property
    def names(self) -> list[str]:
        """The names of the nodes."""
        return [f"vn{k}" for k in range(1, self.nodes + 1)]

    @property
    def servers(self) -> list[str]:
        """What needs a port: the daemons, a slurmd by its node's name."""
        return ["slurmctld", *(["slurmdbd", "mariadbd"] if self.accounting else []), *self.names]


def user_name() -> str:
    """Whom the cluster belongs to; slurm.conf takes a number too."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def files(knobs: Knobs, folder: Path, ports: dict[str, int], first_job: int) -> dict[str, str]:
    """The configuration files by name."""
    found = {
        "slurm.conf": "\n".join(
            [
                general(knobs, folder, ports, first_job),
                *(accounting(folder, ports) if knobs.accounting else []),
                *node_lines(knobs, ports),
                *partition_lines(knobs),
                "",
            ]
        ),
        "cgroup.conf": "ConstrainCores=no\nConstrainRAMSpace=no\n",
    }
    if knobs.proctrack == "cgroup":
        found["cgroup.conf"] += f"CgroupPlugin={'cgroup/v1' if CGROUPS_V1.is_dir() else 'autodetect'}\n"
    if knobs.gpu_nodes:
        gpus = f"{folder}/etc/fakegpu[0-{GPUS_A_NODE - 1}]"
        names = ",".join(knobs.names[-knobs.gpu_nodes :])
        found["gres.conf"] = f"NodeName={names} Name=gpu Type=fake File={gpus}\n"
    if knobs.accounting:
        found["slurmdbd.conf"] = slurmdbd(folder, ports)
    return found


def general(knobs: Knobs, folder: Path, ports: dict[str, int], first_job: int) -> str:
    """Daemons, process tracking, scheduling and preemption."""
    return f"""\
ClusterName=test
SlurmctldHost={host()}(127.0.0.1)
SlurmctldPort={ports["slurmctld"]}
SlurmUser={user_name()}
SlurmdUser={user_name()}
AuthType=auth/munge
# cred_expire is also for how long a requeued job waits (by default 120 s)
AuthInfo=socket={folder}/run/munge.socket,cred_expire={knobs.cred_expire_s}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
StateSaveLocation={folder}/ctld
# %n, the node's name, is what lets several slurmd live on one machine
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdParameters=config_overrides
SlurmdTimeout={knobs.slurmd_timeout_s}
SlurmctldTimeout=30
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/{knobs.proctrack}
TaskPlugin=task/{"cgroup" if knobs.proctrack == "cgroup" else "none"}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
# react within seconds; in production these are tens of seconds
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,bf_min_age_reserve=0,requeue_setup_env_fail
PriorityType=priority/multifactor
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# the preempted get their own --signal first, and after GraceTime TERM and KILL
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait={knobs.kill_wait_s}
OverTimeLimit=0
MinJobAge=300
InactiveLimit=0
Waittime=0
MaxArraySize=1001
# two clusters on a machine share the folders of their cgroups, which are named by job
FirstJobId={first_job}
GresTypes=gpu"""


def accounting(folder: Path, ports: dict[str, int]) -> list[str]:
    """What slurmctld must know of slurmdbd."""
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=localhost",
        f"AccountingStoragePort={ports['slurmdbd']}",
        # not a password: with munge it is the socket by which slurmdbd is reached
        f"AccountingStoragePass={folder}/run/munge.socket",
        "AccountingStorageTRES=gres/gpu",
        "AccountingStorageEnforce=associations,limits,qos",
    ]


def slurmdbd(folder: Path, ports: dict[str, int]) -> str:
    """The file slurmdbd.conf."""
    return f"""\
AuthType=auth/munge
AuthInfo={folder}/run/munge.socket
DbdHost=localhost
DbdPort={ports["slurmdbd"]}
SlurmUser={user_name()}
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports["mariadbd"]}
StorageUser=slurm
StoragePass=test
StorageLoc=slurm_acct
CommitDelay=0
"""


def node_lines(knobs: Knobs, ports: dict[str, int]) -> list[str]:
    """One line for each node."""
    first_gpu = knobs.nodes - knobs.gpu_nodes
    return [
        f"NodeName={name} NodeHostname={host()} NodeAddr=127.0.0.1 Port={ports[name]} CPUs={knobs.cpus} "
        f"RealMemory={knobs.mem_mb} "
        + ("Feature=cpu,vn" if k < first_gpu else f"Feature=gpu,vn Gres=gpu:fake:{GPUS_A_NODE}")
        for k, name in enumerate(knobs.names)
    ]


def partition_lines(knobs: Knobs) -> list[str]:
    """Partitions by what they are for: the two that are preempted span all nodes."""
    first_gpu = knobs.nodes - knobs.gpu_nodes
    cpu, gpu, every = (
        ",".join(names) for names in (knobs.names[:first_gpu], knobs.names[first_gpu:], knobs.names)
    )
    hour, low = "MaxTime=1:00:00 DefaultTime=10", "PriorityTier=1 PreemptMode=REQUEUE"
    high = "PriorityTier=10 PreemptMode=OFF"
    return [
        f"PartitionName=cpu Nodes={cpu} Default=YES {hour} {high}",
        *([f"PartitionName=gpu Nodes={gpu} {hour} {high}"] if gpu else []),
        f"PartitionName=preempt Nodes={every} {hour} {low} GraceTime=0",
        f"PartitionName=preemptg Nodes={every} {hour} {low} GraceTime=20",
        f"PartitionName=short Nodes={cpu} MaxTime=1 DefaultTime=1 {high}",
    ]


def host() -> str:
    """The short name of the machine: slurmctld compares it with its own."""
    return socket.gethostname().partition(".")[0]
