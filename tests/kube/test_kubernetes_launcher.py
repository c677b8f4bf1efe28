"""What the Kubernetes launcher does, on a real cluster where one is named, else on the stand-in."""

import base64
import gzip
import json
import time

import pytest
import yaml

from flower_hpc.launchers import JobState
from kube.pods import FAKE, Site


def test_nodes_run_as_pods_with_their_own_names_and_all_of_it_goes_again(site):
    launcher = site.launcher()
    tickets = [launcher.submit(site.spec(index)) for index in range(2)]
    site.running(launcher, *tickets)
    assert sorted(site.pods()) == [site.pod(0), site.pod(1)]
    assert launcher.status(tickets[0]).where
    site.until(lambda: f"hello from {site.pod(1)}" in launcher.fetch("cloud-1"))
    assert "=== cloud-1 started" in launcher.fetch("cloud-1")
    for ticket in tickets:
        launcher.cancel(ticket)
        assert launcher.status(ticket).state is JobState.CANCELLED
    site.until(lambda: not site.left())
    assert json.loads((site.folder / "memory.json").read_text()) == {}


def test_the_secret_holds_this_sites_keys_and_no_others(site):
    launcher = site.launcher()
    launcher.submit(site.spec(0))
    site.until(site.pods)
    secret = site.kube.core.read_namespaced_secret(site.place.name, site.kube.namespace)
    data = {name: base64.b64decode(value) for name, value in secret.data.items()}
    assert set(data) == {"ca.pem", "door", "nodes.json.gz", "cloud-0.key"}
    assert data["cloud-0.key"] == b"key 0"
    assert list(json.loads(gzip.decompress(data["nodes.json.gz"]))) == ["cloud-0"]


def test_taking_down_leaves_nothing_at_once(site):
    launcher = site.launcher(grace_s=600)
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"
    site.running(launcher, launcher.submit(site.spec(0, stubborn)))
    assert launcher.take_down() == []
    assert not site.left()


def test_the_next_launcher_takes_over_what_runs(site):
    first = site.launcher()
    site.running(first, *(first.submit(site.spec(index)) for index in range(2)))
    uids = site.pods()
    first.close()
    second = site.launcher()
    found = second.adopt()
    assert sorted(found) == ["cloud-0", "cloud-1"]
    site.running(second, *(one.job_id for one in found.values()))
    third_node = second.submit(site.spec(2))
    site.running(second, third_node)
    assert {name: uid for name, uid in site.pods().items() if name in uids} == uids


def test_a_node_whose_settings_changed_gets_a_new_pod_and_the_others_stay(site):
    launcher = site.launcher()
    tickets = [launcher.submit(site.spec(index)) for index in range(3)]
    site.running(launcher, *tickets)
    before = site.pods()
    launcher.cancel(tickets[1])
    again = launcher.submit(site.spec(1, fingerprint="b"))
    site.until(lambda: site.pods().get(site.pod(1)) not in (None, before[site.pod(1)]))
    site.running(launcher, again)
    after = site.pods()
    assert {n: after[n] for n in (site.pod(0), site.pod(2))} == {
        n: before[n] for n in (site.pod(0), site.pod(2))
    }


def test_one_that_is_cancelled_and_submitted_as_it_was_goes_on(site):
    launcher = site.launcher()
    ticket = launcher.submit(site.spec(0))
    site.running(launcher, ticket)
    before = site.pods()
    launcher.cancel(ticket)
    site.running(launcher, launcher.submit(site.spec(0)))
    time.sleep(4)  # longer than a cancelled one is kept
    assert site.pods() == before


def test_fewer_nodes_are_those_with_the_highest_numbers(site):
    launcher = site.launcher()
    tickets = [launcher.submit(site.spec(index)) for index in range(3)]
    site.running(launcher, *tickets)
    launcher.cancel(tickets[2])
    site.until(lambda: sorted(site.pods()) == [site.pod(0), site.pod(1)])
    site.running(launcher, *tickets[:2])


def test_a_deleted_pod_comes_again_and_why_is_told(site):
    launcher, seen = site.launcher(), set()
    ticket = launcher.submit(site.spec(0))
    site.running(launcher, ticket)
    site.kube.core.delete_namespaced_pod(site.pod(0), site.kube.namespace)
    site.until(lambda: seen.add(launcher.status(ticket)) or any(one.state == "pending" for one in seen))
    site.running(launcher, ticket)
    pending = [one for one in seen if one.state is JobState.PENDING]
    assert {one.ended for one in pending} == {JobState.PREEMPTED}, seen
    assert any(one.leaves_at is not None for one in seen)


