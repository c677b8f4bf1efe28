"""What we send to clusters is what their schemas, both official clients and the restricted standard take."""

import copy
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kubernetes import client

from flower_hpc.errors import ConfigError
from flower_hpc.launchers.k8s import KubernetesOptions, Volume
from flower_hpc.launchers.k8s.link import SERVICES, LinkOptions, link_manifests, place_of
from flower_hpc.launchers.k8s.manifests import manifests
from flower_hpc.launchers.k8s.options import split_egress
from flower_hpc.launchers.k8s.place import Place
from kube_rules import not_restricted, refused

SITE = Place("lab", "cloud", "lab-cloud-a1b2c3")
VERSIONS = ("1.29", "1.36")
BUNDLE = {"ca.pem": b"-----BEGIN", "door": b"tcp:1.2.3.4:8443", "nodes.json.gz": bytes(range(256))}
REACH = [("203.0.113.7/32", 8443), ("2001:db8::/64", 443)]
OLDER = "kubernetes==36.0.3"

words = st.from_regex(r"[a-z]([a-z0-9]{0,8})", fullmatch=True)
labels = st.dictionaries(words.map(lambda word: f"example.org/{word}"), words, max_size=2)
quantities = st.sampled_from(["1", "500m", "2.5", "4Gi", "100M", "1Ti", ".5"])
volumes = st.sampled_from(
    [
        Volume(mount="/data", claim="scans"),
        Volume(mount="/more", claim="scans", read_only=False),
        Volume(mount="/keys", secret="keys"),
        Volume(mount="/etc/mine", config_map="mine"),
    ]
)
tolerations = st.sampled_from(
    [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute", "tolerationSeconds": 60},
    ]
)
TERM = {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100", "h100"]}]}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}}
MORE = {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "2Gi", "rdma/hca": "1"}}

pods = st.builds(
    KubernetesOptions,
    folder=st.just(Path("/nowhere")),
    image=st.sampled_from(["registry.example.org/me/node:1", "localhost:5000/a/b@sha256:" + "0" * 64]),
    namespace=st.none() | words,
    cpus=st.none() | quantities,
    mem=st.none() | quantities,
    gpus=st.integers(0, 8),
    gpu_resource=st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb"]),
    resources=st.sampled_from([{}, MORE]),
    node_selector=labels,
    tolerations=st.lists(tolerations, max_size=2).map(tuple),
    affinity=st.sampled_from([{}, AFFINITY]),
    priority_class=st.none() | words,
    runtime_class=st.none() | words,
    pull_secrets=st.lists(words, max_size=2, unique=True).map(tuple),
    pull_policy=st.sampled_from([None, "Always", "IfNotPresent", "Never"]),
    service_account=st.none() | words,
    secret_env=st.dictionaries(words.map(str.upper), st.just("secret/key"), max_size=2),
    volumes=st.lists(volumes, max_size=3, unique_by=lambda volume: volume.mount).map(tuple),
    storage=st.none() | quantities,
    storage_class=st.none() | words,
    egress=st.sampled_from([(), ("10.0.0.0/8", "192.0.2.0/24:443", "[2001:db8::/32]:443")]),
    user=st.integers(1, 2**31 - 1),
    grace_s=st.integers(5, 3600),
    labels=labels,
    annotations=st.dictionaries(words, st.text(max_size=20), max_size=2),
)
somewhere = pods.map(lambda pod: replace(pod, namespace=pod.namespace or "fl"))
links = st.builds(
    LinkOptions,
    pod=somewhere,
    service=st.sampled_from([name for name in SERVICES if name != "NodePort"]),
    port=st.integers(1024, 65535),
    jobs=st.booleans(),
    service_annotations=labels,
) | st.builds(LinkOptions, pod=somewhere, service=st.just("NodePort"), node_port=st.none() | st.just(30443))
files = st.text(max_size=60).map(lambda text: f"name: lab\n# {text!r}\n")
sites = st.builds(
    lambda pod, nodes, bundle, reach: manifests(pod, SITE, nodes, bundle, reach),
    pods,
    st.integers(0, 1000),
    st.sampled_from([{}, BUNDLE]),
    st.sampled_from([[], REACH]),
)
anything = sites | st.builds(lambda one, text: link_manifests(one, place_of("lab"), text), links, files)
# no shrinking: a failing object is readable as it is, and schemas take long
many = settings(
    deadline=None,
    max_examples=30,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def pod_of(manifest):
    return manifest.get("spec", {}).get("template", {}).get("spec")


def full(pod=None, **more):
    """One of each object, with much in it."""
    pod = pod or KubernetesOptions(
        folder=Path("/nowhere"),
        image="registry.example.org/me/node:1",
        namespace="fl",
        cpus="2",
        mem="4Gi",
        gpus=1,
        tolerations=({"key": "spot", "operator": "Exists"},),
        affinity=AFFINITY,
        volumes=(Volume(mount="/data", claim="scans"),),
        secret_env={"TOKEN": "secret/key"},
        storage="10Gi",
        egress=("10.0.0.0/8",),
        annotations={"note": "yes"},
        **more,
    )
    link = LinkOptions(pod=pod, service="NodePort", node_port=30443, service_annotations={"lb": "internal"})
    return manifests(pod, SITE, 3, BUNDLE, REACH) + link_manifests(link, place_of("lab"), "name: lab\n")


@many
@given(anything)
def test_schemas_take_it(objects):
    for each in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)


@many
@given(anything)
def test_the_client_takes_it_and_sends_it_unchanged(objects):
    sent = client.ApiClient()
    for each in objects:
        model = getattr(client, f"V1{each['kind']}").model_validate(each)
        assert sent.sanitize_for_serialization(model) == each


