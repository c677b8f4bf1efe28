"""Kubernetes sites in mode on-demand: what is refused, what their SuperNodes are told, what jobs are."""

import json
from pathlib import Path

import pytest

from flower_hpc.errors import ConfigError
from flower_hpc.federation import FederationConfig
from flower_hpc.federation.jobs import offloading
from flower_hpc.federation.state import StateDir
from flower_hpc.launchers.k8s.job import job, job_secret
from flower_hpc.launchers.k8s.manifests import manifests
from flower_hpc.launchers.k8s.permissions import lacking, role
from flower_hpc.launchers.k8s.place import Place
from flower_hpc.launchers.kubernetes_executor import from_settings
from flower_hpc.protocol import OFFLOAD_ENV

SITE = """
    launcher: kubernetes
    nodes: 2
    image: registry.example.org/me/node:1
    namespace: fl
    via: gateway.example.org:9092
    mode: on-demand
    cpus: 8
    gpus: 1
    node_selector: {pool: gpu}
    tolerations: [{key: nvidia.com/gpu, operator: Exists}]
    service_account: reads-data
    volumes: [{mount: /data, claim: scans}]
    env: {HF_HOME: /data/hf}
    secret_env: {TOKEN: hub/token}
"""


def config_of(extra="", site=SITE):
    text = f"name: fed\nsites:\n  cloud:{site}    {extra}\n"
    path = Path("federation.yaml")
    path.write_text(text)
    return FederationConfig.load(path)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def options_of(extra=""):
    return config_of(extra).sites["cloud"].batch(Path())


PLACE = Place("fed", "cloud", "fed-cloud-1a2b3c")


@pytest.mark.parametrize(
    ("extra", "site", "line"),
    [
        ("", SITE.replace("    namespace: fl\n", ""), "sites.cloud.namespace: got None, must be given where"),
        ("standing: {cpus: two}", SITE, "sites.cloud.standing.cpus: got 'two', must be a quantity such as"),
        (
            "standing: {api_server: here}",
            SITE,
            "standing.api_server: got 'here', must be CIDR or CIDR:PORT",
        ),
        ("standing: {gpus: 1}", SITE, "sites.cloud.standing.gpus: unknown field, must be one of: cpus, mem"),
        (
            "standing: {}",
            SITE.replace("on-demand", "pilot"),
            "cloud.standing: got {}, must be left out",
        ),
        ("network: private", SITE, "sites.cloud.network: got 'private', must be host where mode"),
        ("", SITE.replace("on-demand", "later"), "sites.cloud.mode: got 'later', must be one of: pilot"),
    ],
)
def test_a_mistake_is_one_line(extra, site, line):
    with pytest.raises(ConfigError) as error:
        config_of(extra, site)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_what_nodes_are_told_makes_the_jobs_that_the_site_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWER_HPC_ADDRESS", "10.0.0.1")
    config = config_of()
    told = offloading(config.sites["cloud"], config, "cloud", StateDir(tmp_path))
    settings = json.loads(told[OFFLOAD_ENV])
    assert settings.pop("executor") == "flower_hpc.launchers.kubernetes_executor:from_settings"
    executor = from_settings(settings)
    asked = {"caller": "c", "owner": None, "minutes": 5}
    ours = job(config.sites["cloud"].batch(Path()), executor.place, "n", **asked)
    assert job(executor.options, executor.place, "n", **asked) == ours
    assert executor.place.name.startswith("fed-cloud-")
    assert executor._env == ("HF_HOME",)


@pytest.mark.parametrize(
    "extra", [{"colour": "red"}, {"place": {"name": "x"}}, {"volumes": [{"claim": "c"}]}, {"patience_s": 0}]
)
def test_settings_that_make_no_sense_are_refused(tmp_path, monkeypatch, extra):
    monkeypatch.setenv("FLOWER_HPC_ADDRESS", "10.0.0.1")
    config = config_of()
    settings = json.loads(offloading(config.sites["cloud"], config, "cloud", StateDir(tmp_path))[OFFLOAD_ENV])
    with pytest.raises(ConfigError):
        from_settings(settings | extra)


