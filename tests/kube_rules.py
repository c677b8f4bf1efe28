"""What a real cluster refuses and schemas let pass, and the restricted Pod Security Standard, in words.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

import re

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?)?|\.[0-9]+(m|k|Ki|[MGTPE]i?)?")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PULL = {None, "Always", "IfNotPresent", "Never"}


def not_restricted(pod):
    """Why a pod's spec is not within the restricted standard; empty where it is."""
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    security = pod.get("securityContext", {})
    if security.get("sysctls"):
        found.append("sysctls are set")
    for volume in pod.get("volumes", ()):
        if kinds := set(volume) - {"name"} - VOLUMES:
            found.append(f"volume {volume['name']} is {kinds.pop()}")
    for each in (*pod.get("initContainers", ()), *pod["containers"]):
        found += [f"container {each['name']}: {words}" for words in _container(each, security)]
    return found


def _container(each, pod):
    own = each.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if "ALL" not in own.get("capabilities", {}).get("drop", ()):
        yield "keeps capabilities"
    if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "may be root"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "is root"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if own.get("procMount", "Default") != "Default":
        yield "sees /proc"
    if any(port.get("hostPort") for port in each.get("ports", ())):
        yield "takes a port of the host"


def refused(manifest):
    """What a server would refuse in a valid manifest; empty where it takes it."""
    found = []
    metadata = manifest["metadata"]
    if not NAME.fullmatch(metadata["name"]):
        found.append(f"name {metadata['name']}")
    found += [f"label {value}" for value in metadata.get("labels", {}).values() if not LABEL.fullmatch(value)]
    found += [f"quantity {value!r}" for value in _quantities(manifest) if not _is_quantity(value)]
    subjects = manifest.get("subjects", ())
    if any(one["kind"] == "ServiceAccount" and not one.get("namespace") for one in subjects):
        found.append("a service account is named without its namespace")
    template = manifest.get("spec", {}).get("template")
    if template is not None:
        labels = template["metadata"]["labels"]
        if manifest["spec"]["selector"]["matchLabels"].items() - labels.items():
            found.append("the selector does not choose its own pods")
        claims = {one["metadata"]["name"] for one in manifest["spec"].get("volumeClaimTemplates", ())}
        found += _pod(template["spec"], claims)
    return found


def _pod(pod, claims):
    volumes = [volume["name"] for volume in pod.get("volumes", ())]
    if len(volumes) != len(set(volumes)):
        yield "two volumes of one name"
    for each in pod["containers"]:
        mounts = each.get("volumeMounts", ())
        if missing := {mount["name"] for mount in mounts} - {*volumes, *claims}:
            yield f"mounts {missing}, which are no volumes"
        paths = [mount["mountPath"] for mount in mounts]
        if len(paths) != len(set(paths)):
            yield "two mounts at one path"
        requests, limits = (each.get("resources", {}).get(what, {}) for what in ("requests", "limits"))
        for key in requests:
            if "/" in key and limits.get(key) != requests[key]:
                yield f"{key} needs a limit"
        if each.get("imagePullPolicy") not in PULL:
            yield f"imagePullPolicy {each['imagePullPolicy']}"
        for port in each.get("ports", ()):
            if not 0 < port["containerPort"] < 65536:
                yield f"port {port['containerPort']}"


def _quantities(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("requests", "limits"):
                yield from value.values()
            else:
                yield from _quantities(value)
    elif isinstance(node, list):
        for each in node:
            yield from _quantities(each)


def _is_quantity(value):
    return isinstance(value, str) and QUANTITY.fullmatch(value) is not None
