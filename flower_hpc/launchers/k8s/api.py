"""One namespace of a cluster, through the official client: few calls, plain objects, errors in one line."""

import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from .connect import ClusterError, connect, refusal
from .options import KubernetesOptions
from .place import MANAGER, Manifest

log = logging.getLogger(__name__)

TIMEOUT = (5, 30)
WATCH_S, SILENCE_S = 300, 100
"""A watch is opened anew after so long; it counts as dead when not even a bookmark comes."""
TRIES, FIRST_S, LONGEST_S = 6, 0.5, 20.0
UNREACHED_TRIES = 4
LATER = (408, 429, 500, 502, 503, 504)
AGAIN = (*LATER, 409)
"""A conflict too: what we say of an object holds whatever others changed meanwhile."""
APPLY = "application/apply-patch+yaml"
KINDS = {
    "ConfigMap": ("CoreV1Api", "config_map"),
    "Deployment": ("AppsV1Api", "deployment"),
    "Event": ("CoreV1Api", "event"),
    "Job": ("BatchV1Api", "job"),
    "NetworkPolicy": ("NetworkingV1Api", "network_policy"),
    "PersistentVolumeClaim": ("CoreV1Api", "persistent_volume_claim"),
    "Pod": ("CoreV1Api", "pod"),
    "PodDisruptionBudget": ("PolicyV1Api", "pod_disruption_budget"),
    "Role": ("RbacAuthorizationV1Api", "role"),
    "RoleBinding": ("RbacAuthorizationV1Api", "role_binding"),
    "SelfSubjectRulesReview": ("AuthorizationV1Api", ""),
    "Secret": ("CoreV1Api", "secret"),
    "Service": ("CoreV1Api", "service"),
    "ServiceAccount": ("CoreV1Api", "service_account"),
    "StatefulSet": ("AppsV1Api", "stateful_set"),
}


