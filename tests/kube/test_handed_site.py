"""A site that others start in their own cluster: the chart's objects, and the Secret that `bundle` prints."""

import copy
from pathlib import Path

import pytest
import yaml
from kubernetes import utils

from doors import free_port
from helm import render
from lab import Lab, until

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]
CHART = Path(__file__).parents[2] / "deploy/helm/flower-hpc"
FILE = """
name: lab
gateway: {{host: 127.0.0.1, address: 127.0.0.1, port: {port}}}
sites:
  hospital: {{launcher: handed, nodes: 2}}
"""


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "federation.yaml").write_text(FILE.format(port=free_port()))
    lab = Lab(tmp_path, "lab")
    yield lab
    lab("down")


def installed(kube, **site):
    """What `helm install` makes of these values."""
    values = copy.deepcopy(yaml.safe_load((CHART / "values.yaml").read_text()))
    values["superlink"]["enabled"] = False
    values["site"] |= {"enabled": True} | site
    return render((CHART / "templates/site.yaml").read_text(), values, kube.namespace)


def test_the_chart_and_the_secret_are_all_that_it_takes(kube, lab):
    lab("up")
    secret = yaml.safe_load(lab("bundle", "hospital", "--namespace", kube.namespace))
    name = secret["metadata"]["name"]
    chart = installed(kube, name="hospital", objects=name, bundleSecret=name, image="flower-hpc:test")
    for each in (secret, *chart):
        utils.create_from_dict(kube.api_client, each, namespace=kube.namespace)

    def states():
        return {node["state"] for node in lab.status()["nodes"]}

    until(lambda: states() == {"online"})
    # its probes are answered too
    until(lambda: kube.apps.read_namespaced_stateful_set(name, kube.namespace).status.ready_replicas == 2)
    lab("run", "benchmark", "-c", "num-rounds=1", "--name", "one")
    found = {e["node"] for e in lab.events("one") if e["event"] in ("reply_accepted", "reply_late")}
    assert found == {"hospital-0", "hospital-1"}
    kube.apps.delete_namespaced_stateful_set(name, kube.namespace)
    until(lambda: states() == {"queued"}, 90)
    assert "it signed off" in lab.node("hospital-0")["reason"]
