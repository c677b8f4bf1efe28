"""Watches: changes after a revision, one by one, with bookmarks, until they time out or are dropped."""

import random
import time
from collections.abc import Callable, Iterator

from kube.api import Api, selection
from kube.errors import ApiError, gone
from kube.faults import Faults
from kube.resources import Resource
from kube.store import Change, Object

BOOKMARK_S = 10.0  # a real server: about a minute
CLOSED = object()


def watch(
    api: Api,
    faults: Faults,
    resource: Resource,
    namespace: str,
    query: dict[str, str],
    alive: Callable[[], bool],
) -> Iterator[Object]:
    """Events; ends at the timeout, and raises ConnectionError where the connection shall break."""
    store, chosen, dropped = api.store, selection(query), faults.dropped
    end = time.monotonic() + float(query.get("timeoutSeconds") or random.uniform(1800, 3600))
    bookmarks = query.get("allowWatchBookmarks") in ("true", "1", "True")
    revision, first = _start(api, resource, namespace, query)
    yield from ({"type": "ADDED", "object": item} for item in first)
    next_bookmark = time.monotonic() + BOOKMARK_S
    while time.monotonic() < end:
        with store.changed:
            if faults.dropped == dropped and store.revision == revision:
                store.changed.wait(min(1.0, max(0.01, end - time.monotonic())))
            changes, newest = store.since(revision, resource.plural), store.revision
        if faults.dropped != dropped or not alive():
            raise ConnectionError
        for change in changes:
            if event := _event(change, namespace, chosen):
                yield event
        revision = newest
        if bookmarks and time.monotonic() > next_bookmark:
            next_bookmark = time.monotonic() + BOOKMARK_S
            yield _bookmark(resource, revision)
    if bookmarks:
        yield _bookmark(resource, revision)


def _start(api: Api, resource: Resource, namespace: str, query: dict[str, str]) -> tuple[int, list[Object]]:
    asked, store = query.get("resourceVersion", ""), api.store
    with store.changed:
        if asked in ("", "0"):
            chosen = selection(query)
            return store.revision, [i for i in store.list(resource.plural, namespace) if chosen(i)]
        if not asked.isdigit():
            why = f'strconv.ParseUint: parsing "{asked}": invalid syntax'
            said = f'resourceVersion: Invalid value: "{asked}": {why}'
            raise ApiError(400, "BadRequest", said)
        if int(asked) < store.compacted:
            raise gone(int(asked), store.compacted)
        return int(asked), []


def _event(change: Change, namespace: str, chosen: Callable[[Object], bool]) -> Object | None:
    if namespace not in ("", change.object["metadata"].get("namespace", "")):
        return None
    was, fits = change.before is not None and chosen(change.before), chosen(change.object)
    if change.type == "DELETED":
        return {"type": "DELETED", "object": change.object} if fits or was else None
    if fits:
        return {"type": "MODIFIED" if was else "ADDED", "object": change.object}
    if was:
        gone_from_view = change.before | {
            "metadata": change.before["metadata"] | {"resourceVersion": str(change.revision)}
        }
        return {"type": "DELETED", "object": gone_from_view}
    return None


def _bookmark(resource: Resource, revision: int) -> Object:
    meta = {"resourceVersion": str(revision), "creationTimestamp": None}
    item = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    return {"type": "BOOKMARK", "object": item}
