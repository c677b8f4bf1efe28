"""What goes wrong at AWS: the end state is right, nothing is made twice, refusals are one line."""

import datetime

import boto3
import pytest
from botocore.stub import ANY, Stubber

from flower_hpc.launchers import JobState
from flower_hpc.launchers.aws import book
from flower_hpc.launchers.aws.cloud import Ec2Cloud
from flower_hpc.launchers.aws.errors import NoRoom, Refused, Unclear, of_code
from flower_hpc.launchers.aws.options import Account
from flower_hpc.launchers.aws.request import status_of
from flower_hpc.launchers.aws.store import Parameters

from .conftest import live


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """No back-off: tests call ``step`` when they want the next try."""
    monkeypatch.setattr(book, "ROOM_S", (0.0, 0.0))
    monkeypatch.setattr(book, "AGAIN_S", (0.0, 0.0))


def tokens(lossy):
    return [
        body.split("ClientToken=")[1].split("&")[0] for action, body in lossy.asked if action == "CreateFleet"
    ]


def test_a_lost_answer_makes_no_second_instance(lossy, make, spec, ec2):
    lossy.lost["CreateFleet"] = 1
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    assert launcher.status(ticket).state is JobState.PENDING
    assert len(live(ec2)) == 1  # it was done, and nobody here knows
    launcher.step()
    assert launcher.status(ticket).state is JobState.RUNNING
    assert launcher.status(ticket).job == live(ec2)[0]["InstanceId"]
    launcher.step()
    assert len(live(ec2)) == 1
    assert len(tokens(lossy)) == 1


def test_a_lost_request_is_sent_again_under_the_same_token(lossy, make, spec, ec2):
    lossy.errors["CreateFleet"] = [(503, "Unavailable", "try later"), (500, "InternalError", "hm")]
    launcher = make()
    ticket = launcher.submit(spec())
    for _ in range(4):
        launcher.step()
    assert launcher.status(ticket).state is JobState.RUNNING
    assert len(set(tokens(lossy))) == 1
    assert len(tokens(lossy)) == 3
    assert len(live(ec2)) == 1


def test_a_node_cancelled_while_its_answer_is_lost_is_ended(lossy, make, spec, ec2):
    lossy.lost["CreateFleet"] = 1
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    launcher.cancel(ticket)
    launcher.step()
    assert launcher.status(ticket).state is JobState.CANCELLED
    assert not live(ec2)


def test_a_controller_killed_while_its_answer_is_lost_leaves_nothing_twice(lossy, make, spec, ec2):
    lossy.lost["CreateFleet"] = 1
    first = make()
    ticket = first.submit(spec())
    first.step()
    second = make()
    assert {name: found.job_id for name, found in second.adopt().items()} == {"cloud-0": ticket}
    second.step()
    assert second.status(ticket).state is JobState.RUNNING
    assert len(live(ec2)) == 1


def test_without_capacity_it_waits_with_the_words_and_takes_a_new_token(lossy, make, spec, ec2):
    words = "We currently do not have sufficient g5.xlarge capacity"
    lossy.errors["CreateFleet"] = [(400, "InsufficientInstanceCapacity", words)]
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    status = launcher.status(ticket)
    assert status.state is JobState.PENDING
    assert words in status.reason
    assert not live(ec2)
    launcher.step()
    launcher.step()
    assert launcher.status(ticket).state is JobState.RUNNING
    assert len(set(tokens(lossy))) == 2
    assert len(live(ec2)) == 1


def test_throttling_ends_well(lossy, make, spec, ec2):
    for action in ("CreateFleet", "DescribeInstances"):
        lossy.errors[action] = [(503, "RequestLimitExceeded", "Request limit exceeded.")] * 2
    launcher = make()
    tickets = [launcher.submit(spec(name)) for name in ("cloud-0", "cloud-1")]
    for _ in range(5):
        launcher.step()
    assert [launcher.status(one).state for one in tickets] == [JobState.RUNNING] * 2
    assert len(live(ec2)) == 2
    assert launcher.trouble == ""


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("CreateFleet", "UnauthorizedOperation", "You are not authorized to perform: ec2:CreateFleet"),
        ("CreateFleet", "InvalidParameterValue", "Invalid value"),
        ("CreateLaunchTemplate", "RequestExpired", "Request has expired."),
        ("DescribeImages", "AuthFailure", "AWS was not able to validate the provided access credentials"),
    ],
)
def test_a_refusal_is_one_line_with_the_server_s_words(lossy, make, spec, ec2, action, code, words):
    lossy.errors[action] = [(403, code, words)]
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    status = launcher.status(ticket)
    assert (status.state, status.refused) == (JobState.FAILED, True)
    assert f"{code}: {words}" in status.reason
    assert "\n" not in status.reason
    launcher.cancel(ticket, force=True)
    again = launcher.submit(spec())  # someone has mended it
    launcher.step()
    launcher.step()
    assert launcher.status(again).state is JobState.RUNNING
    assert len(live(ec2)) == 1


def test_credentials_that_expire_while_nodes_run_change_nothing(lossy, make, spec, ec2):
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    launcher.step()
    lossy.errors["DescribeInstances"] = [(400, "RequestExpired", "Request has expired.")]
    launcher.step()
    assert launcher.status(ticket).state is JobState.RUNNING
    assert launcher.trouble == "describe instances: RequestExpired: Request has expired."
    launcher.step()
    assert launcher.trouble == ""


def test_without_credentials_there_is_one_line(make, spec, monkeypatch, tmp_path):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}")
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    assert launcher.status(ticket).refused
    assert "Unable to locate credentials" in launcher.status(ticket).reason


