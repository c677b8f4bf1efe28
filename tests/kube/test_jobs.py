"""Rounds as Kubernetes Jobs: one message, one Job, one pod, whatever happens on the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest

from conftest import make_app, stepping
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, Offload
from flower_hpc.errors import JobFailed, JobLost, LaunchError
from flower_hpc.launchers.k8s.api import Api
from flower_hpc.launchers.k8s.job import jobs_selector
from flower_hpc.launchers.k8s.manifests import manifests
from flower_hpc.launchers.k8s.options import KubernetesOptions, Standing
from flower_hpc.launchers.k8s.place import Place
from flower_hpc.launchers.kubernetes_executor import KubernetesExecutor
from flower_hpc.records import to_weights
from flower_hpc.transport import InProcessGrid
from offloading import app_of, context, message, train

PLACE = Place("fed", "hpc", "fed-hpc-1a2b3c")
IMAGE = "flower-hpc/node:1"


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    for name in (protocol.NODE_STATE_ENV, protocol.JOB_STATE_ENV, protocol.OFFLOAD_ENV):
        monkeypatch.delenv(name, raising=False)
    InProcessGrid(make_app(stepping([0])), 1)  # says who we are, so that messages can be made here
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # pods know nothing of these tests
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def options_for(kube, tmp_path, **more):
    given = {"image": IMAGE, "python": sys.executable, "grace_s": 5, "standing": Standing()} | more
    return KubernetesOptions(folder=tmp_path, namespace=kube.namespace, **given)


@contextlib.contextmanager
def site_on(kube, tmp_path, **more):
    """A site's objects, but for its SuperNodes, and an executor that may do what they may."""
    options = options_for(kube, tmp_path, **more)
    admin = Api(kube.kubeconfig, None, kube.namespace)
    for each in manifests(options, PLACE, 0, {}, []):
        admin.apply(each)
    kubeconfig = kube.cluster.kubeconfig_of(kube.namespace, PLACE.name)
    theirs = lambda _: Api(kubeconfig, None, kube.namespace)  # noqa: E731
    patience = {"patience_s": 60.0}
    executor = KubernetesExecutor(options, PLACE, address="127.0.0.1", api=theirs, **patience)
    since = kube.core.list_namespaced_pod(kube.namespace).metadata.resource_version
    try:
        yield SimpleNamespace(
            executor=executor, options=options, admin=admin, kubeconfig=kubeconfig, since=since, kube=kube
        )
    finally:
        executor.shutdown(wait=False)
        admin.close()


@pytest.fixture
def site(kube, tmp_path):
    with site_on(kube, tmp_path) as made:
        yield made


@pytest.fixture
def make_site(make_kube, kube, tmp_path):
    with contextlib.ExitStack() as stack:

        def make(knobs=None, **more):
            on = kube if knobs is None else make_kube(**knobs)
            return stack.enter_context(site_on(on, tmp_path, **more))

        yield make


def jobs_of(site):
    return [each["metadata"]["name"] for each in site.admin.list("Job", jobs_selector(PLACE))["items"]]


def pods_of(site):
    return [each["metadata"]["name"] for each in site.admin.list("Pod", jobs_selector(PLACE))["items"]]


def pods_ever(site):
    """Names of all pods that were made since the site was, gone ones too."""
    events = site.admin._raw(
        "list_namespaced_pod",
        "CoreV1Api",
        site.kube.namespace,
        resource_version=site.since,
        watch=True,
        timeout_seconds=1,
    )
    seen = [json.loads(line) for line in events.data.splitlines() if line.strip()]
    return {each["object"]["metadata"]["name"] for each in seen if each["type"] == "ADDED"}


def jobs_asked_for(site):
    asked = site.kube.cluster.requests.find(verb="create", resource="jobs")
    return [each for each in asked if f"/{site.kube.namespace}/" in each.path]


def nothing_is_left(site):
    def left():
        secrets = site.kube.core.list_namespaced_secret(
            site.kube.namespace, label_selector=jobs_selector(PLACE)
        )
        return jobs_of(site) + pods_of(site) + [each.metadata.name for each in secrets.items]

    site.kube.wait(lambda: not left(), 30)


