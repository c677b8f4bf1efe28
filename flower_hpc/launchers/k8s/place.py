"""Whose objects they are: names and labels."""

import hashlib
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
MANAGER = "flower-hpc"
FEDERATION, SITE = "flower-hpc/federation", "flower-hpc/site"


LONGEST = 45
"""Of the name of all objects: pods, Jobs and labels of theirs add to it, and may have 63 characters."""


def object_name(name: str) -> str:
    """``name`` where it is short enough, else its beginning and a digest."""
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: LONGEST - 11].rstrip('-')}-{digest}"


@dataclass(frozen=True)
class Place:
    """Which site of which federation, and what its objects are called.

    Parameters
    ----------
    federation, site : str
        Their names.
    name : str
        Of all objects; at most 52 characters, since pods add to it.
    role : {"supernode", "superlink"}
        What the pods are; default ``supernode``.
    """

    federation: str
    site: str
    name: str
    role: str = "supernode"

    @property
    def labels(self) -> dict[str, str]:
        """That all of its objects have, and no others."""
        return {
            "app.kubernetes.io/name": f"flower-hpc-{self.role}",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/managed-by": MANAGER,
            FEDERATION: self.federation,
            SITE: self.site,
        }

    @property
    def selector(self) -> str:
        """The same, as the API asks for it."""
        return ",".join(f"{key}={value}" for key, value in self.selected.items())

    @property
    def selected(self) -> dict[str, str]:
        """By which its pods are chosen; cannot change while they live."""
        return {"app.kubernetes.io/instance": self.name, "app.kubernetes.io/managed-by": MANAGER}
