"""Writes the chart's templates: the objects that the launchers make, with values in the places of options.

``python deploy/helm/make.py`` after a change of the manifests; a test holds the two together.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from flower_hpc.launchers.k8s import KubernetesOptions
from flower_hpc.launchers.k8s.link import LinkOptions, link_manifests, place_of
from flower_hpc.launchers.k8s.manifests import manifests
from flower_hpc.launchers.k8s.place import Place

CHART = Path(__file__).parent / "flower-hpc"
NUMBER = 7700000
"""Numbers that stand for values begin here: what must be a number cannot be a word."""

Way = tuple[Any, ...]


def options(part: str, **more: Any) -> KubernetesOptions:
    """Every option that is a single word or number, as a stand-in for its value."""
    return KubernetesOptions(
        folder=Path(),
        image=f"value.{part}.image",
        namespace="release-namespace",
        user=NUMBER,
        grace_s=NUMBER + 1,
        **more,
    )


def superlink() -> list[dict[str, Any]]:
    """The SuperLink's objects, with stand-ins."""
    pod = options("superlink", storage="1Ki")
    link = LinkOptions(pod=pod, service="NodePort", port=65001)
    return link_manifests(link, place_of("release-name"), "FILE")


def site() -> list[dict[str, Any]]:
    """A site's objects, with stand-ins; its Secret is there already."""
    place = Place("federation-name", "site-name", "release-site")
    made = manifests(options("site"), place, NUMBER + 2, {}, [])
    return [each for each in made if each["kind"] != "Secret"]


def instead(part: str) -> dict[Any, str]:
    """What stands in the place of each stand-in."""
    own = f".Values.{part}"
    return {
        f"value.{part}.image": f"{{{{ {own}.image | quote }}}}",
        "release-namespace": "{{ .Release.Namespace | quote }}",
        NUMBER: f"{{{{ {own}.user | int64 }}}}",
        NUMBER + 1: f"{{{{ {own}.graceSeconds | int64 }}}}",
        NUMBER + 2: f"{{{{ {own}.nodes | int64 }}}}",
        65001: f"{{{{ {own}.port | int64 }}}}",
        "1Ki": f"{{{{ {own}.storage | quote }}}}",
        "NodePort": f"{{{{ {own}.service | quote }}}}",
        "flower-hpc-release-name": "{{ .Values.superlink.name | quote }}",
        "release-name": "{{ .Values.federation | quote }}",
        "release-site": "{{ .Values.site.objects | quote }}",
        "federation-name": "{{ .Values.federation | quote }}",
        "site-name": "{{ .Values.site.name | quote }}",
        "site-name-{ordinal}": '{{ printf "%s-{ordinal}" .Values.site.name | quote }}',
        str(NUMBER + 1): f"{{{{ {own}.graceSeconds | int64 | toString | quote }}}}",
    }


LONGER = ("env", "volumeMounts", "volumes", "egress")
"""Sequences to which values may add."""
# what a site may add to a pod, by the key that is there in the template only where its value is not empty
ADDED = {
    "nodeSelector": "nodeSelector",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "priorityClassName": "priorityClass",
    "runtimeClassName": "runtimeClass",
    "imagePullSecrets": "pullSecrets",
}


def text(objects: list[dict[str, Any]], part: str) -> str:
    """A template of all objects."""
    documents = "---\n".join("\n".join(lines(each, part, 0, ())) + "\n" for each in objects)
    head = "{{- /* made by deploy/helm/make.py from flower_hpc/launchers/k8s: not to be edited */ -}}\n"
    return f"{head}{{{{- if .Values.{part}.enabled }}}}\n{documents}{{{{- end }}}}\n"


def lines(node: Any, part: str, indent: int, path: Way) -> Iterator[str]:
    """YAML in which stand-ins are values; keys in order."""
    pad, own = " " * indent, f".Values.{part}"
    for key, value in node.items():
        here = (*path, key)
        if here[-2:] == ("data", "federation.yaml"):
            yield f"{pad}federation.yaml: {{{{ toYaml {own}.federationFile | quote }}}}"
        elif key == "flower-hpc/config":
            yield f"{pad}{key}: {{{{ toYaml {own}.federationFile | sha256sum | trunc 16 | quote }}}}"
        elif key == "resources" and "containers" in path:
            yield f"{pad}resources: {{{{ toJson {own}.resources }}}}"
        elif key == "secretName":
            yield f"{pad}secretName: {{{{ {own}.bundleSecret | quote }}}}"
        elif isinstance(value, dict) and value:
            yield f"{pad}{key}:"
            yield from lines(value, part, indent + 2, here)
        elif isinstance(value, list) and value:
            yield f"{pad}{key}:"
            yield from items(value, part, indent, here)
        else:
            yield f"{pad}{key}: {scalar(value, part)}"
        if key == "volumes":
            yield from added(own, pad)


def items(values: list[Any], part: str, indent: int, path: Way) -> Iterator[str]:
    """A sequence."""
    pad = " " * indent
    for value in values:
        if isinstance(value, dict):
            first, *rest = lines(value, part, indent + 2, path)
            yield f"{pad}- {first.strip()}"
            yield from rest
        else:
            yield f"{pad}- {scalar(value, part)}"
    if path[-1] in LONGER:
        yield from each_of(f".Values.{part}.{path[-1]}", pad)


def each_of(where: str, pad: str) -> Iterator[str]:
    """More items, as the values have them."""
    yield f"{pad}{{{{- range {where} }}}}"
    yield f"{pad}- {{{{ toJson . }}}}"
    yield f"{pad}{{{{- end }}}}"


def added(own: str, pad: str) -> Iterator[str]:
    """What is in a pod only where a value asks for it."""
    for key, value in ADDED.items():
        yield f"{pad}{{{{- if {own}.{value} }}}}"
        yield f"{pad}{key}: {{{{ toJson {own}.{value} }}}}"
        yield f"{pad}{{{{- end }}}}"


def scalar(value: Any, part: str) -> str:
    """A stand-in's value, or the value itself."""
    known = instead(part)
    if isinstance(value, str | int) and not isinstance(value, bool) and value in known:
        return known[value]
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def templates() -> dict[str, str]:
    """By file."""
    return {"superlink.yaml": text(superlink(), "superlink"), "site.yaml": text(site(), "site")}


def main() -> None:
    """Write them."""
    for name, content in templates().items():
        (CHART / "templates" / name).write_text(content)


if __name__ == "__main__":
    sys.exit(main())
