"""The life of an MPI job: every rank comes up, rank 0 runs the ServerApp, all end together."""

import ctypes
import logging
import os
import pickle
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app

from ...cores import cores
from ...errors import ConfigError, RunError
from .grid import MpiGrid
from .line import HEAD, Line
from .post import wait_for_ranks
from .rank import Rank, Setup

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], None] | signal.Handlers

PATIENCE_S = 30.0
HURRY_S = 5.0
"""After a signal: batch systems kill soon after."""
GPUS = Path("/proc/driver/nvidia/gpus")
VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
MAPS, SHARED = Path("/proc/self/maps"), re.compile(r"/dev/shm/mpich_shm_\w+")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


class Loads(Protocol):
    """What tells ranks how to come by a ClientApp; it travels to them as a pickle."""

    def client(self) -> ClientAppCallable:
        """Load it."""


@dataclass(frozen=True)
class Parts:
    """Where an app's two halves are.

    Parameters
    ----------
    path : Path
        Its folder, the same on every host.
    serverapp, clientapp : str
        ``module:attribute``.
    """

    path: Path
    serverapp: str
    clientapp: str

    def client(self) -> ClientApp:
        """Load the ClientApp."""
        app: ClientApp = load_app(self.clientapp, RunError, self.path)
        return app

    def server(self) -> ServerApp:
        """Load the ServerApp."""
        app: ServerApp = load_app(self.serverapp, RunError, self.path)
        return app


def join() -> Line:
    """Become a rank of this process's MPI job.

    Raises
    ------
    ConfigError
        There is no MPI, or no other rank.
    """
    # MPICH's broadcast in shared memory waits without letting go of the core, from its fifth call on: with
    # more ranks than cores 10 MB then took 4 s in place of 0.02
    os.environ.setdefault("MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM", "mpir")
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        from mpi4py import MPI
    except ImportError as error:
        words = f"pip install 'flower-hpc[mpi]', and an MPI library ({error})"
        raise ConfigError(f"mpi4py cannot be loaded: {words}") from error
    line = Line(MPI.COMM_WORLD)
    if line.size < 2:
        raise ConfigError(
            "an MPI job needs a server and at least one client, got 1 rank: start it as "
            "`mpiexec -n 5 flower-hpc mpi APP` with the mpiexec of the MPI library that mpi4py finds "
            f"({' '.join(MPI.Get_library_version().split()[:3])})"
        )
    share_host(MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED))
    unname_memory()
    keep_memory()
    return line


def unname_memory(maps: Path = MAPS) -> None:
    """Have what MPICH's ranks share go with the last of them, however they end: all have opened it by now.

    Else a killed job would leave it on the host for ever.
    """
    with suppress(OSError):
        for path in set(SHARED.findall(maps.read_text())):
            Path(path).unlink(missing_ok=True)


def keep_memory() -> None:
    """Have glibc keep what is freed: a model's memory is needed again in the next round.

    Else it goes back to the kernel, which hands it out anew page by page: of rounds of 100 MB that was a
    quarter of the time, and half of the system's share.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def share_host(comm: Any) -> None:
    """Give this rank its part of the host's cores and GPUs, where nobody has said otherwise."""
    mine, ranks = comm.Get_rank(), comm.Get_size()
    # a batch system that binds ranks to cores has shared them out already
    if not os.environ.get(THREADS):
        from threadpoolctl import threadpool_limits  # of the extra, as mpi4py is

        share = max(1, cores() // ranks)
        os.environ[THREADS] = str(share)
        threadpool_limits(share)  # NumPy's BLAS is loaded by now, and has read the variable
    gpus = os.environ.get(VISIBLE, ",".join(str(i) for i, _ in enumerate(GPUS.glob("*")))).split(",")
    if len(gpus) > 1:
        os.environ[VISIBLE] = gpus[mine % len(gpus)]


def host_nodes(line: Line, tell: Callable[[str], None]) -> None:
    """What ranks other than 0 do, until rank 0 says that it is over."""
    try:
        head = pickle.loads(line.wait(HEAD, 0))
        if head["kind"] == "setup":
            Rank(line, head["setup"], tell).serve(head["parts"].client)
    except BaseException:  # MPI would wait in its end for the others, and they for this rank
        log.exception("rank %s cannot go on", line.rank)
        line.abort(1)


@contextmanager
def federation(
    line: Line, setup: Setup, parts: Loads, seen: Callable[[int], None] = lambda count: None
) -> Iterator[MpiGrid]:
    """Rank 0's: the grid, once every rank has loaded the ClientApp; the ranks end with it.

    Raises
    ------
    RunError
        A rank cannot load it.
    """
    for rank in range(1, line.size):
        line.send(rank, HEAD, pickle.dumps({"kind": "setup", "setup": setup, "parts": parts}))
    try:
        wait_for_ranks(line, seen)
    except BaseException:
        dismiss(line)
        raise
    grid = MpiGrid(line, setup)
    code, patience_s = 1, PATIENCE_S
    try:
        yield grid
        code = 0
    except (KeyboardInterrupt, SystemExit):
        patience_s = HURRY_S
        raise
    finally:
        late = grid.close(patience_s)
        line.ended = True
        if late:
            words = ", ".join(str(rank) for rank in late)
            log.warning("the run is over; rank %s still worked after %g s, and is ended", words, patience_s)
            line.doom(code)


def heed_signals(rank: int) -> None:
    """Rank 0 ends at the first signal, once; the others go on until it says that the run is over.

    All ranks get the same signals, often twice: from whoever ends the job, and from their parents.
    """
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

    def end(number: int, frame: FrameType | None) -> None:
        set_all(pass_over)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def pass_over(number: int, frame: FrameType | None) -> None:
        """Leave it to rank 0."""

    def set_all(handler: Handler) -> None:
        for number in numbers:
            signal.signal(number, handler)

    set_all(pass_over if rank else end)
    # workers of an app's own, such as a data loader's, are ended by signals
    os.register_at_fork(after_in_child=lambda: set_all(signal.SIG_DFL))


def serve(grid: MpiGrid, setup: Setup, parts: Parts) -> None:
    """Run the ServerApp to its end."""
    context = Context(setup.run_id, 1, {}, RecordDict(), dict(setup.run_config))
    parts.server()(grid, context)


def dismiss(line: Line) -> None:
    """End ranks that wait to be told what to do."""
    for rank in range(1, line.size):
        line.send(rank, HEAD, pickle.dumps({"kind": "stop"}))
    line.ended = True


@contextmanager
def leading(line: Line) -> Iterator[None]:
    """Rank 0's: should it leave without a word to the others, they are ended; MPI would have all wait."""
    try:
        yield
    except BaseException:
        if not line.ended:
            line.doom(1)
        raise
