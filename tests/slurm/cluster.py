"""A real Slurm of virtual nodes on one machine: munged, slurmctld and a slurmd per node, without systemd.

``python tests/slurm/cluster.py up`` leaves one running for a developer; ``... down`` takes it away.
"""

import contextlib
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a command, `slurm` would not be found
from slurm import accounting
from slurm.conf import GPUS_A_NODE, Knobs, files

PROGRAMS = ["munged", "slurmctld", "slurmd"]
# Debian keeps daemons where an ordinary user's PATH does not look
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
# what a daemon of ours has in its environment
MARK = "SLURM_CLUSTER_DAEMON"


class SlurmError(RuntimeError):
    """A command of Slurm failed, or the cluster did not become what was waited for."""


def missing(with_accounting: bool = False) -> list[str]:
    """Programs that a cluster needs and this machine lacks."""
    needed = PROGRAMS + (accounting.PROGRAMS if with_accounting else [])
    return [name for name in needed if not shutil.which(name, path=PATH)]


class SlurmCluster:
    """A Slurm cluster that lives in a folder of its own below ``folder``, and goes with it.

    Works as root, for whom jobs may run as any user, and as an ordinary user, whom alone it then serves.

    Parameters
    ----------
    folder
        Where the cluster makes its own folder ``slurm``, which ``down`` removes.
    knobs
        See `Knobs`.
    """

    def __init__(self, folder: Path | str, **knobs: Any):
        self.knobs = Knobs(**knobs)
        self.folder = Path(folder).absolute() / "slurm"
        self.env = {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    @classmethod
    def at(cls, folder: Path | str) -> "SlurmCluster":
        """The cluster that was brought up there, by whichever process."""
        try:
            knobs = json.loads((Path(folder) / "slurm" / "knobs.json").read_text())
        except FileNotFoundError:
            raise SlurmError(f"no cluster at {folder}") from None
        return cls(folder, **knobs)

    def __enter__(self) -> "SlurmCluster":
        self.up()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.down(keep_logs=error is not None)

    def up(self) -> None:
        """Start every daemon and wait until all nodes are idle."""
        if lacking := missing(self.knobs.accounting):
            raise SlurmError(f"not installed: {', '.join(lacking)}")
        self._write_files()
        try:
            self._start_munged()
            if self.knobs.accounting:
                accounting.start(self, self.ports)
            self.daemon("slurmctld", "slurmctld", "-c")  # -c: there is no earlier state
            for name in self.knobs.names:
                self.daemon(name, "slurmd", "-N", name)
            self.wait_until(lambda: all(self.node_state(n) == "idle" for n in self.knobs.names), 60)
        except BaseException as error:
            error.add_note(self._log_tails())
            self.down(keep_logs=True)
            raise

    def down(self, keep_logs: bool = False) -> None:
        """End the jobs, then every process of this cluster, and remove its folder."""
        if self._has("slurmctld"):  # without it, clients wait long
            with contextlib.suppress(SlurmError, subprocess.TimeoutExpired):
                self._cancel()
                # not the jobs: one whose node crashed stays until that is noticed
                self.wait_until(lambda: not self._has("slurmstepd"), self.knobs.kill_wait_s + 10)
        self._kill(self.processes)  # nothing that they would save is wanted
        self._remove_cgroups()
        for entry in self.folder.glob("*"):
            if keep_logs and entry.name in ("log", "etc", "knobs.json"):
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not keep_logs and self.folder.is_dir():
            self.folder.rmdir()

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """What a command prints that talks to this cluster."""
        done = subprocess.run(
            command, env=self._full_env(), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self) -> list[tuple[str, str, str]]:
        """The id, name and state of each job that has not ended, elements of arrays one by one."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i|%T|%j", timeout_s=15).splitlines()
        return [(job, name, state) for job, state, name in (line.split("|", 2) for line in lines)]

    def node_state(self, name: str) -> str:
        """``idle``, ``mixed``, ``allocated``, ``down``, ...; with a ``*`` where the node does not answer."""
        return self.run("sinfo", "-h", "-p", "preempt", "-n", name, "-o", "%T", timeout_s=15).strip()

    def cancel_all(self, within_s: float = 20) -> None:
        """Cancel all jobs, and wait until they have left their nodes."""
        self._cancel()
        self.wait_until(lambda: not self.jobs(), within_s)

    def crash(self, name: str) -> None:
        """Let a node vanish as if its power went: its slurmd and all of its jobs' processes."""
        self._kill(lambda: self.processes(name))

    def start(self, name: str) -> None:
        """Bring a node back that crashed, and wait until it answers."""
        self.daemon(name, "slurmd", "-N", name)
        self.wait_until(lambda: self.node_state(name).rstrip("-") in ("idle", "mixed", "allocated"), 60)

    def wait_until(self, predicate: Callable[[], Any], seconds: float) -> Any:
        """Wait until ``predicate()`` holds, and return what it said."""
        end = time.monotonic() + seconds
        while not (found := predicate()):
            if time.monotonic() > end:
                picture = "slurmctld does not answer"
                with contextlib.suppress(SlurmError, subprocess.TimeoutExpired):
                    picture = self.run("squeue", timeout_s=15) + self.run("sinfo", "-N", timeout_s=15)
                raise SlurmError(f"not within {seconds} s:\n{picture}")
            time.sleep(0.1)
        return found

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """The daemons and what runs in jobs, of one node or of the whole cluster; slurmstepd first."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._is_ours(process, node):
                    for one in (process, *process.children(recursive=True)):
                        found[one.pid] = one
        found.pop(os.getpid(), None)
        # one that sees its tasks die would report it, which no node does whose power went
        return sorted(filter(_alive, found.values()), key=lambda p: p.name() != "slurmstepd")

    def _has(self, program: str) -> bool:
        return any(process.name() == program for process in self.processes())

    def _cancel(self) -> None:
        if jobs := {job.partition("_")[0] for job, _, _ in self.jobs()}:
            self.run("scancel", "-Q", *jobs)

    def _is_ours(self, process: psutil.Process, node: str | None) -> bool:
        if process.name() == "slurmstepd":  # its title overwrites its environment
            logs = self.folder / "log"
            return any(
                Path(f.path).parent == logs and node in (None, f.path.split(".")[-2])
                for f in process.open_files()
            )
        env = process.environ()
        if env.get("SLURM_CONF") != self.env["SLURM_CONF"]:
            return False
        # a shell that merely talks to this cluster has neither mark nor job
        names = {env.get(MARK), env.get("SLURMD_NODENAME" if "SLURM_JOB_ID" in env else MARK)} - {None}
        return bool(names) if node is None else node in names

    def _full_env(self, **more: str) -> dict[str, str]:
        # what a job sets around these tests is meant for another Slurm
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        return own | {"PATH": PATH} | self.env | more

    def daemon(self, mark: str, *command: str, timeout_s: float = 60) -> None:
        """Run what starts a daemon and returns; ``mark`` is the node's name or the daemon's."""
        with open(self.folder / "log" / "start.log", "a") as log:
            # not a pipe: a daemon would hold it open
            done = subprocess.run(
                command,
                env=self._full_env(**{MARK: mark}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                check=False,
                timeout=timeout_s,
            )
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: exit {done.returncode}")

    def _write_files(self) -> None:
        knobs, folder = self.knobs, self.folder
        if len(str(folder)) > 80:
            raise SlurmError(f"too long for the path of a socket: {folder}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise SlurmError(f"there is a cluster already, or what is left of one: {folder}") from None
        for name in ("etc", "run", "log", "ctld", *(f"spool/{node}" for node in knobs.names)):
            (folder / name).mkdir(parents=True)
        (folder / "knobs.json").write_text(json.dumps(asdict(knobs)))
        self.ports = free_ports(knobs.servers)
        for name, text in files(knobs, folder, self.ports, random.randrange(1000, 60000)).items():
            (folder / "etc" / name).write_text(text)
            (folder / "etc" / name).chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        # a GPU must be a character device; a link to one will do, and needs no root
        for k, device in enumerate(("/dev/null", "/dev/zero")[:GPUS_A_NODE]):
            (folder / "etc" / f"fakegpu{k}").symlink_to(device)

    def _start_munged(self) -> None:
        run, key = self.folder / "run", self.folder / "etc" / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [f"--key-file={key}", f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid"]
        files += [f"--seed-file={run}/munged.seed", f"--log-file={self.folder}/log/munged.log"]
        # --force: it refuses folders that others cannot enter, as those of pytest are
        self.daemon("munged", "munged", "--force", *files)
        self.run("munge", "-S", str(run / "munge.socket"), "-n")

    def _kill(self, which: Callable[[], list[psutil.Process]]) -> None:
        end = time.monotonic() + 20
        while found := which():  # again: one may have started another meanwhile
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if time.monotonic() > end:
                raise SlurmError(f"survived SIGKILL: {found}")
            time.sleep(0.05)

    def _remove_cgroups(self) -> None:
        if self.knobs.proctrack != "cgroup":
            return
        for name in self.knobs.names:
            for top in Path("/sys/fs/cgroup").glob(f"**/slurm_{name}"):
                for folder, _, _ in os.walk(top, topdown=False):
                    # another cluster on this machine may be using it
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)

    def _log_tails(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"{log}:\n" + "\n".join(log.read_text().splitlines()[-5:]) for log in logs)


def free_ports(names: list[str]) -> dict[str, int]:
    """A port for each name, that nobody listens on; below those that outgoing connections are given."""
    with contextlib.ExitStack() as held:
        found = {}
        for port in random.sample(range(15000, 32000), 1000):
            if len(found) == len(names):
                break
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("", port))
                found[names[len(found)]] = port
    return found


def _alive(process: psutil.Process) -> bool:
    # what PID 1 of a container does not reap stays a zombie
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    from slurm.command import main

    main()
