"""A site of EC2 in a federation.yaml: what it may say, what becomes of it, what strategies hear of it."""

import json
import time
from dataclasses import replace

import pytest

from flower_hpc.errors import ConfigError
from flower_hpc.federation.config import FederationConfig
from flower_hpc.federation.facts import Facts
from flower_hpc.federation.jobs import NodePlan
from flower_hpc.federation.launching import Launchers
from flower_hpc.federation.node import Node
from flower_hpc.federation.state import StateDir
from flower_hpc.federation.status import NodeState
from flower_hpc.launchers import JobState, JobStatus
from flower_hpc.launchers.aws.options import Ec2Options
from flower_hpc.launchers.aws.request import fleet
from flower_hpc.launchers.ec2 import Ec2Launcher

SITE = {"launcher": "ec2", "nodes": 2, "image": "ami-12345678", "instance_profile": "nodes"}


def parse(**more):
    return FederationConfig.parse(
        {"name": "lab", "gateway": {"address": "login1"}, "sites": {"cloud": SITE | more}}, "f"
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"types": ["g5"]}, "sites.cloud.types: got ['g5'], must be instance types such as g5.xlarge"),
        ({"types": []}, "sites.cloud.types: got [], must be instance types such as g5.xlarge"),
        ({"market": "cheap"}, "sites.cloud.market: got 'cheap', must be one of: spot, on-demand"),
        ({"keys": "s3:/x"}, "sites.cloud.keys: got 's3:/x', must be ssm, or s3://BUCKET/PREFIX"),
        ({"disk_gb": True}, "sites.cloud.disk_gb: got True, must be an integer from 1 to 16384"),
        ({"tags": {"aws:x": "y"}}, "aws: and flower-hpc: are taken"),
        ({"image": None}, "cloud.image: got None, must be given where there is no launch_template"),
        (
            {"max_price": 1, "market": "on-demand"},
            "cloud.max_price: got 1, must be left out",
        ),
        (
            {"zones": ["eu-central-1a"], "subnets": ["subnet-12345678"]},
            "cloud.zones: got ['eu-central-1a'], must",
        ),
        ({"colour": "red"}, "sites.cloud.colour: unknown field, must be one of: launcher, nodes"),
    ],
)
def test_what_cannot_work_is_one_line(more, words):
    with pytest.raises(ConfigError) as error:
        parse(**more)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_without_tls_there_is_none():
    with pytest.raises(ConfigError, match="must be tls where a site is in a cloud"):
        FederationConfig.parse({"name": "lab", "security": "insecure", "sites": {"cloud": SITE}}, "f")


def test_its_nodes_cannot_follow_a_superlink_that_is_a_job():
    here = {"gateway": {"address": "login1"}, "superlink": {"launcher": "slurm"}}
    with pytest.raises(
        ConfigError, match=r"superlink\.launcher: got 'slurm', must be local where there are ec2"
    ):
        FederationConfig.parse({"name": "lab", **here, "sites": {"cloud": SITE}}, "f")


def test_its_launcher_is_told_all_and_again_after_an_edit(tmp_path):
    launchers = Launchers(StateDir(tmp_path))
    first = launchers.of(parse(types=["g5.xlarge"], max_price=1), "cloud")
    assert isinstance(first, Ec2Launcher)
    assert (first.options.types, first.options.max_price) == (("g5.xlarge",), 1)
    again = launchers.of(parse(types=["g4dn.xlarge"], poll_s=3), "cloud")
    assert again is first
    assert (again.options.types, again.poller.poll_s) == (("g4dn.xlarge",), 3)


OPTIONS = Ec2Options(image="ami-12345678", instance_profile="nodes", types=("a1.large", "b2.large"))


def test_spot_is_asked_for_in_every_type_and_place():
    subnets = ("subnet-11111111", "subnet-22222222")
    asked = fleet(replace(OPTIONS, subnets=subnets, max_price=0.5), "template", {}, "token")
    overrides = asked["LaunchTemplateConfigs"][0]["Overrides"]
    assert [(one["InstanceType"], one["SubnetId"]) for one in overrides] == [
        (kind, subnet) for kind in OPTIONS.types for subnet in subnets
    ]
    assert {one["MaxPrice"] for one in overrides} == {"0.5"}
    assert asked["SpotOptions"] == {"AllocationStrategy": "capacity-optimized"}
    assert asked["TargetCapacitySpecification"] == {
        "TotalTargetCapacity": 1,
        "DefaultTargetCapacityType": "spot",
    }


def test_on_demand_the_first_type_comes_first():
    asked = fleet(replace(OPTIONS, market="on-demand", zones=("eu-central-1a",)), "template", {}, "token")
    overrides = asked["LaunchTemplateConfigs"][0]["Overrides"]
    assert [(one["InstanceType"], one["Priority"]) for one in overrides] == [("a1.large", 0), ("b2.large", 1)]
    assert asked["OnDemandOptions"] == {"AllocationStrategy": "prioritized"}
    assert "SpotOptions" not in asked


class Instance:
    """A launcher whose one job is as the test says."""

    def __init__(self):
        self.now = JobStatus(JobState.RUNNING, where="g5.xlarge", job="i-1")

    def submit(self, spec):
        return "ticket"

    def status(self, job_id):
        return self.now

    def logs(self, job_id, max_bytes=65536):
        return "SuperNode ID: 7\n"

    def cancel(self, job_id, *, force=False):
        pass


def test_strategies_hear_that_a_node_leaves_and_that_it_stays_after_all(tmp_path):
    plan = NodePlan(
        name="cloud-0", site="cloud", partition=0, link="", tls=True, config={}, here=False, bundled=True
    )
    launcher = Instance()
    node = Node(plan, StateDir(tmp_path), launcher, Facts(tmp_path))

    def told():
        node.tick()
        lines = (tmp_path / "facts.jsonl").read_text().splitlines()
        return [(fact["state"], fact["reason"]) for fact in map(json.loads, lines)]

    node.keeper.start()
    node.tick()
    assert node.keeper.state is NodeState.ONLINE
    assert told() == [("running", "g5.xlarge")]
    running, leaves = launcher.now, time.time() + 120
    launcher.now = replace(running, reason="spot notice", leaves_at=leaves)
    assert told()[1:] == [("leaving", "spot notice")]
    assert len(told()) == 2
    launcher.now = running
    assert told()[2:] == [("running", "g5.xlarge")]
    launcher.now = replace(running, reason="spot notice", leaves_at=leaves)
    told()
    launcher.now = JobStatus(JobState.PREEMPTED, "Server.SpotInstanceTermination", job="i-1")
    assert [state for state, _ in told()[3:]] == ["leaving", "preempted"]
