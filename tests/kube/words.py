"""Values with a syntax or a fixed choice, and what the server says of others."""

import re

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
DATA_KEY = "[-._a-zA-Z0-9]+"
ENDS = "and must start and end with an alphanumeric character"
SAID = {
    LABEL: "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    f"{ENDS} (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')",
    SUBDOMAIN: "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    f"'-' or '.', {ENDS} (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')",
    VALUE: "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    f"{ENDS} (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{VALUE}')",
    KEY: "name part must consist of alphanumeric characters, '-', '_' or '.', "
    f"{ENDS} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{KEY}')",
    DATA_KEY: "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
    f"(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '{DATA_KEY}')",
}
# by type and field: what may stand there
CHOICES = {
    ("Container", "imagePullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("Container", "terminationMessagePolicy"): ("FallbackToLogsOnError", "File"),
    ("ContainerPort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("ServicePort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("PodSpec", "dnsPolicy"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("PodSpec", "preemptionPolicy"): ("Never", "PreemptLowerPriority"),
    ("Toleration", "effect"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("Toleration", "operator"): ("Equal", "Exists"),
    ("Taint", "effect"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("ServiceSpec", "type"): ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    ("ServiceSpec", "sessionAffinity"): ("ClientIP", "None"),
    ("DeploymentStrategy", "type"): ("Recreate", "RollingUpdate"),
    ("PersistentVolumeClaimSpec", "volumeMode"): ("Block", "Filesystem"),
    ("SeccompProfile", "type"): ("Localhost", "RuntimeDefault", "Unconfined"),
    ("TopologySpreadConstraint", "whenUnsatisfiable"): ("DoNotSchedule", "ScheduleAnyway"),
    ("HTTPGetAction", "scheme"): ("HTTP", "HTTPS"),
}
# the same, where the server says it as an invalid value
MUST = {
    ("StatefulSetSpec", "podManagementPolicy"): ("OrderedReady", "Parallel"),
    ("StatefulSetUpdateStrategy", "type"): ("RollingUpdate", "OnDelete"),
}
OPERATORS = {
    "NodeSelectorRequirement": (
        ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
        "not a valid selector operator",
    ),
    "LabelSelectorRequirement": (
        ("In", "NotIn", "Exists", "DoesNotExist"),
        "not a valid selector operator",
    ),
}
# kinds whose names become parts of host names
NAMED_AS_LABELS = {"namespaces", "services", "statefulsets"}


def syntax(pattern: str, text: str, longest: int) -> str | None:
    """What is wrong with a text, if anything."""
    if len(text) > longest:
        return f"must be no more than {longest} bytes"
    return None if re.fullmatch(pattern, text) else SAID[pattern]
