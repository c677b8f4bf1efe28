"""What each verb on each subresource does."""

from collections.abc import Callable, Iterator
from typing import Any

from kube import patches, rbac
from kube.api import SCALABLE, Api, Options, selection
from kube.asked import Asked
from kube.errors import ApiError, bad_request
from kube.faults import Faults, Requests
from kube.rbac import Tokens, User
from kube.resources import Resource
from kube.store import Object, now

Answer = tuple[int, Any]


class Routes:
    """The API as a function from requests to answers."""

    def __init__(self, api: Api, tokens: Tokens, logs: Any):
        self.api, self.store, self.tokens, self.logs = api, api.store, tokens, logs
        self.faults, self.requests = Faults(api.store), Requests()

    def answer(
        self, asked: Asked, user: User, body: Any, content: str, agent: str, warnings: list[str]
    ) -> Answer:
        """Status and body."""
        query = asked.query
        options = Options(
            manager=query.get("fieldManager") or ("" if content == patches.APPLY else agent or "unknown"),
            force=query.get("force") in ("true", "1", "True"),
            dry_run="All" in query.get("dryRun", ""),
            validation=query.get("fieldValidation", "Warn"),
            warnings=warnings,
        )
        if asked.resource.group == "authorization.k8s.io":
            return 201, self._access(asked.resource, user, body or {})
        if asked.below in BELOW:
            return BELOW[asked.below](self, asked, body, content, options)
        return getattr(self, f"_{asked.verb}")(asked, body, content, options)

    def _get(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        return 200, self.store.get(asked.resource.plural, asked.namespace, asked.name)

    def _list(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        return 200, self.api.list(asked.resource, asked.namespace, asked.query)

    def _create(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        return 201, self.api.create(asked.resource, asked.namespace, body, options)

    def _update(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        return 200, self.api.update(asked.resource, asked.namespace, asked.name, body, asked.below, options)

    def _patch(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        new = self.store.find(asked.resource.plural, asked.namespace, asked.name) is None
        found = self.api.patch(
            asked.resource, asked.namespace, asked.name, body, content, asked.below, options
        )
        return 201 if new else 200, found

    def _delete(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        how = _delete_options(asked, body)
        dry = options.dry_run or "All" in (how.get("dryRun") or [])
        found = self.api.delete(asked.resource, asked.namespace, asked.name, how, dry)
        still = self.store.find(asked.resource.plural, asked.namespace, asked.name)
        if asked.resource.plural == "pods" or (still and "deletionTimestamp" in still["metadata"]):
            return 200, found
        details = {"name": asked.name, "group": asked.resource.group, "kind": asked.resource.plural}
        details["uid"] = found["metadata"]["uid"]
        return 200, _success() | {"details": {k: v for k, v in details.items() if v}}

    def _deletecollection(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        chosen, how = selection(asked.query), _delete_options(asked, body)
        found = self.api.list(asked.resource, asked.namespace, asked.query)
        for item in self.store.list(asked.resource.plural, asked.namespace):
            if chosen(item):
                meta = item["metadata"]
                self.api.delete(asked.resource, meta.get("namespace", ""), meta["name"], how, options.dry_run)
        return 200, found

    def _log_of(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        pod = self.store.get("pods", asked.namespace, asked.name)
        return 200, self.logs.read(pod, asked.query)

    def follow(self, asked: Asked, alive: Callable[[], bool]) -> Iterator[bytes]:
        """The log as it grows."""
        pod = self.store.get("pods", asked.namespace, asked.name)
        return self.logs.follow(pod, asked.query, alive)

    def _eviction(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        with self.store.changed:
            pod = self.store.get("pods", asked.namespace, asked.name)
            if not options.dry_run:
                self.api.evict(pod, (body or {}).get("deleteOptions") or {})
        return 201, _success() | {"code": 201}

    def _scale(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        if asked.resource.plural not in SCALABLE:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        what = asked.resource, asked.namespace, asked.name
        with self.store.changed:
            scale = self.api.scale(*what)
            if asked.verb == "get":
                return 200, scale
            if asked.verb == "patch" and content == patches.JSON:
                body = patches.json_patch(scale, body)
            elif asked.verb == "patch":
                body = {"metadata": {}, "spec": scale["spec"] | body.get("spec", {})} | (
                    {"metadata": body["metadata"]} if "metadata" in body else {}
                )
            return 200, self.api.rescale(*what, body, options)

    def _token(self, asked: Asked, body: Any, content: str, options: Options) -> Answer:
        self.store.get("serviceaccounts", asked.namespace, asked.name)
        seconds = ((body or {}).get("spec") or {}).get("expirationSeconds") or 3600
        if seconds < 600:
            raise bad_request("may not specify a duration less than 10 minutes")
        token = self.tokens.of_account(asked.namespace, asked.name, seconds)
        meta = {"name": asked.name, "namespace": asked.namespace, "creationTimestamp": now()}
        shown = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": meta}
        return 201, shown | {
            "spec": body.get("spec"),
            "status": {"token": token, "expirationTimestamp": now()},
        }

    def _access(self, resource: Resource, user: User, body: Object) -> Object:
        spec = body.get("spec") or {}
        if resource.kind == "SelfSubjectRulesReview":
            found = rbac.rules(self.store, user, spec.get("namespace", ""))
            status = {"resourceRules": found, "nonResourceRules": [], "incomplete": False}
        else:
            status = {"allowed": self._may(user, spec.get("resourceAttributes") or {})}
        return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}} | {
            "spec": spec,
            "status": status,
        }

    def _may(self, user: User, what: Object) -> bool:
        below = what.get("subresource")
        resource = what.get("resource", "") + (f"/{below}" if below else "")
        return rbac.allowed(
            self.store,
            user,
            what.get("verb", ""),
            what.get("group", ""),
            resource,
            what.get("namespace", ""),
            what.get("name", ""),
        )


BELOW = {"log": Routes._log_of, "eviction": Routes._eviction, "scale": Routes._scale, "token": Routes._token}


def _success() -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _delete_options(asked: Asked, body: Any) -> Object:
    found = dict(body or {})
    if "gracePeriodSeconds" in asked.query:
        found.setdefault("gracePeriodSeconds", int(asked.query["gracePeriodSeconds"]))
    if "propagationPolicy" in asked.query:
        found.setdefault("propagationPolicy", asked.query["propagationPolicy"])
    return found
