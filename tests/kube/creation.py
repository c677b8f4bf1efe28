"""What controllers share: creating objects as the server would, and waiting a little after a refusal."""

import time

from kube import events
from kube.api import Api, Options
from kube.errors import ApiError
from kube.resources import Resource
from kube.store import Object

RETRY_S = 1.0


class Creation:
    """A controller."""

    def __init__(self, api: Api):
        self.api, self.store = api, api.store
        self._refused: dict[tuple[str, str, str], float] = {}

    def make(self, resource: Resource, owner: Object, item: Object) -> Object | None:
        """Create an object for its owner; a refusal becomes an event, and is tried again later."""
        meta = owner["metadata"]
        name = item["metadata"].get("name") or item["metadata"].get("generateName", "")
        key = meta["uid"], resource.plural, name
        if time.monotonic() < self._refused.get(key, 0):
            return None
        who = f"{resource.kind} {name} in {owner['kind']} {meta['name']}"
        try:
            made = self.api.create(resource, meta["namespace"], item, Options("kube-controller-manager"))
        except ApiError as error:
            self._refused[key] = time.monotonic() + RETRY_S
            self.event(owner, "FailedCreate", f"create {who} failed error: {error.message}", warning=True)
            return None
        self._refused.pop(key, None)
        self.event(owner, "SuccessfulCreate", f"create {who} successful")
        return made

    def event(self, owner: Object, reason: str, message: str, warning: bool = False) -> None:
        """Say what happened."""
        source = f"{owner['kind'].lower()}-controller"
        events.record(self.store, owner, reason, message, warning=warning, source=source)
