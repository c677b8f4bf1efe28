"""Keeps one SuperNode inside an allocation of a batch system, and hands its work in before that ends.

Runs on the compute node. What it knows of the SuperNode is read from that one's log. The batch system sends
USR2 ahead of the time limit or of a preemption with grace, and TERM where the end is near. Either way the
work that is going on is told to stop (by the file ``stop``, which a message's budget looks for), its update
is sent and left to be fetched, and the SuperNode signs off, so that nobody waits for it.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from ..clock import WALL
from ..parent import end_with_parent
from ..protocol import SLURM_JOB_ENV
from .base import JobSpec
from .filling import fill, read_door, with_programs
from .supernode_log import SuperNodeLog

STOP, OWNER, DOWN = "stop", "owner", "down"
LOOK_S = 0.25
DOOR_S, OWNER_S = 2.0, 5.0
LINGER_S = 5.0
"""A node that leaves stays so long after its reply is sent: nothing can be fetched of one that is gone."""
SIGN_OFF_S = 5.0
HELD_S, HELD_AT_MOST_S = 5.0, 150.0
PORTS_AT_MOST = 5
SCRUBBED = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_", "PRTE_", "OMPI_", "PSIJ_")
KEPT = ("SLURM_CONF", "SLURM_TMPDIR")
SCRATCH = "flower-hpc-scratch-"


class Leaving:
    """By when a pilot shall be gone, and why; whoever knows of its host's end may say so, from any thread."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.why = ""

    def ask(self, seconds: float, why: str) -> None:
        """Be gone within ``seconds``; what was asked before stands where it is sooner."""
        until = WALL.now() + max(0.0, seconds)
        self.why = self.why or why
        self.deadline = until if self.deadline is None else min(self.deadline, until)


class PilotError(RuntimeError):
    """The SuperNode ended and another start here would not help; its last words."""


@dataclass(frozen=True)
class Pilot:
    """A SuperNode as a batch job; called on the compute node.

    Parameters
    ----------
    spec : JobSpec
        The SuperNode. ``cwd`` is its own folder on the shared disk, where its residuals live and the files
        ``stop`` and ``owner``; ``<cwd>/../down`` says that the federation is being taken down.
    kill_wait_s : float
        Seconds between TERM and KILL; default 30, Slurm's own default.
    lead_s : float
        Seconds between USR2 and the time limit; default 120.
    leaving : Leaving, optional
        Where others than signals say when to leave; default nobody does.
    """

    spec: JobSpec
    kill_wait_s: float = 30.0
    lead_s: float = 120.0
    leaving: Leaving | None = None

    def __call__(self) -> str:
        """Run until a signal, the taking down, or an end that cannot be mended; says why it ended.

        Raises
        ------
        PilotError
            The SuperNode ended by itself.
        """
        if not self.spec.cwd.parent.is_dir():
            raise PilotError(f"the shared folder {self.spec.cwd.parent} is missing on {socket.gethostname()}")
        try:
            self.spec.cwd.mkdir(exist_ok=True)
            with scratch_folder() as scratch:
                return _Flight(self, scratch).run()
        except OSError as error:  # such as a full disk
            raise PilotError(f"{error.strerror or error}: {error.filename or self.spec.cwd}") from error


