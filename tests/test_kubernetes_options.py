"""A Kubernetes site in a federation.yaml: what a cluster would refuse is refused at once, by its field."""

from pathlib import Path

import pytest
import yaml

from flower_hpc.errors import ConfigError
from flower_hpc.federation import FederationConfig
from flower_hpc.launchers.k8s.forms import amount

SITE = {"launcher": "kubernetes", "nodes": 1, "cpus": 1, "mem": "1Gi", "image": "flower-hpc:test"}
JOBS = "mode: on-demand, namespace: fl"
NAME = "must be a name of a-z, 0-9, '-' and '.'"
QUANTITY = "must be a quantity such as 500m, 2 or 4Gi, above 0"
IMAGE = "must be a reference such as registry.example.org/me/node:1"


def load(text):
    """The site with the fields of ``text``, a YAML mapping without its braces."""
    site = SITE | yaml.safe_load(f"{{{text}}}")
    content = {"gateway": {"address": "127.0.0.1"}, "sites": {"cloud": site}}
    return FederationConfig.parse(content, "f").sites["cloud"]


WRONG = {
    "image: UPPER/Case:1": f"image: got 'UPPER/Case:1', {IMAGE}",
    "image: 'x:y:z'": f"image: got 'x:y:z', {IMAGE}",
    "image: -rm": f"image: got '-rm', {IMAGE}",
    "image: 5": f"image: got 5, {IMAGE}",
    "image: ''": f"image: got '', {IMAGE}",
    "image: [a]": f"image: got ['a'], {IMAGE}",
    "image: a@sha256:12": f"image: got 'a@sha256:12', {IMAGE}",
    "cpus: 0": f"cpus: got '0', {QUANTITY}",
    "cpus: .0": f"cpus: got '0.0', {QUANTITY}",
    "cpus: true": "cpus: got True, must be a quantity such as 2 or 500m",
    "mem: 0": f"mem: got '0', {QUANTITY}",
    "mem: 5": "mem: got '5', must be a size of at least 1Mi, with its unit, such as 4Gi",
    "mem: 500m": "mem: got '500m', must be a size of at least 1Mi",
    "mem: true": "mem: got True, must be a quantity such as 4Gi",
    "storage: 0Gi": f"storage: got '0Gi', {QUANTITY}",
    "storage: 10": "storage: got '10', must be a size of at least 1Mi",
    "storage_class: fast": "storage_class: got 'fast', must be left out where there is no storage",
    "storage: 1Gi, storage_class: No Good": f"storage_class: got 'No Good', {NAME}",
    "gpus: 65": "gpus: got 65, must be an integer from 0 to 64",
    "gpu_resource: foo bar": "gpu_resource: got 'foo bar', must be DOMAIN/NAME, such as nvidia.com/gpu",
    "gpu_resource: gpu": "gpu_resource: got 'gpu', must be DOMAIN/NAME, such as nvidia.com/gpu",
    "resources: {limits: {memory: -1}}": "resources.limits: got {'memory': '-1'}, must be a mapping to quant",
    "resources: {requests: {cpu: bad}}": "resources.requests: got {'cpu': 'bad'}, must be a mapping to quant",
    "resources: {requests: {gpu: 1}}": "resources.requests: got 'gpu', must be a mapping of cpu, memory,",
    "resources: {foo: {cpu: 1}}": "resources: got 'foo', must be a mapping of requests and limits",
    "node_selector: {a b: c}": "node_selector: got 'a b', must be a mapping of labels, each NAME or",
    "node_selector: {a/b/c: d}": "node_selector: got 'a/b/c', must be a mapping of labels",
    "node_selector: {a: b c}": "node_selector: got {'a': 'b c'}, must be a mapping to at most 63 letters",
    "labels: {a b: c}": "labels: got 'a b', must be a mapping of labels",
    "labels: {a: x y}": "labels: got {'a': 'x y'}, must be a mapping to at most 63",
    "labels: {app.kubernetes.io/name: me}": "labels: got 'app.kubernetes.io/name', must be a mapping without",
    "labels: {flower-hpc/site: me}": "labels: got 'flower-hpc/site', must be a mapping without app.kub",
    "annotations: {a b: c}": "annotations: got 'a b', must be a mapping of annotations",
    "tolerations: {key: a}": "tolerations: got {'key': 'a'}, must be a list of mappings, as in a pod",
    "tolerations: [{ky: a}]": "tolerations: got 'ky', must be mappings of key, operator, value, effect,",
    "tolerations: [{key: a b}]": "tolerations: got 'a b', must be mappings whose key is",
    "tolerations: [{key: a, operator: Maybe}]": "got 'Maybe', must be mappings whose operator is Exists or",
    "tolerations: [{key: a, effect: Nope}]": "got 'Nope', must be mappings whose effect is one of NoSchedule",
    "tolerations: [{key: a, value: true}]": "tolerations: got True, must be mappings whose value is text",
    "tolerations: [{operator: Equal}]": "must be mappings with a key unless the operator is Exists",
    "tolerations: [{key: a, operator: Exists, value: x}]": "must be mappings without value where the",
    "tolerations: [{key: a, tolerationSeconds: 5}]": "with tolerationSeconds for the effect NoExecute alone",
    "affinity: {foo: 1}": "affinity: got {'foo': 1}, must be a mapping of nodeAffinity, podAffinity, podAnti",
    "affinity: {nodeAffinity: 1}": "affinity: got {'nodeAffinity': 1}, must be a mapping of",
    "priority_class: No Good": f"priority_class: got 'No Good', {NAME}",
    "runtime_class: No Good": f"runtime_class: got 'No Good', {NAME}",
    "service_account: No Good": f"service_account: got 'No Good', {NAME}",
    "pull_secrets: [No Good]": f"pull_secrets: got 'No Good', {NAME}",
    "pull_secrets: x": "pull_secrets: got 'x', must be a list of names",
    "secret_env: {1TOKEN: a/b}": "secret_env: got '1TOKEN', must be a mapping whose keys are names of var",
    "secret_env: {TOKEN: name}": "secret_env: got {'TOKEN': 'name'}, must be a mapping to secret/key",
    "secret_env: {TOKEN: A/b}": "secret_env: got {'TOKEN': 'A/b'}, must be a mapping to secret/key",
    "volumes: [{mount: /d}]": "volumes: got none, must be mappings with one of claim, secret, config_map,",
    "volumes: [{mount: /d, claim: a, secret: b}]": "volumes: got claim, secret, must be mappings with one of",
    "volumes: [{mount: /d, claim: No Good}]": f"volumes.claim: got 'No Good', {NAME}",
    "volumes: [{mount: /d, secret: A}]": f"volumes.secret: got 'A', {NAME}",
    "volumes: [{mount: /d, config_map: A}]": f"volumes.config_map: got 'A', {NAME}",
    "volumes: [{mount: /d, host_path: rel}]": "volumes.host_path: got 'rel', must be an absolute path",
    "volumes: [{mount: /a/../etc, claim: a}]": "volumes: got '/a/../etc', must be mounted at an absolute",
    "volumes: [{mount: //tmp/, claim: a}]": "volumes: got '//tmp/', must be mounted at an absolute path",
    "volumes: [{mount: /d, claim: a}, {mount: /d/, claim: b}]": "volumes: got '/d', must be mounted each at",
    "volumes: [{mount: /d, claim: a, read_only: maybe}]": "volumes.0.read_only: got 'maybe', must be true or",
    "python: rm -rf /": "python: got 'rm -rf /', must be the name or path of a program, without spaces",
    "python: ''": "python: got '', must be the name or path of a program, without spaces",
    "namespace: ''": "namespace: got '', must be 1 to 63 of a-z, 0-9 and '-'",
    "context: ''": "context: got '', must be the name of a context of the kubeconfig",
    "user: 2147483648": "user: got 2147483648, must be an integer from 1 to 2147483647",
    "mode: on-demand": "namespace: got None, must be given where rounds are jobs",
    "standing: {cpus: 1}": "standing: got {'cpus': '1'}, must be left out where mode is pilot",
    f"{JOBS}, network: private": "network: got 'private', must be host where mode is on-demand",
    f"{JOBS}, standing: {{cpus: -1}}": f"standing.cpus: got '-1', {QUANTITY}",
    f"{JOBS}, standing: {{mem: 5}}": "standing.mem: got '5', must be a size of at least 1Mi",
    f"{JOBS}, standing: {{api_server: foo}}": "standing.api_server: got 'foo', must be CIDR or CIDR:PORT",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_a_cluster_refuses_is_one_line_with_the_field(text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith("f: sites.cloud.")
    assert WRONG[text] in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "cpus: 0.5",
        "cpus: 500m",
        "mem: 1048576",
        "mem: 1.5Gi",
        "storage: 1Gi, storage_class: fast.ssd",
        "image: 'registry:5000/a/b__c:v1.2-x'",
        f"image: 'registry.example.org/me/node:1@sha256:{'0' * 64}'",
        "image: '[2001:db8::1]:5000/a'",
        "image: Registry.example.org/a",
        "gpu_resource: nvidia.com/mig-1g.5gb",
        "resources: {requests: {cpu: 0, ephemeral-storage: 1Gi, hugepages-2Mi: 4Mi, rdma/hca: 1}}",
        "node_selector: {a: '', kubernetes.io/arch: amd64, number: 5}",
        "labels: {team: A_b.c, example.org/x: y}",
        'annotations: {note: "two\\nlines", Example.org/x: ""}',
        "tolerations: [{operator: Exists}, {key: a}, {key: b, effect: NoExecute, tolerationSeconds: 0}]",
        "affinity: {podAntiAffinity: {}}",
        "secret_env: {_TOKEN.x: my.secret/key_1}",
        "volumes: [{mount: /d, claim: a}, {mount: /d/e, host_path: /srv}]",
        "egress: [10.0.0.0/8, '[2001:db8::/32]:443']",
        "python: /opt/venv/bin/python",
        "namespace: 5",
        JOBS,
    ],
)
def test_what_a_cluster_takes_is_taken(text):
    assert load(text).batch(Path()).image


def test_a_superlinks_pod_is_checked_alike():
    wrong = {
        "image: -rm": "f: superlink.image: got '-rm', must be a reference",
        "gpus: 65": "f: superlink.gpus: got 65, must be an integer from 0 to 64",
        "storage: 5": "f: superlink.storage: got '5', must be a size of at least 1Mi",
        "service_annotations: {a b: c}": "f: superlink.service_annotations: got 'a b', must be a mapping of",
        "node_port: 30001": "f: superlink.node_port: got 30001, must be left out where service is",
    }
    for text, words in wrong.items():
        link = {"launcher": "kubernetes", "namespace": "fl", "image": "i"} | yaml.safe_load(f"{{{text}}}")
        with pytest.raises(ConfigError) as caught:
            FederationConfig.parse({"superlink": link, "sites": {"cloud": SITE}}, "f")
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), (".5", 0.5), ("2Ki", 2048), ("3M", 3e6), ("1Ei", 2**60), ("x", -1)]
)
def test_a_quantity_is_a_number(text, number):
    assert float(amount(text)) == number
