"""The verbs of the API on stored objects; what a request asks, without HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kube import admission, apply, defaults, fields, patches, schema, selecting
from kube.deletion import Deletion
from kube.errors import ApiError, bad_request, conflict, gone, invalid, not_found
from kube.resources import APPS, RESOURCES, Resource
from kube.store import Object, Store, copy
from kube.validation import identity, validate

SYSTEM = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp")


@dataclass(frozen=True)
class Options:
    """The options of a write, as query parameters give them."""

    manager: str = "unknown"
    force: bool = False
    dry_run: bool = False
    validation: str = "Warn"
    warnings: list[str] = field(default_factory=list)


PLAIN = Options()


class Api(Deletion):
    """What the server does with objects; controllers use it, too, for what they create."""

    def __init__(self, store: Store):
        self.store = store
        self.on_create: dict[str, Callable[[Object], None]] = {}

    def create(self, resource: Resource, namespace: str, body: Any, options: Options = PLAIN) -> Object:
        """POST."""
        item = self._decode(resource, body, options)
        identity(item, resource, namespace, None)
        for key in SYSTEM:
            item["metadata"].pop(key, None)
        item.pop("status", None)
        return self._create(resource, item, options)

    def _create(self, resource: Resource, item: Object, options: Options) -> Object:
        with self.store.changed:
            defaults.fill(item, resource.plural)
            admission.admit(self.store, item, resource)
            if resource.plural == "jobs":
                _job_selector(item)
            validate(item, resource)
            admission.check_quotas(self.store, item, resource)
            if "managedFields" not in item["metadata"]:
                fields.updated(item, None, options.manager, schema.of(resource))
            if options.dry_run:
                if self.store.find(
                    resource.plural, item["metadata"].get("namespace", ""), item["metadata"]["name"]
                ):
                    return self.store.create(resource.plural, item)  # raises
                return item
            made = self.store.create(resource.plural, item)
            self.on_create.get(resource.plural, lambda made: None)(made)
            return made

    def update(
        self, resource: Resource, namespace: str, name: str, body: Any, part: str, options: Options
    ) -> Object:
        """PUT of an object, or of its status."""
        item = self._decode(resource, body, options)
        identity(item, resource, namespace, name)
        with self.store.changed:
            return self._replace(
                resource, self.store.get(resource.plural, namespace, name), item, part, options
            )

    def _replace(
        self,
        resource: Resource,
        before: Object,
        item: Object,
        part: str,
        options: Options,
        applied: bool = False,
    ) -> Object:
        meta, old = item["metadata"], before["metadata"]
        if meta.get("uid", old["uid"]) != old["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['uid']}"
            raise conflict(resource, old["name"], why)
        if part == "status":
            item = copy(before) | {"status": item.get("status", {})}
            if meta.get("resourceVersion"):
                item["metadata"]["resourceVersion"] = meta["resourceVersion"]
        else:
            for key in ("creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
                meta.pop(key, None)
                meta |= {key: old[key]} if key in old else {}
            if "status" in before or "status" in resource.subresources:
                item.pop("status", None)
            fresh = copy(before.get("status"))
            defaults.fill(item, resource.plural)
            item |= {"status": fresh} if fresh is not None else {}
            validate(item, resource, before)
        if "managedFields" not in meta or part == "status":
            item["metadata"]["managedFields"] = old.get("managedFields", [])
        if part != "status" and not applied:
            fields.updated(item, before, options.manager, schema.of(resource))
            _keep_times(item, before)
        if options.dry_run:
            return item
        return self.store.replace(resource.plural, item)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Any,
        kind: str,
        part: str,
        options: Options,
    ) -> Object:
        """PATCH; server-side apply creates what is not there."""
        with self.store.changed:
            before = self.store.find(resource.plural, namespace, name)
            if kind == patches.APPLY:
                return self._apply(resource, namespace, name, before, change, part, options)
            if before is None:
                raise not_found(resource, name)
            patched = patches.patch(before, patches.parsed(change, kind), kind, schema.of(resource))
            version = patched.get("metadata", {}).get("resourceVersion")
            if version == before["metadata"]["resourceVersion"]:
                patched["metadata"].pop("resourceVersion")  # not what the patch asked for
            item = self._decode(resource, patched, options)
            identity(item, resource, namespace, name)
            touched = item["metadata"].get("managedFields") != before["metadata"].get("managedFields")
            return self._replace(resource, before, item, part, options, applied=touched)

    def _apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        before: Object | None,
        config: Any,
        part: str,
        options: Options,
    ) -> Object:
        if not options.manager:
            said = "fieldManager: Required value: is required for apply patch"
            raise ApiError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: {said}')
        if config.get("metadata", {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        decoder = schema.Decoder(resource)
        config = decoder.decode(config)
        if decoder.unknown:
            where = f"{namespace}/{name}; {resource.api_version}, Kind={resource.kind}"
            why = f".{decoder.unknown[0]}: field not declared in schema"
            raise ApiError(
                500, "", f"failed to create typed patch object ({where}): {why}"
            )  # a real server has no reason for this one
        identity(config, resource, namespace, name)
        version = config["metadata"].pop("resourceVersion", None)
        merged = apply.apply(before, config, resource, options.manager, options.force)
        if before is None:
            owned = merged["metadata"]["managedFields"]
            merged["metadata"] = merged["metadata"] | {"managedFields": owned}
            return self._create(resource, merged, options)
        if version:
            merged["metadata"]["resourceVersion"] = version
        return self._replace(resource, before, merged, part, options, applied=True)

    def _decode(self, resource: Resource, body: Any, options: Options) -> Object:
        decoder = schema.Decoder(resource)
        item = decoder.decode(body)
        if options.validation == "Strict":
            decoder.strict()
        if options.validation == "Warn":
            options.warnings.extend(f'unknown field "{name}"' for name in decoder.unknown)
        return item

    def list(self, resource: Resource, namespace: str, query: dict[str, str]) -> Object:
        """GET of many, page by page where the client says ``limit``."""
        chosen = selection(query)
        with self.store.changed:
            revision = self.store.revision
            items = [i for i in self.store.list(resource.plural, namespace) if chosen(i)]
        meta: Object = {"resourceVersion": str(revision)}
        start, limit = 0, int(query.get("limit") or 0)
        if "continue" in query:
            asked, start = (int(n) for n in query["continue"].split("."))
            if asked <= self.store.compacted and self.store.compacted > 1000:
                raise gone(asked, self.store.compacted)
        if limit and len(items) > start + limit:
            meta |= {"continue": f"{revision}.{start + limit}"}
            meta |= {"remainingItemCount": len(items) - start - limit}
        items = items[start : start + limit if limit else None]
        bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": meta,
            "items": bare,
        }

    def scale(self, resource: Resource, namespace: str, name: str) -> Object:
        """The ``Scale`` of a workload."""
        item = self.store.get(resource.plural, namespace, name)
        meta = {
            k: item["metadata"][k]
            for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        }
        chosen = item["spec"]["selector"].get("matchLabels", {})
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": meta,
            "spec": {"replicas": item["spec"]["replicas"]},
            "status": {
                "replicas": item.get("status", {}).get("replicas", 0),
                "selector": ",".join(f"{k}={v}" for k, v in chosen.items()),
            },
        }

    def rescale(
        self, resource: Resource, namespace: str, name: str, scale: Object, options: Options
    ) -> Object:
        """Set ``replicas``."""
        item = copy(self.store.get(resource.plural, namespace, name))
        replicas = scale.get("spec", {}).get("replicas", 0)
        if type(replicas) is not int or replicas < 0:
            raise invalid(RESOURCES[resource.plural], name, [])
        item["spec"]["replicas"] = replicas
        if version := scale.get("metadata", {}).get("resourceVersion"):
            item["metadata"]["resourceVersion"] = version
        self._replace(resource, self.store.get(resource.plural, namespace, name), item, "", options)
        return self.scale(resource, namespace, name)


def selection(query: dict[str, str]) -> Callable[[Object], bool]:
    """What the selectors of a request choose."""
    by_label = selecting.labels(query.get("labelSelector", ""))
    by_field = selecting.fields(query.get("fieldSelector", ""))
    return lambda item: by_label(item) and by_field(item)


def _job_selector(job: Object) -> None:
    import uuid

    uid = job["metadata"].setdefault("uid", str(uuid.uuid4()))
    marks = {"batch.kubernetes.io/controller-uid": uid}
    names = {"batch.kubernetes.io/job-name": job["metadata"]["name"], "job-name": job["metadata"]["name"]}
    spec = job.get("spec", {})
    if "template" in spec:
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels |= marks | {"controller-uid": uid} | names
        spec["selector"] = {"matchLabels": marks}


def _keep_times(item: Object, before: Object) -> None:
    """An update that changes nothing leaves the object as it was."""
    a, b = copy(item), copy(before)
    for one in (a, b):
        one["metadata"].pop("managedFields", None)
        one["metadata"].pop("resourceVersion", None)
    if a == b:
        item["metadata"]["managedFields"] = before["metadata"].get("managedFields", [])


SCALABLE = {r.plural for r in RESOURCES.values() if r.group == APPS}
