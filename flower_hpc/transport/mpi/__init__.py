"""One federation inside one MPI job: rank 0 is the server, the others host the nodes.

Importing this starts no MPI: :class:`Line` does, when it is given a communicator.
"""

from .grid import MpiGrid
from .line import Line
from .rank import Rank, Setup

__all__ = ["Line", "MpiGrid", "Rank", "Setup"]