def the_pod(site):
    return site.kube.wait(lambda: pods_of(site), 30)[0]


# what comes back


def test_a_message_trained_in_a_job_equals_the_same_trained_in_place(site):
    config, here, there = {protocol.DEADLINE_S: 300.0}, context(), context()
    inplace, offloaded = app_of(train, [KeepBudget()]), app_of(train, [KeepBudget(), Offload(site.executor)])
    for _ in range(2):  # the second starts from the state that the first left
        ours, theirs = inplace(message(config), here), offloaded(message(config), there)
        np.testing.assert_array_equal(
            to_weights(ours.content["arrays"])["w"], to_weights(theirs.content["arrays"])["w"]
        )
        assert theirs.content["metrics"]["pid"] != os.getpid()
    assert there.state["asked"]["times"] == 2
    assert len(pods_ever(site)) == 2
    nothing_is_left(site)


def test_a_pod_that_takes_40_s_to_start_is_one_job_and_one_pod(make_site):
    site = make_site({"start_delay_s": {"flower-hpc/slow": 40.0}}, image="flower-hpc/slow:1")
    app = app_of(train, [KeepBudget(), Offload(site.executor)])
    metrics = app(message({protocol.DEADLINE_S: 600.0, protocol.RUN: "r"}), context()).content["metrics"]
    assert metrics[protocol.QUEUE_S] > 35
    assert len(jobs_asked_for(site)) == len(pods_ever(site)) == 1
    nothing_is_left(site)


def test_an_answer_that_is_lost_on_the_way_makes_no_second_job(site):
    for kind in ("jobs", "secrets"):
        site.kube.cluster.faults.lose_response(path=f"/{kind}$", method="POST")
    assert site.executor.submit(os.getppid).result(60) == 0
    assert len(pods_ever(site)) == 1
    assert len(jobs_asked_for(site)) == 2
    nothing_is_left(site)


# what is told of it


def failure(future):
    with pytest.raises(JobFailed) as error:
        future.result(60)
    return error.value


def test_an_image_that_is_not_there_is_one_line(make_site):
    site = make_site(image="registry.invalid/nobody/nothing:1")
    error = failure(site.executor.submit(os.getpid))
    assert "ImagePullBackOff" in str(error)
    assert "\n" not in str(error)
    nothing_is_left(site)


def test_a_job_that_fits_nowhere_says_why_and_waits(make_site):
    site = make_site(gpus=7)
    app = app_of(train, [KeepBudget(), Offload(site.executor)])
    with pytest.raises(JobFailed, match=r"still in the queue .*: Unschedulable: .*Insufficient nvidia"):
        app(message({protocol.DEADLINE_S: 6.0}), context())
    nothing_is_left(site)


def test_what_the_cluster_refuses_is_one_line_and_leaves_nothing(site):
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    site.kube.core.create_namespaced_resource_quota(site.kube.namespace, quota)
    with pytest.raises(LaunchError) as error:
        site.executor.submit(os.getpid)
    assert "exceeded quota: few" in str(error.value)
    assert "\n" not in str(error.value)
    nothing_is_left(site)


def until_told():
    while not (Path(os.environ["FLOWER_HPC_JOB_STATE"]) / "stop").exists():
        time.sleep(0.05)
    return "so far"


def for_ever():
    while True:
        time.sleep(1)


def running(site, fn=for_ever):
    future = site.executor.submit(fn)
    site.kube.wait(future.running, 60)
    return future, the_pod(site)


def test_a_job_that_needs_too_much_memory_says_so(site):
    future, pod = running(site)
    site.kube.cluster.oom(site.kube.namespace, pod)
    error = failure(future)
    assert str(error) == f"{future.job}: OOMKilled, exit code 137"
    assert not isinstance(error, JobLost)
    nothing_is_left(site)


def test_what_an_evicted_job_has_done_so_far_comes_back(site):
    future, pod = running(site, until_told)
    body = {"metadata": {"name": pod, "namespace": site.kube.namespace}}
    site.kube.core.create_namespaced_pod_eviction(pod, site.kube.namespace, body)
    assert future.result(60) == "so far"
    nothing_is_left(site)


