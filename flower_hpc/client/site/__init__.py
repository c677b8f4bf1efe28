"""A site as one node: a SuperNode inside an allocation answers for many clients, or for many GPUs.

A message comes once over the wide-area link. It is handed to an MPI job beside the SuperNode, which lives as
long as that does; rank 0 fans it out to the site's clients, sums their weighted updates as they come, and one
reply goes back.
"""

from .mod import AsSite

__all__ = ["AsSite"]
