"""The stand-in says and does what a real cluster does, as far as a launcher can tell."""

import base64
import json
import os
import subprocess
import time

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from processes import BIN

IMAGE, FAKE = "flower-hpc:test", "flower-hpc/fake-node"
PORTABLE = "application/apply-patch+yaml"
SLEEP = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); time.sleep(600)"


def container(code=SLEEP, name="c", **more):
    return {"name": name, "image": IMAGE, "command": ["python", "-c", code]} | more


def pod(name="p", code=SLEEP, labels=None, more=None, **spec):
    found = {"containers": [container(code, **(more or {}))], "terminationGracePeriodSeconds": 5}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": found | spec}


def fake(**more):
    return {"name": "c", "image": FAKE} | more


def workload(name="web", replicas=2, spec=None, **more):
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [fake()]} | (spec or {})}
    found = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": found | more}


def send(kube, method, path, body=None, content="application/json", **query):
    """Whatever the client's own models would refuse; status and parsed body."""
    headers = {"Content-Type": content, "Accept": "application/json"}
    settings = kube.api_client.configuration
    headers["Authorization"] = (
        settings.get_api_key_with_prefix("BearerToken") or settings.api_key["authorization"]
    )
    text = "&".join(f"{k}={v}" for k, v in query.items())
    url = settings.host + path.format(ns=kube.namespace) + (f"?{text}" if text else "")
    try:
        body = json.dumps(body).encode() if body is not None else None
        answer = kube.api_client.rest_client.pool_manager.request(method, url, body=body, headers=headers)
    except ApiException as error:
        return error.status, json.loads(error.body)
    return answer.status, json.loads(answer.data)


def apply(kube, item, manager="ours", force="false", plural="statefulsets"):
    path = f"/apis/apps/v1/namespaces/{{ns}}/{plural}/{item['metadata']['name']}"
    return send(kube, "PATCH", path, item, PORTABLE, fieldManager=manager, force=force)


def state_of(kube, name, which=0):
    """The one state of a pod's container, and the reason it says."""
    found = kube.core.read_namespaced_pod(name, kube.namespace).status.container_statuses
    if not found:
        return "", ""
    state = found[which].state
    for word in ("waiting", "running", "terminated"):
        if getattr(state, word):
            return word, getattr(getattr(state, word), "reason", "")
    return "", ""


def reaches(kube, name, *wanted, seconds=20):
    kube.wait(lambda: state_of(kube, name) == wanted, seconds)


def gone(kube, name="p"):
    kube.wait(lambda: kube.cluster.store.find("pods", kube.namespace, name) is None)


def spec_with(**fields):
    return {"metadata": {"name": "p"}, "spec": {"containers": [fake(**fields)]}}


GPU = {"requests": {"nvidia.com/gpu": "1"}}
REFUSED = [
    (spec_with(imagePullPolicy="Sometimes"), 'Unsupported value: "Sometimes": supported values: "Always"'),
    (spec_with(resources=GPU), "Required value: Limit must be set for non overcommitable resources"),
    (spec_with(ports=[{"containerPort": 70000}]), "Invalid value: 70000: must be between 1 and 65535"),
    (spec_with(volumeMounts=[{"name": "x", "mountPath": "/x"}]), 'volumeMounts[0].name: Not found: "x"'),
    (spec_with(name="Bad_Name"), "a lowercase RFC 1123 label must consist of"),
    ({"metadata": {"name": "Bad_Name"}, "spec": {"containers": [fake()]}}, "a lowercase RFC 1123 subdomain"),
    ({"metadata": {"name": "p" * 254}, "spec": {"containers": [fake()]}}, "must be no more than 253"),
    (pod(labels={"a": "bad value!"}), "a valid label must be an empty string or consist of"),
    (pod(labels={"a": "v" * 64}), "must be no more than 63"),
    ({"metadata": {"name": "p"}, "spec": {}}, 'Pod "p" is invalid: spec.containers: Required value'),
    (pod(tolerations=[{"effect": "Never"}]), 'spec.tolerations[0].effect: Unsupported value: "Never"'),
]
UNREAD = [
    (spec_with(resources={"limits": {"memory": "1GB"}}), "quantities must match the regular expression"),
    (
        spec_with(env=[{"name": "A", "value": 1}]),
        "cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
    ),
]