def test_an_eviction_through_the_api_is_told_with_its_reason(site):
    launcher, seen = site.launcher(), set()
    ticket = launcher.submit(site.spec(0))
    site.running(launcher, ticket)
    site.kube.core.create_namespaced_pod_eviction(
        site.pod(0), site.kube.namespace, {"metadata": {"name": site.pod(0)}}
    )
    site.until(lambda: seen.add(launcher.status(ticket)) or any(one.state == "pending" for one in seen))
    assert any("Evict" in one.reason for one in seen), seen


def test_no_host_for_it_is_told_in_the_schedulers_words(site):
    launcher = site.launcher(gpus=64)
    ticket = launcher.submit(site.spec(0))
    site.until(lambda: "Insufficient nvidia.com/gpu" in launcher.status(ticket).reason)
    assert launcher.status(ticket).state is JobState.PENDING
    assert launcher.status(ticket).reason.startswith("Unschedulable: 0/")


@pytest.mark.parametrize(
    ("image", "words"),
    [("nowhere.invalid/none:1", "ImagePullBackOff"), ("NOT an image".replace(" ", "/"), "InvalidImageName")],
)
def test_an_image_that_is_not_there_is_a_failure_and_not_a_wait(site, image, words):
    launcher = site.launcher()
    # past the check of its form, which is ours: a cluster may be stricter
    object.__setattr__(launcher.options, "image", image)
    ticket = launcher.submit(site.spec(0))
    site.until(lambda: launcher.status(ticket).state is JobState.FAILED, 60)
    assert launcher.status(ticket).refused
    assert words in launcher.status(ticket).reason
    assert image in launcher.status(ticket).reason


def test_a_node_that_crashes_again_and_again_has_failed(site):
    launcher = site.launcher()
    ticket = launcher.submit(site.spec(0, "print('the reason', flush=True); raise SystemExit(3)"))
    site.until(lambda: launcher.status(ticket).state is JobState.FAILED, 90)
    assert "exit code 3: the reason" in launcher.status(ticket).reason


def test_settings_and_secrets_reach_the_program(site):
    site.kube.core.create_namespaced_secret(
        site.kube.namespace, {"metadata": {"name": "theirs"}, "stringData": {"token": "t0p"}}
    )
    code = (
        "import os, pathlib, time\n"
        "print(os.getuid(), os.environ['COLOUR'], os.environ['TOKEN'], "
        "pathlib.Path('/data/token').read_text(), sorted(os.listdir('/etc/flower-hpc')), flush=True)\n"
        "try:\n open('/x', 'w')\nexcept OSError as error:\n print(error, flush=True)\n"
        "time.sleep(600)"
    )
    launcher = site.launcher(
        secret_env={"TOKEN": "theirs/token"}, volumes=(_volume("/data", "theirs"),), user=4711
    )
    launcher.submit(site.spec(0, code, COLOUR="red"))
    site.until(lambda: "read-only" in _log(launcher).lower(), 40)
    assert "4711 red t0p t0p" in _log(launcher)


def test_what_is_printed_can_be_applied_and_holds_no_secret(site):
    launcher = site.launcher()
    text = launcher.render_all([site.spec(0), site.spec(1)], "tcp:10.0.0.1:9092")
    objects = list(yaml.safe_load_all(text))
    assert [each["kind"] for each in objects][-1] == "StatefulSet"
    assert "key 0" not in text
    assert base64.b64encode(b"key 0").decode() not in text
    for each in objects:
        launcher.api.apply(each, dry_run=True)
    assert not site.left()


def test_many_nodes_cost_few_calls(kube, tmp_path):
    big = Site(kube, tmp_path / "site", nodes=200)
    try:
        launcher = big.launcher(image=FAKE)
        if kube.cluster.real:
            pytest.skip("counts requests of the stand-in")
        kube.cluster.requests.clear()
        tickets = [launcher.submit(big.spec(index)) for index in range(200)]
        big.until(lambda: all(launcher.status(one).state == "running" for one in tickets), 120)
        launcher.close()
        kube.cluster.faults.drop_watches()  # one stands in the log when it ends
        big.until(lambda: kube.cluster.requests.count(verb="watch"))
        asked = [f"{one.verb} {one.resource}" for one in kube.cluster.requests.find()]
        assert asked.count("watch pods") == 1
        assert len(asked) <= 12, asked
    finally:
        big.close()


def _log(launcher):
    try:
        return launcher.fetch("cloud-0")
    except Exception:
        return ""


def _volume(mount, secret):
    from flower_hpc.launchers.k8s import Volume

    return Volume(mount=mount, secret=secret)
