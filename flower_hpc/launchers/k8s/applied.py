"""Sends objects to a cluster, and only those that differ from what was sent last."""

import hashlib
import json
from collections.abc import Iterable

from .api import Api
from .place import Manifest

ORDER = (
    *("StatefulSet", "Deployment", "PodDisruptionBudget", "NetworkPolicy"),
    *("Service", "Secret", "ConfigMap", "RoleBinding", "Role", "ServiceAccount"),
)
"""In which they are deleted: what makes pods before what pods need."""


class Applied:
    """What a cluster was told last.

    Parameters
    ----------
    api : Api
        Of the objects' namespace.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._sent: dict[tuple[str, str], str] = {}

    def update(self, objects: Iterable[Manifest]) -> int:
        """Apply what is new or differs; how many that were."""
        count = 0
        for each in objects:
            key = each["kind"], each["metadata"]["name"]
            digest = hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
            if self._sent.get(key) != digest:
                self._api.apply(each)
                self._sent[key] = digest
                count += 1
        return count

    def forget(self) -> None:
        """Take nothing for granted: the next update sends all."""
        self._sent.clear()

    def delete(self, objects: Iterable[Manifest]) -> None:
        """Delete them, in the right order; what is gone already is fine."""
        for each in sorted(objects, key=lambda one: ORDER.index(one["kind"])):
            self._api.delete(each["kind"], each["metadata"]["name"])
        self.forget()
