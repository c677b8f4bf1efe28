"""The light SuperNodes of a site whose rounds are jobs: what they ask for, and what they may do."""

from dataclasses import replace

from .options import KubernetesOptions, split_egress
from .place import Manifest, Place

API_PORTS = (443, 6443)
RULES = (
    ("batch", "jobs", ("create", "get", "delete")),
    ("", "secrets", ("create",)),
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
)
"""All that a SuperNode's pod may do; whoever makes the Role must be allowed the same."""


def light(options: KubernetesOptions) -> KubernetesOptions:
    """What the SuperNodes' own pods ask for: no GPU, and any host."""
    if options.standing is None:
        return options
    return replace(
        options,
        cpus=options.standing.cpus,
        mem=options.standing.mem,
        gpus=0,
        resources={},
        node_selector={},
        tolerations=(),
        affinity={},
        priority_class=None,
        runtime_class=None,
    )


def rules() -> list[Manifest]:
    """The Role's."""
    return [{"apiGroups": [group], "resources": [kind], "verbs": list(verbs)} for group, kind, verbs in RULES]


def binding(options: KubernetesOptions, place: Place) -> Manifest:
    """Whose the Role is: the SuperNodes'."""
    subject = {"kind": "ServiceAccount", "name": place.name, "namespace": options.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": place.name}
    return {"roleRef": role, "subjects": [subject]}


def api_servers(options: KubernetesOptions) -> list[tuple[str, int | None]]:
    """Where the cluster's API is: policies see its own address, which its Service hides."""
    if options.standing is None:
        return []
    if options.standing.api_server is not None:
        return [split_egress(options.standing.api_server)]
    return [(net, port) for net in ("0.0.0.0/0", "::/0") for port in API_PORTS]