@many
@given(anything)
def test_a_server_has_nothing_against_it_that_schemas_miss(objects):
    assert [words for each in objects for words in refused(each)] == []


@many
@given(anything)
def test_pods_are_within_the_restricted_standard(objects):
    found = [pod for each in objects if (pod := pod_of(each)) is not None]
    assert found
    assert [words for pod in found for words in not_restricted(pod)] == []


@many
@given(anything)
def test_as_yaml_it_reads_the_same(objects):
    assert list(yaml.safe_load_all(yaml.safe_dump_all(objects, sort_keys=False))) == objects
    assert json.loads(json.dumps(objects)) == objects


@many
@given(anything)
def test_every_object_says_whose_it_is_and_has_a_name_of_its_own(objects):
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "flower-hpc"


def test_only_a_folder_of_the_host_leaves_the_restricted_standard():
    pod = KubernetesOptions(
        folder=Path("/nowhere"),
        image="i:1",
        namespace="fl",
        volumes=(Volume(mount="/data", host_path="/srv"),),
    )
    found = [words for each in full(pod) if pod_of(each) for words in not_restricted(pod_of(each))]
    assert found == ["volume data-0 is hostPath"] * 2


def change(pod, path, value):
    *way, last = path
    for step in way:
        pod = pod[step]
    pod[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostNetwork",), True),
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("containers", 0, "securityContext", "privileged"), True),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"]),
        (("containers", 0, "ports"), [{"containerPort": 80, "hostPort": 80}]),
    ],
)
def test_the_check_of_the_standard_finds_each_breach(path, value):
    for pod in filter(None, map(pod_of, full())):
        assert not_restricted(pod) == []
        worse = copy.deepcopy(pod)
        change(worse, path, value)
        assert len(not_restricted(worse)) == 1


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("StatefulSet", ("metadata", "name"), "Bad_Name"),
        ("StatefulSet", ("spec", "selector", "matchLabels", "app"), "other"),
        (
            "StatefulSet",
            ("spec", "template", "spec", "containers", 0, "resources", "limits", "memory"),
            "1GB",
        ),
        ("StatefulSet", ("spec", "template", "spec", "containers", 0, "resources", "requests", "x.y/z"), "1"),
        ("Deployment", ("spec", "template", "spec", "volumes"), []),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "imagePullPolicy"), "Sometimes"),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), 70000),
    ],
)
def test_the_check_of_what_schemas_miss_finds_it_and_they_do_miss_it(kind, path, value):
    (manifest,) = (each for each in full() if each["kind"] == kind)
    change(manifest, path, value)
    kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    assert refused(manifest)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("10.0.0.0/8", ("10.0.0.0/8", None)),
        ("10.1.2.3", ("10.1.2.3", None)),
        ("10.0.0.0/8:443", ("10.0.0.0/8", 443)),
        ("2001:db8::/32", ("2001:db8::/32", None)),
        ("[2001:db8::/32]", ("2001:db8::/32", None)),
        ("[2001:db8::/32]:443", ("2001:db8::/32", 443)),
    ],
)
def test_egress_is_a_network_with_or_without_a_port(where, found):
    assert split_egress(where) == found


@pytest.mark.parametrize("where", ["", ":443", "10.0.0.0/8:", "10.0.0.0/8:0", "example.org:443", "[::/0]:x"])
def test_egress_that_is_no_network_is_refused(where):
    with pytest.raises(ConfigError, match="egress must be CIDR"):
        split_egress(where)


def test_schemas_refuse_what_is_unknown():
    (manifest,) = (each for each in full() if each["kind"] == "Deployment")
    manifest["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_a_superlink_in_a_cluster_is_where_sites_let_their_pods_out_to():
    objects = full()
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    (policy, *_) = (each for each in objects if each["kind"] == "NetworkPolicy")
    wanted = policy["spec"]["egress"][1]["to"][0]["podSelector"]["matchLabels"]
    assert wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_its_service_leads_to_the_gateway_alone():
    objects = full()
    (service,) = (each for each in objects if each["kind"] == "Service")
    pod = next(pod_of(each) for each in objects if each["kind"] == "Deployment")
    (port,), (open_port,) = service["spec"]["ports"], pod["containers"][0]["ports"]
    assert port["targetPort"] == open_port["name"]
    policy = [each for each in objects if each["kind"] == "NetworkPolicy"][-1]
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": open_port["containerPort"]}]}]


def test_only_the_superlink_has_a_token():
    tokens = {each["kind"]: pod_of(each)["automountServiceAccountToken"] for each in full() if pod_of(each)}
    assert tokens == {"StatefulSet": False, "Deployment": True}


def test_an_older_client_sends_it_unchanged(tmp_path):
    """Client 36 has other models: in an environment of its own, since two do not fit into one."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed, which makes an environment with another client")
    (tmp_path / "objects.json").write_text(json.dumps(full()))
    script = (
        "import json, sys; from kubernetes import client, __version__ as v; assert v.startswith('36.'), v\n"
        "api = client.ApiClient(); found = json.load(open(sys.argv[1]))\n"
        "class Response:\n    def __init__(self, each): self.data = json.dumps(each)\n"
        "for each in found:\n"
        "    model = api.deserialize(Response(each), 'V1' + each['kind'])\n"
        "    assert api.sanitize_for_serialization(model) == each, each['kind']\n"
        "print(len(found))\n"
    )
    command = ["uv", "run", "--isolated", "--no-project", "--with", OLDER, "python", "-c", script]
    env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        [*command, str(tmp_path / "objects.json")],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to fetch" in done.stderr and "FLOWER_HPC_REQUIRE_CLIENTS" not in os.environ:
        pytest.skip("there is no way to a package index")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(full())