@pytest.mark.parametrize(("item", "words"), REFUSED)
def test_what_is_invalid_is_refused_with_its_field(kube, item, words):
    status, body = send(kube, "POST", "/api/v1/namespaces/{ns}/pods", item)
    assert (status, body["kind"], body["reason"]) == (422, "Status", "Invalid")
    assert words in body["message"]
    assert body["details"]["causes"][0]["field"]


@pytest.mark.parametrize(("item", "words"), UNREAD)
def test_what_cannot_be_decoded_is_a_bad_request(kube, item, words):
    status, body = send(kube, "POST", "/api/v1/namespaces/{ns}/pods", item)
    assert (status, body["reason"]) == (400, "BadRequest")
    assert words in body["message"]


def test_unknown_fields_are_refused_if_asked_and_else_dropped(kube):
    path, item = "/api/v1/namespaces/{ns}/pods", spec_with(imagee="x")
    status, body = send(kube, "POST", path, item, fieldValidation="Strict")
    assert status == 400
    assert 'strict decoding error: unknown field "spec.containers[0].imagee"' in body["message"]
    assert send(kube, "POST", path, item)[0] == 201
    status, body = apply(kube, workload(surprise=1))
    assert (status, body.get("reason")) == (500, None)
    assert ".spec.surprise: field not declared in schema" in body["message"]


