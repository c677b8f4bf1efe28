"""The chart makes the objects that the launchers make."""

import copy
import importlib.util
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from flower_hpc import __version__
from flower_hpc.federation.config import FederationConfig
from flower_hpc.federation.handing import Handover
from flower_hpc.launchers.k8s import KubernetesOptions, Volume
from flower_hpc.launchers.k8s.link import LinkOptions, link_manifests, place_of
from flower_hpc.launchers.k8s.manifests import manifests
from flower_hpc.launchers.k8s.place import Place
from helm import render
from kube_rules import not_restricted, refused

ROOT = Path(__file__).parents[1]
CHART, README = ROOT / "deploy/helm/flower-hpc", ROOT / "README.md"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = yaml.safe_load((CHART / "values.schema.json").read_text())
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists"}
EGRESS = {"to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [{"protocol": "TCP", "port": 8443}]}


def values(part, **more):
    made = copy.deepcopy(VALUES)
    made["superlink"]["enabled"], made["site"]["enabled"] = part == "superlink", part == "site"
    made[part] |= more
    jsonschema.validate(made, SCHEMA)
    return made


def rendered(given):
    found = []
    for path in sorted((CHART / "templates").glob("*.yaml")):
        found += render(path.read_text(), given, "fl")
    return found


def same(found, wanted):
    assert [one["kind"] for one in found] == [one["kind"] for one in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == theirs


def test_its_templates_are_made_of_our_manifests():
    spec = importlib.util.spec_from_file_location("make", CHART.parent / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name, content in make.templates().items():
        assert (CHART / "templates" / name).read_text() == content, "run deploy/helm/make.py"


PLACED = {
    "nodeSelector": {"gpu": "a100"},
    "tolerations": [TOLERATION],
    "affinity": {"podAntiAffinity": {}},
    "priorityClass": "high",
    "runtimeClass": "nvidia",
    "pullSecrets": [{"name": "registry"}],
}
OPTIONS = {
    "node_selector": {"gpu": "a100"},
    "tolerations": (TOLERATION,),
    "affinity": {"podAntiAffinity": {}},
    "priority_class": "high",
    "runtime_class": "nvidia",
    "pull_secrets": ("registry",),
}


@pytest.mark.parametrize(("placed", "options"), [({}, {}), (PLACED, OPTIONS)], ids=["plain", "placed"])
@pytest.mark.parametrize("service", ["LoadBalancer", "NodePort", "ClusterIP"])
def test_a_superlink_is_the_one_of_the_launcher(placed, options, service):
    given = values("superlink", service=service, port=9443, graceSeconds=30, user=2000, **placed)
    pod = KubernetesOptions(
        folder=Path(),
        image=VALUES["superlink"]["image"],
        namespace="fl",
        storage="5Gi",
        user=2000,
        grace_s=30,
        **options,
    )
    ours = LinkOptions(pod=pod, service=service.replace("ClusterIP", "port-forward"), port=9443)
    text = yaml.safe_dump(VALUES["superlink"]["federationFile"]).rstrip("\n")
    found = rendered(given)
    same(found, link_manifests(ours, place_of("lab"), text))
    assert not_restricted(found[-1]["spec"]["template"]["spec"]) == []


@pytest.mark.parametrize(("placed", "options"), [({}, {}), (PLACED, OPTIONS)], ids=["plain", "placed"])
def test_a_site_is_the_one_of_the_launcher_but_for_its_secret(placed, options):
    volume = Volume(mount="/data", claim="scans")
    given = values(
        "site",
        nodes=7,
        egress=[EGRESS],
        resources={"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "1"}},
        volumes=[{"name": "data-0"} | volume.source],
        volumeMounts=[{"name": "data-0", "mountPath": "/data", "readOnly": True}],
        **placed,
    )
    ours = KubernetesOptions(
        folder=Path(),
        image=VALUES["site"]["image"],
        namespace="fl",
        cpus="2",
        gpus=1,
        volumes=(volume,),
        **options,
    )
    place = Place("lab", "cloud", "lab-cloud")
    wanted = manifests(ours, place, 7, {}, [("203.0.113.7/32", 8443)])
    found = rendered(given)
    same(found, [one for one in wanted if one["kind"] != "Secret"])
    assert [words for one in found for words in refused(one)] == []


def test_nothing_is_made_of_what_is_not_enabled():
    given = values("site")
    given["site"]["enabled"] = False
    assert rendered(given) == []


def test_the_default_file_is_a_federation():
    data = VALUES["superlink"]["federationFile"]
    config = FederationConfig.parse(data, "values.yaml")
    assert (config.name, config.gateway.port) == (VALUES["federation"], VALUES["superlink"]["port"])
    assert config.gateway.address == VALUES["superlink"]["name"] == place_of(config.name).name


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("site", {"unknown": 1}),
        ("site", {"nodes": -1}),
        ("site", {"user": 0}),
        ("site", {"resources": {"limits": {"nvidia.com/gpu": 1}}}),
        ("superlink", {"service": "port-forward"}),
        ("superlink", {"storage": ""}),
        ("superlink", {"federationFile": {"gateway": {}, "sites": {}, "superlink": {}}}),
    ],
)
def test_values_that_cannot_work_are_refused(part, what):
    with pytest.raises(jsonschema.ValidationError):
        values(part, **what)


def test_its_version_is_the_packages():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_what_is_handed_over_is_what_a_site_of_the_chart_looks_for():
    files = {"ca.pem": b"1", "door": b"2", "nodes.json.gz": b"3", "cloud-0.key": b"4"}
    handed = Handover("lab", "cloud", ("cloud-0",), files, 60)
    secret = handed.secret()
    given = values("site", nodes=1)
    assert secret["metadata"]["name"] == given["site"]["bundleSecret"]
    assert secret["metadata"]["labels"]["flower-hpc/site"] == given["site"]["name"]
    (pod,) = (one["spec"]["template"]["spec"] for one in rendered(given) if one["kind"] == "StatefulSet")
    (volume,) = (one for one in pod["volumes"] if one["name"] == "bundle")
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    node = pod["containers"][0]["command"][3].replace("{ordinal}", "0")
    assert f"{node}.key" in secret["data"]
    values("site", bundleSecret=Handover("lab", "a" * 50, (), files, 60).secret()["metadata"]["name"])


def test_the_site_of_others_in_the_readme_can_be_meant():
    section = README.read_text("utf-8").partition("\n## A site that others start\n")[2].partition("\n## ")[0]
    ours, theirs = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))
    config = FederationConfig.parse({"name": "lab"} | ours, "README.md")
    ((name, site),) = config.sites.items()
    given = values("site", **{key: value for key, value in theirs["site"].items() if key != "enabled"})
    assert (theirs["federation"], theirs["superlink"]) == (config.name, {"enabled": False})
    assert (theirs["site"]["name"], theirs["site"]["nodes"]) == (name, site.nodes)
    assert theirs["site"]["bundleSecret"] == f"{config.name}-{name}"
    assert [words for one in rendered(given) for words in refused(one)] == []