class Api:
    """What is asked of a cluster; safe to call again wherever an answer was lost.

    Parameters
    ----------
    kubeconfig : Path, optional
        Default: ``$KUBECONFIG``, ``~/.kube/config``, or inside a pod its service account.
    context : str, optional
        Default: the kubeconfig's current one.
    namespace : str, optional
        Default: the context's, else ``default``.
    tries : int
        How often something is asked whose answer does not come; default 6.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        namespace: str | None = None,
        *,
        tries: int = TRIES,
    ) -> None:
        self._kubeconfig, self._context, self._namespace = kubeconfig, context, namespace
        self._tries = tries
        self._client: Any = None
        self._lock = threading.Lock()
        self.closed = threading.Event()

    @classmethod
    def of(cls, options: KubernetesOptions) -> "Api":
        """Of the namespace that a site asks for."""
        return cls(options.kubeconfig, options.context, options.namespace)

    @property
    def namespace(self) -> str:
        """In which everything happens."""
        if self._namespace is None:
            self._connect()
        return self._namespace or "default"

    @property
    def where(self) -> str:
        """Server and context, for people."""
        return f"{self._connect().configuration.host}, context {self._context}"

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Have an object be so, as far as we say (server-side apply); what it is then."""
        options: Manifest = {"field_manager": MANAGER, "force": True, "_content_type": APPLY}
        if dry_run:
            options["dry_run"] = "All"
        name, kind = manifest["metadata"]["name"], manifest["kind"]
        return self._ask(
            f"patch_namespaced_{KINDS[kind][1]}", kind, name, self.namespace, manifest, **options
        )

    def create(self, manifest: Manifest, *, read: bool = True) -> Manifest:
        """Make an object; one of its name that is there already is returned as it is.

        Unless ``read``: then as it was asked for, where it may be made and not be read.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        method = f"create_namespaced_{KINDS[kind][1]}"
        try:
            return self._ask(method, kind, self.namespace, manifest, again=LATER)
        except ClusterError as error:
            if error.status == 409:  # the answer to our own first try was lost
                return self.get(kind, name) if read else manifest
            raise

    def get(self, kind: str, name: str) -> Manifest:
        """An object."""
        return self._ask(f"read_namespaced_{KINDS[kind][1]}", kind, name, self.namespace)

    def list(self, kind: str, selector: str = "", fields: str = "") -> Manifest:
        """Objects in ``items``, and in ``metadata`` the version of the list."""
        chosen: Manifest = {"label_selector": selector} if selector else {}
        chosen |= {"field_selector": fields} if fields else {}
        return self._ask(f"list_namespaced_{KINDS[kind][1]}", kind, self.namespace, **chosen)

    def delete(
        self, kind: str, name: str, *, uid: str = "", grace_s: int | None = None, orphan: bool = False
    ) -> bool:
        """Delete an object, that of ``uid`` where given; False where there is none such."""
        options: Manifest = {"propagationPolicy": "Orphan" if orphan else "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        method = f"delete_namespaced_{KINDS[kind][1]}"
        try:
            self._ask(method, kind, name, self.namespace, body=self._options(options), again=LATER)
        except ClusterError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    def is_there(self, kind: str, name: str) -> bool:
        """Whether there is such an object, for who may delete it but not read it: a dry run of a deletion."""
        # in the body: a server that gets one does not look for the query's dryRun, and would delete
        body = self._options({"dryRun": ["All"]})
        try:
            self._ask(f"delete_namespaced_{KINDS[kind][1]}", kind, name, self.namespace, body=body)
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    def delete_all(self, kind: str, selector: str, grace_s: int | None = None) -> None:
        """Delete what ``selector`` finds."""
        given: Manifest = {"propagation_policy": "Background"}  # Jobs would leave their pods
        given |= {} if grace_s is None else {"grace_period_seconds": grace_s}
        method = f"delete_collection_namespaced_{KINDS[kind][1]}"
        self._ask(method, kind, self.namespace, label_selector=selector, **given)

    def log(self, pod: str, container: str, max_bytes: int = 65536, *, previous: bool = False) -> str:
        """The end of what a container wrote."""
        response = self._raw(
            "read_namespaced_pod_log",
            "CoreV1Api",
            pod,
            self.namespace,
            container=container,
            previous=previous,
            tail_lines=max(1, max_bytes // 40),
        )
        data: bytes = response.data
        return data[-max_bytes:].decode(errors="replace")

    def rules(self) -> tuple[Sequence[Manifest], bool]:
        """What we may do in the namespace, and whether that is all there is to know."""
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
        asked = kind | {"spec": {"namespace": self.namespace}}
        status = self._ask("create_self_subject_rules_review", "SelfSubjectRulesReview", asked)["status"]
        return tuple(status.get("resourceRules") or ()), not status.get("incomplete", False)

    def watch(self, kind: str, selector: str, version: str) -> Iterator[Manifest]:
        """What happens to objects after ``version``: ``type`` and ``object``; ends now and then.

        Raises
        ------
        ClusterError
            With status 410 where the version is too old: list anew.
        """
        group, word = KINDS[kind]
        response = self._raw(
            f"list_namespaced_{word}",
            group,
            self.namespace,
            label_selector=selector,
            resource_version=version,
            watch=True,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
            _request_timeout=(TIMEOUT[0], SILENCE_S),
        )
        try:
            for line in _lines(response, self.closed):
                event: Manifest = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event.get("object", {})
                    raise ClusterError(str(status.get("message", "watch failed")), int(status.get("code", 0)))
                yield event
        finally:
            response.close()

    def close(self) -> None:
        """Let go of connections, and of a watch at its next word."""
        self.closed.set()
        if self._client is not None:
            self._client.close()

    # -- the client ----------------------------------------------------------------------------------

    def _ask(
        self, method: str, kind: str, *args: Any, again: Collection[int] = AGAIN, **options: Any
    ) -> Manifest:
        pause = FIRST_S
        for left in reversed(range(self._tries)):
            try:
                found: Manifest = json.loads(self._raw(method, KINDS[kind][0], *args, **options).data)
                return found
            except ClusterError as error:
                if error.status in (0, 401):  # the kubeconfig may say by now where it is, and who we are
                    self._client = None
                if left == 0 or error.status not in (0, *again) or self.closed.is_set():
                    raise
                if error.status == 0 and self._tries - left >= UNREACHED_TRIES:
                    raise
                log.info("%s: again in %g s: %s", method, pause, error)
                self.closed.wait(max(pause, error.after_s))
                pause = min(LONGEST_S, pause * 2)
        raise AssertionError("unreachable")

    def _raw(self, method: str, group: str, *args: Any, **options: Any) -> Any:
        client = self._connect()
        from kubernetes import client as api
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        call: Callable[..., Any] = getattr(getattr(api, group)(client), method)
        options = {"_request_timeout": TIMEOUT} | options
        try:
            return call(*args, _preload_content=False, **options)
        except ApiException as error:
            raise refusal(error, self._where()) from error
        except (HTTPError, OSError) as error:
            words = " ".join(str(getattr(error, "reason", None) or error).split())
            raise ClusterError(f"{self._where()} cannot be reached: {words[:300]}") from error
        except ValueError as error:  # client 37 checks bodies before it sends them
            raise ClusterError(f"the client refuses it: {' '.join(str(error).split())[:300]}", 400) from error

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client, namespace, self._context = connect(self._kubeconfig, self._context)
                self._namespace = self._namespace or namespace
            return self._client

    def _where(self) -> str:
        return f"the cluster at {self._client.configuration.host}"

    def _options(self, options: Manifest) -> Any:
        from kubernetes import client as api

        preconditions = options.get("preconditions")
        return api.V1DeleteOptions(
            propagation_policy=options.get("propagationPolicy"),
            dry_run=options.get("dryRun"),
            grace_period_seconds=options.get("gracePeriodSeconds"),
            preconditions=api.V1Preconditions(uid=preconditions["uid"]) if preconditions else None,
        )


def _lines(response: Any, closed: threading.Event) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        for chunk in response.stream(amt=None, decode_content=False):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line for line in lines if line.strip())
            if closed.is_set():
                return
    except (HTTPError, OSError, AttributeError) as error:  # AttributeError: closed while it was read
        raise ClusterError(f"the watch broke: {error}") from error