def test_a_selector_must_match_and_most_of_a_statefulset_stays(kube):
    wrong = workload()
    wrong["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    status, body = apply(kube, wrong)
    assert status == 422
    assert "`selector` does not match template `labels`" in body["message"]
    assert apply(kube, workload())[0] == 201
    status, body = apply(kube, workload(podManagementPolicy="Parallel"))
    assert status == 422
    assert (
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals'"
        in body["message"]
    )


def test_secrets_are_base64_and_at_most_a_mebibyte(kube):
    path = "/api/v1/namespaces/{ns}/secrets"
    status, body = send(kube, "POST", path, {"metadata": {"name": "s"}, "data": {"a": "%%%"}})
    assert (status, "illegal base64 data at input byte 0" in body["message"]) == (400, True)
    large = base64.b64encode(bytes(1024 * 1024 + 1)).decode()
    status, body = send(kube, "POST", path, {"metadata": {"name": "s"}, "data": {"a": large}})
    assert (status, "Too long: may not be more than 1048576 bytes" in body["message"]) == (422, True)


def test_what_is_not_there_twice_there_or_stale(kube):
    name = kube.namespace
    with pytest.raises(ApiException, match='secrets \\\\"x\\\\" not found') as error:
        kube.core.read_namespaced_secret("x", name)
    assert error.value.status == 404
    made = kube.core.create_namespaced_secret(name, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert made.data == {"a": "Yg=="}
    with pytest.raises(ApiException, match="already exists"):
        kube.core.create_namespaced_secret(name, {"metadata": {"name": "s"}})
    kube.core.replace_namespaced_secret("s", name, made)
    kube.core.patch_namespaced_secret("s", name, {"stringData": {"a": "c"}})
    with pytest.raises(ApiException, match="the object has been modified"):
        kube.core.replace_namespaced_secret("s", name, made)
    with pytest.raises(ApiException, match="UID in the precondition"):
        kube.core.delete_namespaced_secret("s", name, body={"preconditions": {"uid": "other"}})
    with pytest.raises(ApiException, match='namespaces \\\\"nowhere\\\\" not found'):
        kube.core.create_namespaced_secret("nowhere", {"metadata": {"name": "s"}})


def test_dry_runs_change_nothing(kube):
    kube.core.create_namespaced_pod(kube.namespace, pod(), dry_run="All")
    assert not kube.core.list_namespaced_pod(kube.namespace).items


def test_a_watch_resumes_and_is_told_when_it_cannot(kube):
    core, name = kube.core, kube.namespace
    start = core.list_namespaced_config_map(name).metadata.resource_version
    for k in range(3):
        core.create_namespaced_config_map(name, {"metadata": {"name": f"m{k}", "labels": {"k": str(k)}}})
    seen = list(
        watch.Watch().stream(core.list_namespaced_config_map, name, resource_version=start, timeout_seconds=1)
    )
    assert [(e["type"], e["object"].metadata.name) for e in seen] == [("ADDED", f"m{k}") for k in range(3)]
    middle = seen[1]["object"].metadata.resource_version
    more = watch.Watch().stream(
        core.list_namespaced_config_map, name, resource_version=middle, timeout_seconds=1
    )
    assert [e["object"].metadata.name for e in more] == ["m2"]
    kube.cluster.faults.compact()
    core.create_namespaced_config_map(name, {"metadata": {"name": "m3"}})
    stale = watch.Watch()
    with pytest.raises(ApiException) as error:
        list(stale.stream(core.list_namespaced_config_map, name, resource_version=start, timeout_seconds=1))
    assert error.value.status == 410


def test_applying_removes_what_is_applied_no_more_and_minds_other_managers(kube):
    item = workload()
    item["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    assert apply(kube, item)[0] == 201
    assert apply(kube, item)[0] == 200
    del item["spec"]["template"]["spec"]["containers"][0]["env"]
    status, body = apply(kube, item)
    assert status == 200
    assert "env" not in body["spec"]["template"]["spec"]["containers"][0]
    item["spec"]["replicas"] = 5
    status, body = apply(kube, item, manager="theirs")
    assert (status, body["reason"]) == (409, "Conflict")
    assert (
        body["message"] == 'Apply failed with 1 conflict: conflict with "ours" using apps/v1: .spec.replicas'
    )
    status, body = apply(kube, item, manager="theirs", force="true")
    assert (status, body["spec"]["replicas"]) == (200, 5)


def test_a_statefulset_keeps_its_pods(kube):
    name = kube.namespace
    kube.apps.create_namespaced_stateful_set(name, workload(podManagementPolicy="Parallel"))
    kube.wait(lambda: kube.apps.read_namespaced_stateful_set("web", name).status.ready_replicas == 2)
    first = kube.core.read_namespaced_pod("web-0", name)
    assert first.metadata.labels["apps.kubernetes.io/pod-index"] == "0"
    assert first.metadata.labels["statefulset.kubernetes.io/pod-name"] == "web-0"
    kube.core.delete_namespaced_pod("web-0", name)
    kube.wait(lambda: uid_of(kube, "web-0") not in (None, first.metadata.uid))
    if not kube.cluster.real:
        kube.cluster.evict(name, "web-1")
        kube.wait(lambda: kube.apps.read_namespaced_stateful_set("web", name).status.ready_replicas == 2)
    kube.apps.patch_namespaced_stateful_set_scale("web", name, {"spec": {"replicas": 1}})
    kube.wait(lambda: len(kube.core.list_namespaced_pod(name).items) == 1)
    kube.apps.delete_namespaced_stateful_set("web", name)
    kube.wait(lambda: not kube.core.list_namespaced_pod(name).items)


def uid_of(kube, name):
    found = kube.cluster.store.find("pods", kube.namespace, name)
    return found and found["metadata"]["uid"]


def test_claims_of_a_statefulset_outlive_its_pods(kube):
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
    code = f"open('/data/seen','a').write('x'); print(open('/data/seen').read(), flush=True); {SLEEP}"
    # a short grace: the signal may come before Python has its handler, and number 1 ignores it then
    spec = {
        "terminationGracePeriodSeconds": 2,
        "containers": [container(code, volumeMounts=[{"name": "data", "mountPath": "/data"}])],
    }
    kube.apps.create_namespaced_stateful_set(
        kube.namespace, workload(replicas=1, spec=spec, volumeClaimTemplates=[claim])
    )
    kube.wait(lambda: log(kube, "web-0") == "x\n")
    kube.core.delete_namespaced_pod("web-0", kube.namespace)
    kube.wait(lambda: log(kube, "web-0") == "xx\n")


def log(kube, name, **options):
    try:
        raw = kube.core.read_namespaced_pod_log(name, kube.namespace, _preload_content=False, **options)
    except ApiException:
        return ""
    return raw.data.decode()


def test_an_eviction_minds_the_budget(kube):
    name = kube.namespace
    kube.core.create_namespaced_pod(name, pod(labels={"app": "web"}))
    kube.cluster.wait_ready(name, "p")
    budget = {
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    client.PolicyV1Api(kube.api_client).create_namespaced_pod_disruption_budget(name, budget)
    with pytest.raises(ApiException, match="violate the pod's disruption budget") as error:
        kube.core.create_namespaced_pod_eviction("p", name, {"metadata": {"name": "p"}})
    assert error.value.status == 429
    client.PolicyV1Api(kube.api_client).delete_namespaced_pod_disruption_budget("b", name)
    kube.core.create_namespaced_pod_eviction("p", name, {"metadata": {"name": "p"}})
    gone(kube)


def test_a_pod_has_its_grace_period_and_its_log_until_the_end(kube):
    code = "import signal, sys, time\ndef bye(*_): print('bye', flush=True); time.sleep(1); sys.exit(0)\n"
    code += "signal.signal(15, bye); print('hi', flush=True); time.sleep(600)"
    kube.core.create_namespaced_pod(kube.namespace, pod(code=code))
    kube.wait(lambda: log(kube, "p") == "hi\n")
    kube.core.delete_namespaced_pod("p", kube.namespace)
    kube.wait(lambda: log(kube, "p") == "hi\nbye\n", 5)
    assert kube.core.read_namespaced_pod("p", kube.namespace).metadata.deletion_timestamp
    gone(kube)


def test_who_ignores_the_signal_is_killed_after_the_grace_period(kube):
    kube.core.create_namespaced_pod(kube.namespace, pod(code="import time; time.sleep(600)"))
    kube.cluster.wait_ready(kube.namespace, "p")
    start = time.monotonic()
    kube.core.delete_namespaced_pod("p", kube.namespace, grace_period_seconds=1)
    gone(kube)
    assert 0.9 < time.monotonic() - start < 4


def test_a_changed_secret_reaches_a_running_pod(kube):
    name = kube.namespace
    kube.core.create_namespaced_secret(name, {"metadata": {"name": "s"}, "stringData": {"key": "old"}})
    code = "import time\nwhile True: print(open('/etc/flower/tls/key').read(), flush=True); time.sleep(.1)"
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/etc/flower/tls", "readOnly": True}]}
    volumes = [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}]
    more = mount | {"securityContext": {"readOnlyRootFilesystem": True, "runAsUser": 1000}}
    kube.core.create_namespaced_pod(name, pod(code=code, more=more, volumes=volumes))
    kube.wait(lambda: "old" in log(kube, "p"))
    kube.core.patch_namespaced_secret("s", name, {"stringData": {"key": "new"}})
    kube.wait(lambda: log(kube, "p").endswith("new\n"), 5)


def test_a_read_only_root_and_what_a_pod_knows_of_itself(kube):
    code = (
        "import os; print(os.environ['ME'], os.environ['BOTH'], os.getuid(), os.getpid(), os.environ['IP'])\n"
    )
    code += "for p in ('/tmp/x', '/data/x', '/x'):\n  try: open(p, 'w'); print(p)\n"
    code += "  except OSError as e: print(e.strerror)"
    env = [{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    env.append({"name": "BOTH", "value": "$(ME)/$(NONE)"})
    env.append({"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    mounts = [{"name": "t", "mountPath": "/tmp"}, {"name": "t", "mountPath": "/data", "subPathExpr": "$(ME)"}]
    more = {"env": env, "volumeMounts": mounts}
    more["securityContext"] = {"readOnlyRootFilesystem": True, "runAsUser": 1234}
    item = pod(code=code, more=more, volumes=[{"name": "t", "emptyDir": {}}], restartPolicy="Never")
    kube.core.create_namespaced_pod(kube.namespace, item)
    reaches(kube, "p", "terminated", "Completed")
    ip = kube.core.read_namespaced_pod("p", kube.namespace).status.pod_ip
    assert log(kube, "p").splitlines() == [
        f"p p/$(NONE) 1234 1 {ip}",
        "/tmp/x",
        "/data/x",
        "Read-only file system",
    ]


def test_a_service_account_may_what_its_role_says(kube):
    name, rbac = kube.namespace, client.RbacAuthorizationV1Api(kube.api_client)
    kube.core.create_namespaced_service_account(name, {"metadata": {"name": "launcher"}})
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    rbac.create_namespaced_role(name, {"metadata": {"name": "r"}, "rules": rules})
    binding = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
    }
    binding["subjects"] = [{"kind": "ServiceAccount", "name": "launcher", "namespace": name}]
    rbac.create_namespaced_role_binding(name, binding)
    with config.new_client_from_config(str(kube.cluster.kubeconfig_of(name, "launcher"))) as theirs:
        core = client.CoreV1Api(theirs)
        assert core.list_namespaced_pod(name).items == []
        with pytest.raises(ApiException) as error:
            core.read_namespaced_secret("tls", name)
        assert error.value.status == 403
        who = f'User "system:serviceaccount:{name}:launcher" cannot get resource "secrets" in API group ""'
        said = f'secrets "tls" is forbidden: {who} in the namespace "{name}"'
        assert json.loads(error.value.body)["message"] == said
        review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "subresource": "log"}}}
        review["spec"]["resourceAttributes"]["namespace"] = name
        access = client.AuthorizationV1Api(theirs).create_self_subject_access_review
        assert not access(review).status.allowed
    kube.cluster.tokens.revoke(f"system:serviceaccount:{name}:launcher")


def test_an_expired_token_is_nobodys(kube):
    path = kube.cluster.kubeconfig_of(kube.namespace, "default", seconds=0)
    with config.new_client_from_config(str(path)) as late, pytest.raises(ApiException) as error:
        client.CoreV1Api(late).list_namespaced_pod(kube.namespace)
    assert (error.value.status, json.loads(error.value.body)["message"]) == (401, "Unauthorized")


def test_inside_a_pod_its_service_account_counts(kube):
    code = "from kubernetes import client, config\nconfig.load_incluster_config()\n"
    code += f"try: client.CoreV1Api().list_namespaced_pod('{kube.namespace}')\n"
    code += "except Exception as e: print(e.status)"
    kube.core.create_namespaced_pod(kube.namespace, pod(code=code, restartPolicy="Never"))
    reaches(kube, "p", "terminated", "Completed")
    assert log(kube, "p") == "403\n"
    no = pod("q", "import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))", restartPolicy="Never")
    no["spec"]["automountServiceAccountToken"] = False
    kube.core.create_namespaced_pod(kube.namespace, no)
    reaches(kube, "q", "terminated", "Completed")
    assert log(kube, "q") == "False\n"


def job(code, **spec):
    template = {
        "spec": {
            "containers": [container(code)],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
        }
    }
    return {"metadata": {"name": "j"}, "spec": {"template": template, "backoffLimit": 0} | spec}


@pytest.mark.parametrize(
    ("item", "kind", "reason"),
    [
        (job("print(1)"), "Complete", "CompletionsReached"),
        (job("exit(3)"), "Failed", "BackoffLimitExceeded"),
        (job(SLEEP, activeDeadlineSeconds=1), "Failed", "DeadlineExceeded"),
    ],
)
def test_a_job_ends_one_way_or_another(kube, item, kind, reason):
    def ended():
        found = kube.batch.read_namespaced_job("j", kube.namespace).status.conditions or []
        return [c.reason for c in found if c.type == kind]

    kube.batch.create_namespaced_job(kube.namespace, item)
    assert kube.wait(ended) == [reason]


def test_a_job_goes_some_time_after_its_end(kube):
    kube.batch.create_namespaced_job(kube.namespace, job("print(1)", ttlSecondsAfterFinished=0))
    kube.wait(lambda: not kube.batch.list_namespaced_job(kube.namespace).items)
    kube.wait(lambda: not kube.core.list_namespaced_pod(kube.namespace).items)


def test_images_that_are_not_there(kube):
    for name, image, policy in (
        ("a", "nginx:1", "Always"),
        ("b", "nginx:1", "Never"),
        ("d", "NG INX", "Always"),
    ):
        item = pod(name, more={"image": image, "imagePullPolicy": policy})
        kube.core.create_namespaced_pod(kube.namespace, item)
    reaches(kube, "b", "waiting", "ErrImageNeverPull")
    reaches(kube, "d", "waiting", "InvalidImageName")
    reaches(kube, "a", "waiting", "ErrImagePull")
    reaches(kube, "a", "waiting", "ImagePullBackOff")


def test_a_crash_is_followed_by_a_restart_and_a_wait(kube):
    kube.core.create_namespaced_pod(kube.namespace, pod(code="print('oh', flush=True); exit(7)"))
    reaches(kube, "p", "waiting", "CrashLoopBackOff")
    found = kube.core.read_namespaced_pod("p", kube.namespace).status.container_statuses[0]
    assert found.restart_count >= 1
    assert (found.last_state.terminated.exit_code, found.last_state.terminated.reason) == (7, "Error")
    assert log(kube, "p", previous=True) == "oh\n"


def test_out_of_memory_and_a_program_that_is_not_there(kube):
    kube.core.create_namespaced_pod(kube.namespace, pod(restartPolicy="Never"))
    kube.core.create_namespaced_pod(
        kube.namespace, pod("q", more={"command": ["nosuch"]}, restartPolicy="Never")
    )
    kube.cluster.wait_ready(kube.namespace, "p")
    kube.cluster.oom(kube.namespace, "p")
    reaches(kube, "p", "terminated", "OOMKilled")
    found = kube.core.read_namespaced_pod("p", kube.namespace).status
    assert (found.phase, found.container_statuses[0].state.terminated.exit_code) == ("Failed", 137)
    reaches(kube, "q", "terminated", "StartError")


def test_a_pod_that_fits_nowhere_says_why(kube):
    more = {"image": FAKE, "resources": {"limits": {"nvidia.com/gpu": "9"}}}
    kube.core.create_namespaced_pod(kube.namespace, pod(more=more, nodeSelector={"gpu": "yes"}))

    def message():
        found = kube.core.read_namespaced_pod("p", kube.namespace).status.conditions or []
        return [c.message for c in found if (c.type, c.reason) == ("PodScheduled", "Unschedulable")]

    said = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, "
    said += "2 node(s) didn't match Pod's node affinity/selector."
    assert kube.wait(message)[0].startswith(said)
    kube.wait(
        lambda: (
            kube.core.list_namespaced_event(kube.namespace, field_selector="reason=FailedScheduling").items
        )
    )


def test_a_lost_node_loses_its_pods_when_it_is_removed(make_kube):
    kube = make_kube(node_grace_s=0.3)
    name, cluster = kube.namespace, kube.cluster
    kube.apps.create_namespaced_stateful_set(name, workload(replicas=1))
    cluster.wait_ready(name, "web-0")
    node, uid = cluster.pod(name, "web-0")["spec"]["nodeName"], uid_of(kube, "web-0")
    cluster.kill_node(node)
    kube.wait(lambda: "node.kubernetes.io/unreachable" in str(kube.core.read_node(node).spec.taints))
    cluster.remove_node(node)
    kube.wait(lambda: uid_of(kube, "web-0") not in (None, uid))
    cluster.wait_ready(name, "web-0")
    assert cluster.pod(name, "web-0")["spec"]["nodeName"] != node


def test_readiness_comes_from_the_grpc_health_service(kube):
    code = "import grpc, sys, time, os\nfrom concurrent import futures\n"
    code += "from grpc_health.v1 import health, health_pb2_grpc\n"
    code += "s = grpc.server(futures.ThreadPoolExecutor(2))\n"
    code += "health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), s)\n"
    code += (
        "assert os.environ['IP'].count('.') == 3; assert s.add_insecure_port(os.environ['IP'] + ':18080')\n"
    )
    code += "s.start(); time.sleep(600)"
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    for name, port in (("p", 18080), ("q", 18081)):
        probe = {"grpc": {"port": port}, "periodSeconds": 1, "timeoutSeconds": 2}
        item = pod(name, code, more={"readinessProbe": probe, "env": env}, terminationGracePeriodSeconds=0)
        kube.core.create_namespaced_pod(kube.namespace, item)
    kube.cluster.wait_ready(kube.namespace, "p")
    time.sleep(1)
    assert state_of(kube, "q") == ("running", "")
    assert not kube.core.read_namespaced_pod("q", kube.namespace).status.container_statuses[0].ready


def test_commands_run_inside_for_probes(kube):
    probe = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1}
    kube.core.create_namespaced_pod(
        kube.namespace, pod(code=f"open('/tmp/ok', 'w'); {SLEEP}", more={"readinessProbe": probe})
    )
    kube.cluster.wait_ready(kube.namespace, "p")


def test_a_quota_limits_and_says_so(kube):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}}
    kube.core.create_namespaced_resource_quota(kube.namespace, quota)
    two = {"image": FAKE, "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    kube.core.create_namespaced_pod(kube.namespace, pod(more=two))
    one = {"image": FAKE, "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    with pytest.raises(ApiException) as error:
        kube.core.create_namespaced_pod(kube.namespace, pod("o", more=one))
    said = "exceeded quota: q, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2"
    assert error.value.status == 403
    assert f"{said}, limited: requests.nvidia.com/gpu=2" in json.loads(error.value.body)["message"]


def test_faults_happen_as_often_as_asked(kube):
    faults, name = kube.cluster.faults, kube.namespace
    busy = faults.add(method="GET", path="/configmaps", status=429, retry_after=1)
    kube.core.list_namespaced_config_map(name)
    assert busy.happened == 1, "the client waits and tries again by itself"
    broken = faults.add(path="/configmaps", status=500, times=9)
    with pytest.raises(ApiException) as error:
        kube.core.list_namespaced_config_map(name)
    assert (error.value.status, broken.happened) == (500, 1)
    faults.clear()


def test_an_answer_can_be_lost_after_the_deed(kube):
    kube.cluster.faults.lose_response(method="POST", path="/configmaps")
    with pytest.raises(HTTPError):
        kube.core.create_namespaced_config_map(kube.namespace, {"metadata": {"name": "m"}})
    assert kube.core.read_namespaced_config_map("m", kube.namespace).metadata.name == "m"
    assert kube.cluster.requests.count(verb="create", resource="configmaps") == 1


def kubectl(kube, *words, text=None):
    command = ["kubectl", "--kubeconfig", str(kube.kubeconfig), "-n", kube.namespace, *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_kubectl_cannot_tell_the_difference(kube):
    manifest = json.dumps(workload())
    assert kubectl(kube, "apply", "-f", "-", text=manifest) == (0, "statefulset.apps/web created\n")
    code, said = kubectl(kube, "apply", "--server-side", "-f", "-", text=manifest)
    assert (code, "serverside-applied" in said) == (0, True)
    code, said = kubectl(kube, "apply", "-f", "-", text=manifest.replace('"replicas"', '"replicaz"'))
    assert (code, 'unknown field "spec.replicaz"' in said) == (1, True)
    kube.cluster.wait_ready(kube.namespace, "web-0", "web-1")
    assert "web-1   1/1     Running" in kubectl(kube, "get", "pods")[1]
    assert kubectl(kube, "auth", "can-i", "create", "pods") == (0, "yes\n")
    assert "deleted" in kubectl(kube, "delete", "statefulset", "web")[1]


def test_many_pods_do_not_take_long(kube):
    start = time.monotonic()
    kube.apps.create_namespaced_stateful_set(
        kube.namespace, workload(replicas=200, podManagementPolicy="Parallel")
    )
    kube.wait(
        lambda: kube.apps.read_namespaced_stateful_set("web", kube.namespace).status.ready_replicas == 200, 60
    )
    print(f"200 pods in {time.monotonic() - start:.1f} s")


def test_up_and_down_leave_nothing(tmp_path):
    program = [str(BIN / "python"), os.path.join(os.path.dirname(__file__), "cluster.py")]
    up = subprocess.run([*program, "up", "--dir", tmp_path], capture_output=True, text=True, check=True)
    with config.new_client_from_config(up.stdout.strip()) as api_client:
        core = client.CoreV1Api(api_client)
        core.create_namespaced_pod("default", pod())
        while core.read_namespaced_pod("p", "default").status.phase != "Running":
            time.sleep(0.1)
    subprocess.run([*program, "down", "--dir", tmp_path], check=True)
    assert list(tmp_path.iterdir()) == []
