"""A site whose nodes are sites themselves: many clients, or many GPUs, behind each SuperNode.

::

    sites:
      hpc:
        nodes: 1
        mpi:
          clients: 16              # of each node; node p of P has the partitions 16 p to 16 p + 15 of 16 P
          ranks: 4                 # processes that share them; default one a client
          launch: mpiexec -bind-to core   # `-n RANKS` is added; default: srun in a Slurm job, else mpiexec
      big:
        nodes: 1
        mpi: {ranks: 8, together: true}   # one client on 8 GPUs, started as torchrun does

The app needs the mod :class:`~flower_hpc.client.AsSite`.
"""

import json

from pydantic import model_validator

from ..errors import ConfigError
from ..protocol import MPI_ENV, SiteShape
from .fields import Strict, Words


class SiteMpi(Strict):
    """The clients of each of a site's nodes; see the module's text."""

    clients: int | None = None
    ranks: int | None = None
    launch: Words | None = None
    together: bool = False

    @model_validator(mode="after")
    def _possible(self) -> "SiteMpi":
        try:
            self._shape()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def _shape(self) -> SiteShape:
        return SiteShape(clients=self.clients, ranks=self.ranks, together=self.together)

    @property
    def workers(self) -> int:
        """Processes that train, of each node."""
        return self._shape().workers

    def variables(self) -> dict[str, str]:
        """What tells a node's apps."""
        found = self.model_dump(exclude_none=True, exclude_defaults=True)
        return {MPI_ENV: json.dumps(found, sort_keys=True)}