class _Flight:
    """One allocation's worth of a pilot."""

    def __init__(self, pilot: Pilot, scratch: Path) -> None:
        self.pilot, self.spec, self.scratch = pilot, pilot.spec, scratch
        self.token = f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
        self.token += f"@{socket.gethostname()}.{os.getpid()}"
        self.leaving = pilot.leaving or Leaving()
        self._taken: set[int] = set()
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        # only noted: what waits in a handler would dead-lock with what it interrupted
        soon = self.pilot.lead_s * 0.8 if number == signal.SIGUSR2 else max(0.5, self.pilot.kill_wait_s - 2)
        self.leaving.ask(soon, f"asked to leave by {signal.Signals(number).name}")

    @property
    def deadline(self) -> float | None:
        return self.leaving.deadline

    def run(self) -> str:
        self._claim()
        (self.spec.cwd / STOP).unlink(missing_ok=True)
        held_since, clashes = None, 0
        while self.deadline is None:
            said = self._one_life()
            if self.deadline is not None or said.moved:
                continue
            if said.held and WALL.now() - (held_since := held_since or WALL.now()) < HELD_AT_MOST_S:
                self._rest(HELD_S)  # the SuperLink believes our killed predecessor alive
            elif said.port_taken and (clashes := clashes + 1) <= PORTS_AT_MOST:
                continue
            elif said.exit_code:
                raise PilotError(f"exit code {said.exit_code}: {said.last_line()}")
            else:
                return "the SuperNode ended"
        return self.leaving.why

    def _one_life(self) -> SuperNodeLog:
        door = self._wait_for_door()
        if self.deadline is not None:
            return SuperNodeLog(self.spec.log)
        with self._log() as log:
            said = SuperNodeLog(self.spec.log, log.tell())
            process = self._start(log)
        looked = WALL.now()
        while process.poll() is None and self.deadline is None:
            WALL.sleep(LOOK_S)
            said.read()
            if WALL.now() - looked > DOOR_S:
                looked = WALL.now()
                if self.spec.door is not None and read_door(self.spec.door) not in ("", door):
                    said.moved = True
                    break
                self._check_owner()
        if self.deadline is not None:
            self._hand_in(process, said)
        end(process)
        said.exit_code = process.returncode
        said.read()
        return said

    def _hand_in(self, process: subprocess.Popen[bytes], said: SuperNodeLog) -> None:
        down = self.spec.cwd.parent / DOWN
        with suppress(OSError):  # without the shared disk the work goes on to its own end
            (self.spec.cwd / STOP).touch()
        while process.poll() is None and WALL.now() < (self.deadline or 0.0) and not down.exists():
            said.read()
            if not said.busy and (said.sent_at is None or WALL.now() - said.sent_at > LINGER_S):
                return
            WALL.sleep(LOOK_S)

    def _start(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        command = fill(self.spec, self._taken)
        env = environment(os.environ, self.spec.env, self.scratch)
        # linuxproc signals every descendant: a SuperNode that gets TERM dies before its update is sent, so it
        # is born with these blocked, which exec keeps, and ends by one SIGINT
        old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
        try:
            return subprocess.Popen(
                command,
                cwd=self.spec.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    @contextmanager
    def _log(self) -> Iterator[BinaryIO]:
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        with self.spec.log.open("ab") as log:
            words = f"{self.spec.name} started {time.strftime('%Y-%m-%d %H:%M:%S')}"
            log.write(f"=== {words} on {socket.gethostname()}, job {job_id()} ===\n".encode())
            log.flush()
            yield log

    def _wait_for_door(self) -> str:
        if self.spec.door is None:
            return ""
        while self.deadline is None:
            if door := read_door(self.spec.door):
                return door
            self._rest(DOOR_S)
        return ""

    def _rest(self, seconds: float) -> None:
        until = WALL.now() + seconds
        while self.deadline is None and WALL.now() < until:
            WALL.sleep(LOOK_S)
            self._check_owner()

    def _claim(self) -> None:
        (self.spec.cwd / OWNER).write_text(self.token)

    def _check_owner(self) -> None:
        # the batch system gave our node up, and another job has our name now: two would fight over the key
        try:
            owner = (self.spec.cwd / OWNER).read_text()
        except OSError as error:
            owner = "" if isinstance(error, FileNotFoundError) else self.token
        if owner and owner != self.token and self.deadline is None:
            self.leaving.ask(0, f"{owner} has taken over")


def _end_with_us() -> None:
    # a SuperNode whose pilot is killed would go on, and hold the key that the next job needs
    end_with_parent(signal.SIGINT)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a SuperNode once to sign off, then kill what is left of it and of what it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    until = WALL.now() + SIGN_OFF_S
    # no wait(): it would dead-lock with a handler that interrupts it
    while process.poll() is None and WALL.now() < until:
        WALL.sleep(LOOK_S / 5)
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)
    while process.poll() is None:
        WALL.sleep(LOOK_S / 5)


def environment(outer: Mapping[str, str], ours: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """What the SuperNode and its apps see: nothing of the allocation but its GPUs and CPUs.

    A step's variables make an app's own ``srun`` or MPI believe that they are part of that step. The id of a
    Slurm job stays under a name of ours: a site's MPI job becomes a step of it (client/site).
    """
    clean = {key: value for key, value in outer.items() if key in KEPT or not key.startswith(SCRUBBED)}
    cpus = outer.get("SLURM_CPUS_PER_TASK", "1")
    folders = {"TMPDIR": str(scratch), "FLWR_HOME": str(scratch / "flwr")}
    job = {SLURM_JOB_ENV: outer["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in outer else {}
    return with_programs({"OMP_NUM_THREADS": cpus} | clean | job | folders | dict(ours))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on the node's own disk, removed at the end; those that killed predecessors left go too."""
    base = Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    for old in base.glob(f"{SCRATCH}*"):
        pid = old.name.rpartition("-")[2]
        # in a container every pilot is process 1, and finds the folder of the one that was killed
        over = pid == str(os.getpid()) or (pid.isdigit() and not Path(f"/proc/{pid}").exists())
        if over and old.stat().st_uid == os.getuid():
            shutil.rmtree(old, ignore_errors=True)
    folder = base / f"{SCRATCH}{job_id()}-{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def job_id() -> str:
    """The batch system's id of this job."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{what}") for what in ("JOB_ID", "TASK_ID"))
    return f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "0")