@pytest.mark.parametrize("how", ["evict", "preempt"])
def test_a_job_that_is_sent_away_is_lost_and_not_failed(site, how):
    future, pod = running(site)
    getattr(site.kube.cluster, how)(site.kube.namespace, pod)
    assert isinstance(error := failure(future), JobLost)
    assert str(error).startswith(f"{future.job}: ")
    nothing_is_left(site)


def test_a_lost_job_is_submitted_again_once(site):
    def lose():
        pod = the_pod(site)
        site.kube.wait(
            lambda: site.kube.cluster.pod(site.kube.namespace, pod)["status"]["phase"] == "Running"
        )
        site.kube.cluster.evict(site.kube.namespace, pod)

    thread = threading.Thread(target=lose)
    thread.start()
    app = app_of(train, [KeepBudget(), Offload(site.executor)])
    reply = app(message({protocol.DEADLINE_S: 300.0, protocol.RUN: "r"}), context())
    thread.join()
    assert reply.content["metrics"][protocol.JOB_RETRIES] == 1
    assert len(pods_ever(site)) == 2
    nothing_is_left(site)


# the end


def test_cancelling_deletes_the_job(site):
    future, _ = running(site)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(1)
    nothing_is_left(site)


def test_the_jobs_of_a_process_that_is_killed_end_by_themselves(site, tmp_path):
    code = f"""
import time, pathlib
from flower_hpc.launchers.k8s import KubernetesOptions
from flower_hpc.launchers.k8s.place import Place
from flower_hpc.launchers.kubernetes_executor import KubernetesExecutor
options = KubernetesOptions(
    folder=pathlib.Path({str(tmp_path)!r}), image={IMAGE!r}, python={sys.executable!r}, grace_s=5,
    namespace={site.kube.namespace!r}, kubeconfig=pathlib.Path({str(site.kubeconfig)!r}))
executor = KubernetesExecutor(options, Place("fed", "hpc", {PLACE.name!r}), address="127.0.0.1", patience_s=2)
future = executor.submit(time.sleep, 3600)
while not future.running():
    time.sleep(0.05)
print("runs", flush=True)
time.sleep(3600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout.readline() == "runs\n"
        pod = the_pod(site)
        caller.send_signal(signal.SIGKILL)

    def over():
        return site.kube.cluster.pod(site.kube.namespace, pod)["status"]["phase"] == "Failed"

    site.kube.wait(over, 60)
    assert "is silent: this job is to stop" in site.admin.log(pod, "call")


def test_the_jobs_of_a_pod_that_is_deleted_go_with_it(site, monkeypatch):
    spec = {
        "containers": [{"name": "c", "image": "flower-hpc/fake-node"}],
        "terminationGracePeriodSeconds": 0,
    }
    body = {"metadata": {"name": "fed-hpc-1a2b3c-0"}, "spec": spec}
    owner = site.kube.core.create_namespaced_pod(site.kube.namespace, body)
    monkeypatch.setenv("FLOWER_HPC_POD", owner.metadata.name)
    monkeypatch.setenv("FLOWER_HPC_POD_UID", owner.metadata.uid)
    future, _ = running(site)
    site.kube.core.delete_namespaced_pod(owner.metadata.name, site.kube.namespace)
    assert isinstance(failure(future), JobLost)
    nothing_is_left(site)


def test_an_executor_that_is_shut_down_leaves_nothing(site):
    future, _ = running(site)
    site.executor.shutdown(wait=False)
    assert future.cancelled()
    with pytest.raises(RuntimeError):
        site.executor.submit(os.getpid)
    nothing_is_left(site)


# what is asked for


def test_a_sites_own_pods_are_not_its_jobs(site):
    future, pod = running(site)
    labels = site.kube.cluster.pod(site.kube.namespace, pod)["metadata"]["labels"]
    assert not PLACE.selected.items() <= labels.items()
    assert Path(site.options.folder).is_dir()
    future.cancel()