def test_a_taken_down_that_fails_says_what_is_left(lossy, make, spec, ec2):
    launcher = make()
    launcher.submit(spec())
    launcher.step()
    refusal = (403, "UnauthorizedOperation", "You are not authorized to perform: ec2:TerminateInstances")
    lossy.errors["TerminateInstances"] = [refusal]
    (left,) = launcher.take_down()
    assert left.startswith("instances: terminate: UnauthorizedOperation: You are not")
    assert launcher.take_down() == []
    assert not live(ec2)


# what moto never says


def stubbed(service):
    cloud = Ec2Cloud(Account(region="eu-central-1"))
    client = boto3.client(service, region_name="eu-central-1")
    cloud.client = lambda name, calls=4: client
    return cloud, Stubber(client)


@pytest.fixture
def fleets(aws):
    cloud, stub = stubbed("ec2")
    with stub:
        yield cloud, stub


def answer(*errors):
    return {
        "FleetId": "fleet-1",
        "Instances": [],
        "Errors": [{"ErrorCode": c, "ErrorMessage": m} for c, m in errors],
    }


def test_a_fleet_that_found_no_room_anywhere_says_so(fleets):
    cloud, stub = fleets
    unsupported = ("Unsupported", "not in this zone")
    stub.add_response("create_fleet", answer(unsupported, ("InsufficientInstanceCapacity", "none left")))
    with pytest.raises(NoRoom, match="InsufficientInstanceCapacity: none left"):
        cloud.create({"LaunchTemplateConfigs": [], "TargetCapacitySpecification": {"TotalTargetCapacity": 1}})
    stub.add_response("create_fleet", answer(("SpotMaxPriceTooLow", "below 0.31")))
    with pytest.raises(NoRoom, match=r"below 0\.31"):
        cloud.create({"LaunchTemplateConfigs": [], "TargetCapacitySpecification": {"TotalTargetCapacity": 1}})
    stub.add_response("create_fleet", answer(unsupported))
    with pytest.raises(Refused, match="not in this zone"):
        cloud.create({"LaunchTemplateConfigs": [], "TargetCapacitySpecification": {"TotalTargetCapacity": 1}})


def test_a_spot_notice_is_seen_two_minutes_ahead(fleets):
    cloud, stub = fleets
    told = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    said = [
        {"SpotInstanceRequestId": "sir-1", "Status": {"Code": "marked-for-termination", "UpdateTime": told}},
        {"SpotInstanceRequestId": "sir-2", "Status": {"Code": "fulfilled", "UpdateTime": told}},
    ]
    wanted = {"SpotInstanceRequestIds": ["sir-1", "sir-2"]}
    stub.add_response("describe_spot_instance_requests", {"SpotInstanceRequests": said}, wanted)
    assert cloud.notices(["sir-2", "sir-1"]) == {"sir-1": told.timestamp()}
    status = status_of({"InstanceId": "i-1", "State": {"Name": "running"}}, told.timestamp())
    assert (status.state, status.reason) == (JobState.RUNNING, "spot notice")
    assert status.leaves_at == told.timestamp() + 120


def test_a_large_bundle_takes_the_larger_tier(aws):
    client = boto3.client("ssm", region_name="eu-central-1")
    with Stubber(client) as stub:
        wanted = {"Name": "/flower-hpc/o/t", "Value": ANY, "Type": "SecureString", "Tags": []}
        for size, tier in ((4096, "Standard"), (4097, "Advanced")):
            stub.add_response("put_parameter", {}, wanted | {"Tier": tier})
            Parameters(client, "o").put("t", "x" * size, {})
        with pytest.raises(Exception, match="8193 bytes, at most 8192 fit: take keys: s3"):
            Parameters(client, "o").put("t", "x" * 8193, {})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", NoRoom),
        ("VcpuLimitExceeded", NoRoom),
        ("Throttling", Unclear),
        ("X", Refused),
    ],
)
def test_codes_have_their_meaning(code, kind):
    error = of_code(code, "some\nwords", "it")
    assert type(error) is kind
    assert str(error) == f"it: {code}: some words"


@pytest.mark.parametrize(
    ("name", "code", "state"),
    [
        ("terminated", "Server.SpotInstanceTermination", JobState.PREEMPTED),
        ("shutting-down", "Server.SpotInstanceTermination", JobState.PREEMPTED),
        ("terminated", "Client.InstanceInitiatedShutdown", JobState.SUCCEEDED),
        ("terminated", "Client.UserInitiatedShutdown", JobState.CANCELLED),
        ("terminated", "Client.VolumeLimitExceeded", JobState.FAILED),
        ("stopped", "Client.UserInitiatedShutdown", JobState.CANCELLED),
        ("pending", "pending", JobState.PENDING),
        ("rebooting", "", JobState.UNKNOWN),
    ],
)
def test_states_of_instances_are_ours(name, code, state):
    instance = {
        "InstanceId": "i-1",
        "State": {"Name": name},
        "StateReason": {"Code": code, "Message": f"{code}: why"},
    }
    assert status_of(instance).state is state
    if state.final:
        assert status_of(instance).reason == f"{code}: why"


def test_an_instance_that_never_came_to_be_is_asked_for_anew(make, spec, ec2, monkeypatch):
    launcher = make()
    ticket = launcher.submit(spec())
    launcher.step()
    first = launcher.status(ticket).job
    listed = launcher.place.cloud.instances

    def died(owner):
        found = listed(owner)
        for one in found:
            if one["InstanceId"] == first:
                one["State"]["Name"] = "terminated"
                one["StateReason"] = {"Code": "Server.InsufficientInstanceCapacity", "Message": "no room"}
        return found

    monkeypatch.setattr(launcher.place.cloud, "instances", died)
    for _ in range(3):
        launcher.step()
    status = launcher.status(ticket)
    assert status.state is JobState.RUNNING
    assert status.job != first
