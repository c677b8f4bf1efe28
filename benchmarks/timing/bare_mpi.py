"""What MPI itself takes for a round's arrays: ``mpiexec -n 5 python bare_mpi.py FLOATS ROUNDS``.

Rank 0 broadcasts float32 numbers, and gets the sum of those of all ranks: the least that a round of as many
nodes needs to move. Prints the median seconds of both together.
"""

import json
import statistics
import sys
import time

import numpy as np
from mpi4py import MPI


def main() -> None:
    """Measure; the first round, in which buffers are touched for the first time, does not count."""
    floats, rounds = int(sys.argv[1]), int(sys.argv[2])
    comm = MPI.COMM_WORLD
    model, total = np.ones(floats, np.float32), np.empty(floats, np.float32)
    seconds = []
    for _ in range(rounds + 1):
        comm.Barrier()
        began = time.perf_counter()
        comm.Bcast(model, root=0)
        comm.Reduce(model, total if comm.rank == 0 else None, op=MPI.SUM, root=0)
        seconds.append(time.perf_counter() - began)
    if comm.rank == 0:
        assert total[-1] == comm.size
        print(json.dumps({"seconds": statistics.median(seconds[1:])}), flush=True)


if __name__ == "__main__":
    main()