def objects(extra=""):
    found = manifests(options_of(extra), PLACE, 2, {}, [])
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def test_supernodes_are_light_and_jobs_have_the_gpu():
    options = options_of("standing: {mem: 2Gi}")
    light = objects("standing: {mem: 2Gi}")["StatefulSet", PLACE.name]["spec"]["template"]["spec"]
    heavy = job(options, PLACE, "n", caller="c", owner=None, minutes=None)["spec"]["template"]["spec"]
    assert light["containers"][0]["resources"] == {
        "requests": {"cpu": "250m", "memory": "2Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert heavy["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert not {"nodeSelector", "tolerations"} & light.keys()
    assert {"nodeSelector", "tolerations"} <= heavy.keys()


def test_only_supernodes_hold_a_token_and_it_reads_no_secrets():
    found = objects()
    light = found["StatefulSet", PLACE.name]["spec"]["template"]["spec"]
    heavy = job(options_of(), PLACE, "n", caller="c", owner=None, minutes=None)["spec"]["template"]["spec"]
    assert (light["automountServiceAccountToken"], light["serviceAccountName"]) == (True, PLACE.name)
    assert (heavy["automountServiceAccountToken"], heavy["serviceAccountName"]) == (False, "reads-data")
    rules = found["Role", PLACE.name]["rules"]
    assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == [["create"]]
    assert found["RoleBinding", PLACE.name]["subjects"][0]["name"] == PLACE.name


def test_the_token_of_a_call_is_in_its_secret_alone():
    made = job(options_of(), PLACE, "n", caller="c", owner=("pod", "u1"), minutes=5)
    made["metadata"]["uid"] = "u2"
    secret = job_secret(options_of(), PLACE, made, caller="c", content={"token": "t0k3n"})
    assert "t0k3n" not in json.dumps(made)
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u2"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["activeDeadlineSeconds"] == 300


def test_policies_let_jobs_reach_supernodes_and_nothing_else():
    found = objects("egress: [192.0.2.0/24:443]")
    nodes, jobs = (found["NetworkPolicy", name]["spec"] for name in (PLACE.name, f"{PLACE.name}-jobs"))
    made = job(options_of(), PLACE, "n", caller="c", owner=None, minutes=None)
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert jobs["podSelector"]["matchLabels"].items() <= labels.items()
    assert not nodes["podSelector"]["matchLabels"].items() <= labels.items()
    (only,) = nodes["ingress"]
    assert only["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert only["ports"] == [{"protocol": "TCP", "port": 9100, "endPort": 9163}]
    assert jobs["ingress"] == []
    _, towards, data = jobs["egress"]
    assert towards["to"] == [{"podSelector": {"matchLabels": PLACE.selected}}]
    assert data["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]


def test_the_api_server_can_be_named():
    def reached(extra):
        egress = objects(extra)["NetworkPolicy", PLACE.name]["spec"]["egress"]
        return [(each["to"][0]["ipBlock"]["cidr"], each["ports"][0]["port"]) for each in egress[2:]]

    assert ("0.0.0.0/0", 6443) in reached("")
    assert reached("standing: {api_server: 192.0.2.7/32:6443}") == [("192.0.2.7/32", 6443)]


def test_who_may_make_a_sites_objects_but_no_roles_lacks_what_jobs_need():
    plain, full = role("r")["rules"], role("r", jobs=True)["rules"]
    assert not list(lacking(plain))
    assert "create jobs.batch" in list(lacking(plain, jobs=True))
    assert not list(lacking(full, jobs=True))
    granted = objects()["Role", PLACE.name]["rules"]  # nobody may give what they do not have
    for rule in granted:
        (group,), (kind,) = rule["apiGroups"], rule["resources"]
        (ours,) = [r for r in full if r["apiGroups"] == [group] and r["resources"] == [kind]]
        assert set(rule["verbs"]) <= set(ours["verbs"])
