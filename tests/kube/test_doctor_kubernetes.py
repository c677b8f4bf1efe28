"""What the doctor says of a site on Kubernetes: a good one has no problem, and nothing lasts."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flower_hpc.cli import main
from flower_hpc.federation.config import FederationConfig
from flower_hpc.federation.desired import Desired
from flower_hpc.federation.doctor.finding import Health
from flower_hpc.federation.doctor.kubernetes import examine_kubernetes
from flower_hpc.federation.jobs import job_name
from flower_hpc.federation.state import StateDir
from flower_hpc.launchers.k8s.api import Api
from flower_hpc.launchers.k8s.permissions import NEEDED, role
from flower_hpc.launchers.k8s.place import Place
from kube.pods import FAKE
from kube.test_kubernetes_refusals import allow

CHECKS = ["kubernetes", "gateway", "cluster", "permissions", "objects"]


@pytest.fixture
def doctor(kube, site, tmp_path):
    """Asks for a site of two nodes; ``doctor.launcher()`` has its pods."""
    state = StateDir(tmp_path / "home" / "fed")
    state.path.mkdir(parents=True)

    def config(gateway="10.0.0.1", **more):
        cloud = {"launcher": "kubernetes", "nodes": 2, "image": FAKE, "namespace": kube.namespace}
        cloud |= {"kubeconfig": str(kube.kubeconfig)} | more
        data = {"name": "fed", "gateway": {"address": gateway}, "sites": {"cloud": cloud}}
        return FederationConfig.parse(data, "f")

    def ask(*, is_up=False, **more):
        known = config(**more)
        return list(examine_kubernetes("cloud", known.sites["cloud"], known, state, is_up=is_up))

    def launcher(**options):
        Desired(nodes={"cloud": 2}).write(state)
        site.place = Place("fed", "cloud", job_name(config(), "cloud", state))
        return site.launcher(**({"image": FAKE} | options))

    return SimpleNamespace(ask=ask, launcher=launcher, state=state)


def by_check(findings):
    for one in findings:
        assert bool(one.mend) == (one.state is not Health.OK), one
        assert "\n" not in one.found + one.mend
    return {one.check: one for one in findings}


def problems(findings):
    return {name for name, one in by_check(findings).items() if one.state is Health.PROBLEM}


def test_where_all_is_well_nothing_lasts_and_the_role_is_enough(doctor, site):
    path = allow(site, role("flower-hpc"))
    found = by_check(doctor.ask(kubeconfig=str(path)))
    assert list(found) == [*CHECKS, "left over"]
    assert {str(one.state) for one in found.values()} == {"ok"}, found
    assert "context it" in found["cluster"].found
    assert site.kube.namespace in found["cluster"].found
    assert "StatefulSet: 2 pods" in found["objects"].found
    everything = {"label_selector": "app.kubernetes.io/managed-by=flower-hpc"}
    assert not site.kube.core.list_namespaced_secret(site.kube.namespace, **everything).items
    assert not site.kube.apps.list_namespaced_stateful_set(site.kube.namespace, **everything).items


def test_each_verb_that_is_missing_is_named(doctor, site):
    manifest = role("flower-hpc")
    for rule in manifest["rules"]:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb not in ("delete", "get")]
    manifest["rules"] = [rule for rule in manifest["rules"] if rule["verbs"]]
    found = by_check(doctor.ask(kubeconfig=str(allow(site, manifest))))
    assert found["permissions"].state is Health.PROBLEM
    wanted = {
        f"{verb} {resource}"
        for (_, resource), verbs in NEEDED.items()
        for verb in {"delete", "get"} & {*verbs}
    }
    named = re.findall(r"(?:delete|get) [a-z/]+", found["permissions"].found)
    assert set(named) == wanted
    assert "objects" not in found
    assert found["left over"].state is Health.WARNING  # whoever may not delete cannot see what is there


def test_rules_that_the_cluster_does_not_tell_are_no_problem(doctor, site, monkeypatch):
    path = allow(site, role("flower-hpc"))
    monkeypatch.setattr(Api, "rules", lambda self: ((), False))
    found = by_check(doctor.ask(kubeconfig=str(path)))
    assert found["permissions"].state is Health.WARNING
    assert "create secrets" in found["permissions"].found
    assert found["objects"].state is Health.OK


def test_a_namespace_that_is_not_there(doctor):
    found = by_check(doctor.ask(namespace="nowhere"))
    assert 'namespaces "nowhere" not found' in found["objects"].found
    assert found["objects"].found.startswith("ServiceAccount, Secret, ")
    assert found["objects"].mend.startswith("namespace: ")


def test_a_quota_of_objects_is_told_in_the_servers_words(doctor, site):
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/statefulsets.apps": "0"}}}
    site.kube.core.create_namespaced_resource_quota(site.kube.namespace, quota)
    found = by_check(doctor.ask())["objects"]
    assert found.state is Health.PROBLEM
    assert "exceeded quota: few" in found.found
    assert found.mend.startswith("less of what the reason names")


def test_what_the_cluster_would_not_take(doctor):
    found = by_check(doctor.ask(resources={"requests": {"nvidia.com/gpu": "1"}}))["objects"]
    assert found.found.startswith("StatefulSet: ")
    assert "Limit must be set for non overcommitable resources" in found.found


def test_a_cluster_that_is_not_there(doctor, site, tmp_path):
    path = tmp_path / "config"
    path.write_text(re.sub(r"https://[^\"\s]+", "https://127.0.0.1:1", site.kube.kubeconfig.read_text()))
    assert problems(found := doctor.ask(kubeconfig=str(path))) == {"cluster"}
    assert "https://127.0.0.1:1 cannot be reached" in found[-1].found


@pytest.mark.parametrize("options", [{"context": "other"}, {"kubeconfig": "/nowhere"}])
def test_a_kubeconfig_that_cannot_be_used(doctor, options):
    assert problems(found := doctor.ask(**options)) == {"cluster"}
    assert re.search("context must be one of: it|kubeconfig: ", found[-1].found)


def test_credentials_that_have_expired(doctor, site):
    if site.kube.cluster.real:
        pytest.skip("makes tokens of the stand-in")
    path = site.kube.cluster.kubeconfig_of(site.kube.namespace, "default", seconds=-1)
    assert problems(found := doctor.ask(kubeconfig=str(path))) == {"credentials"}
    assert "401 Unauthorized" in found[-1].found


def test_a_package_that_is_missing(doctor, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = by_check(doctor.ask())
    assert list(found) == ["kubernetes", "gateway"]
    assert found["kubernetes"].mend == "pip install 'flower-hpc[kubernetes]'"


def test_rounds_as_jobs_need_more_permissions_and_objects(doctor, site):
    found = by_check(doctor.ask(mode="on-demand", kubeconfig=str(allow(site, role("flower-hpc")))))
    assert "create jobs.batch" in found["permissions"].found
    path = allow(site, role("more", jobs=True), "other")
    found = by_check(doctor.ask(mode="on-demand", kubeconfig=str(path)))
    assert {str(one.state) for one in found.values()} == {"ok"}, found
    assert "Role, " in found["objects"].found


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gateway": "127.0.0.1"}, "calls itself"),
        ({"via": "localhost:9092"}, "calls itself"),
        ({"via": "gate.invalid:9092"}, "gate.invalid is not known here"),
    ],
)
def test_an_address_that_pods_cannot_have_meant(doctor, asked, words):
    found = by_check(doctor.ask(**asked))["gateway"]
    assert found.state is Health.WARNING
    assert words in found.found


def test_pods_of_a_federation_that_is_down_are_a_problem(doctor, site):
    launcher = doctor.launcher()
    site.running(launcher, *(launcher.submit(site.spec(index)) for index in range(2)))
    launcher.close()
    uids = site.pods()
    assert by_check(doctor.ask(is_up=True))["pods"].found == "2 of 2 run"
    found = by_check(doctor.ask())["left over"]
    assert found.state is Health.PROBLEM
    assert f"site cloud with 2 pods, 0.0 h old: {site.pod(0)}, {site.pod(1)}" in found.found
    assert f"StatefulSet {site.place.name}" in found.found
    assert site.pods() == uids  # to look for what is there takes none of it
    words = found.mend[found.mend.index("kubectl ") :].split()
    path = allow(site, role("flower-hpc"))
    subprocess.run([words[0], "--kubeconfig", str(path), *words[1:]], check=True, capture_output=True)
    site.until(lambda: not site.left())
    assert by_check(doctor.ask())["left over"].state is Health.OK


def test_what_somebody_else_started_under_the_same_name_is_found_too(doctor, site):
    launcher = site.launcher(image=FAKE)
    site.running(launcher, launcher.submit(site.spec(0)))
    found = by_check(doctor.ask())["left over"]
    assert site.pod(0) in found.found
    assert found.mend.startswith("`flower-hpc down` of whoever started it, or kubectl delete")


def test_each_pod_that_does_not_run_is_one_line(doctor, site):
    launcher = doctor.launcher(gpus=64)
    tickets = [launcher.submit(site.spec(index)) for index in range(2)]
    site.until(lambda: all("Insufficient" in launcher.status(one).reason for one in tickets))
    found = by_check(doctor.ask(is_up=True))
    assert found["pods"].found == "0 of 2 run"
    for index in range(2):
        line = found[f"pod of cloud-{index}"]
        assert line.found.startswith(f"{site.pod(index)}: Unschedulable: 0/")
        assert line.mend.startswith("cpus, mem, gpus")


def test_pods_that_are_not_made_are_told_with_the_reason(doctor, site):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    site.kube.core.create_namespaced_resource_quota(site.kube.namespace, quota)
    launcher = doctor.launcher()
    tickets = [launcher.submit(site.spec(index)) for index in range(2)]
    site.until(lambda: any("quota" in launcher.status(one).reason for one in tickets), 40)
    made = [one for one in doctor.ask(is_up=True) if one.check == "pods"]
    assert made[0].found.startswith("1 of 2 are made: ")
    assert "exceeded quota: q" in made[0].found


def test_the_command_asks_the_cluster(kube, tmp_path, monkeypatch, capsys):
    site = {"launcher": "kubernetes", "nodes": 1, "image": FAKE, "namespace": kube.namespace}
    site |= {"kubeconfig": str(kube.kubeconfig), "via": "10.0.0.1:9092"}
    (tmp_path / "federation.yaml").write_text(json.dumps({"name": "lab", "sites": {"cloud": site}}))
    monkeypatch.setenv("FLOWER_HPC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["flower-hpc", "doctor", "cloud", "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    assert caught.value.code == 0, said.out + said.err
    found = json.loads(said.out)
    assert [each["check"] for each in found] == [*CHECKS, "left over"]
    assert {each["site"] for each in found} == {"cloud"}
    assert not (tmp_path / "home").exists()
