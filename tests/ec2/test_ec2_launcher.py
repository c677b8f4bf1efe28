"""What the launcher does on EC2, as moto's server tells it: start, find again, end, leave nothing."""

import json
import time
from dataclasses import replace

import pytest

from flower_hpc.errors import LaunchError
from flower_hpc.launchers import JobState
from flower_hpc.launchers.aws.request import as_tags
from flower_hpc.launchers.aws.store import from_text
from flower_hpc.launchers.bundle import unpack

from .conftest import live


def running(launcher, *tickets, steps=3):
    for _ in range(steps):
        launcher.step()
    assert [launcher.status(ticket).state for ticket in tickets] == [JobState.RUNNING] * len(tickets)


def secrets_of(aws):
    ssm = aws("ssm")
    names = [one["Name"] for one in ssm.describe_parameters()["Parameters"]]
    return {name: ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"] for name in names}


def templates(ec2):
    return ec2.describe_launch_templates()["LaunchTemplates"]


def test_an_instance_runs_with_its_node_s_tags(make, spec, ec2):
    launcher = make()
    ticket = launcher.submit(spec())
    assert launcher.status(ticket).state is JobState.PENDING
    running(launcher, ticket)
    (instance,) = live(ec2)
    status = launcher.status(ticket)
    assert status.job == instance["InstanceId"]
    assert status.where == "g5.xlarge, eu-central-1a"
    assert instance["InstanceLifecycle"] == "spot"
    tags = as_tags(instance)
    assert tags["flower-hpc:ticket"] == ticket
    assert (tags["flower-hpc:federation"], tags["flower-hpc:site"], tags["flower-hpc:node"]) == (
        "lab",
        "cloud",
        "cloud-0",
    )


def test_the_template_takes_tokens_alone_and_leaves_no_volume(make, spec, ec2):
    launcher = make()
    launcher.submit(spec())
    launcher.step()
    (template,) = templates(ec2)
    said = ec2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"])
    data = said["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    (volume,) = data["BlockDeviceMappings"]
    assert volume["Ebs"]["Encrypted"]
    assert volume["Ebs"]["DeleteOnTermination"]


def test_a_node_gets_its_own_key_by_ssm_and_nobody_else_s(make, spec, aws, folder, tmp_path):
    launcher = make()
    tickets = [launcher.submit(spec(name)) for name in ("cloud-0", "cloud-1")]
    launcher.step()
    found = secrets_of(aws)
    (own,) = (one for name, one in found.items() if name.endswith(tickets[0]))
    assert (own["Type"], len(own["Value"]) < 4096) == ("SecureString", True)
    files = from_text(own["Value"])
    assert sorted(files) == ["ca.pem", "cloud-0.key", "nodes.json.gz"]
    assert files["cloud-0.key"] == b"SECRET of cloud-0"
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert unpack(tmp_path, "cloud-0").command == spec().command
    (door,) = (one["Value"] for name, one in found.items() if name.endswith("/door"))
    assert door == (folder / "door").read_text()


def test_a_door_that_moves_is_told(make, spec, aws, folder):
    launcher = make()
    launcher.submit(spec())
    launcher.step()
    (folder / "door").write_text("tcp:elsewhere:9001")
    launcher.step()
    assert "tcp:elsewhere:9001" in [one["Value"] for one in secrets_of(aws).values()]


def test_cancelling_ends_the_instance_and_takes_its_key_away(make, spec, ec2, aws):
    launcher = make()
    kept, ended = launcher.submit(spec("cloud-0")), launcher.submit(spec("cloud-1"))
    running(launcher, kept, ended)
    for _ in range(2):
        launcher.cancel(ended)
    launcher.cancel(ended, force=True)
    launcher.step()
    assert launcher.status(ended).state is JobState.CANCELLED
    assert launcher.status(kept).state is JobState.RUNNING
    assert [as_tags(one)["flower-hpc:ticket"] for one in live(ec2)] == [kept]
    assert not [name for name in secrets_of(aws) if name.endswith(ended)]


def test_what_is_cancelled_before_it_is_asked_for_never_is(make, spec, ec2):
    launcher = make()
    launcher.cancel(ticket := launcher.submit(spec()))
    launcher.step()
    assert launcher.status(ticket).state is JobState.CANCELLED
    assert not live(ec2)


def test_an_unknown_ticket_has_no_state_and_no_words(make):
    launcher = make()
    launcher.cancel("nobody", force=True)
    assert launcher.status("nobody").state is JobState.UNKNOWN
    assert launcher.logs("nobody") == ""


def test_another_launcher_goes_on_with_what_lives(make, spec, ec2):
    first = make()
    tickets = {name: first.submit(spec(name, f"of {name}")) for name in ("cloud-0", "cloud-1")}
    running(first, *tickets.values())
    first.close()
    ec2.terminate_instances(InstanceIds=[first.status(tickets["cloud-1"]).job])
    second = make()
    (found,) = second.adopt().items()
    assert found[0] == "cloud-0"
    assert (found[1].job_id, found[1].fingerprint) == (tickets["cloud-0"], "of cloud-0")
    assert second.status(tickets["cloud-0"]) == first.status(tickets["cloud-0"])
    second.cancel(tickets["cloud-0"])
    second.step()
    assert not live(ec2)


def test_what_nobody_remembers_is_ended(make, spec, ec2, tmp_path):
    first = make()
    running(first, first.submit(spec()))
    (tmp_path / "jobs" / "cloud.json").unlink()
    assert make().adopt() == {}
    assert not live(ec2)


def test_a_federation_of_the_same_name_is_left_alone(make, spec, ec2, tmp_path):
    first = make()
    running(first, first.submit(spec()))
    (tmp_path / "jobs" / "cloud.mark").write_text("000000")
    other = make()
    other.submit(spec())
    other.step()
    assert len(live(ec2)) == 2
    assert other.take_down() == []
    assert len(live(ec2)) == 1


@pytest.mark.parametrize("market", ["spot", "on-demand"])
@pytest.mark.parametrize("keys", ["ssm", "s3://keys/some/where"])
def test_taking_down_leaves_nothing(make, spec, aws, ec2, options, market, keys):
    s3 = aws("s3")
    place = {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}
    s3.create_bucket(Bucket="keys", **place)
    launcher = make(replace(options, market=market, keys=keys))
    tickets = [launcher.submit(spec(name)) for name in ("cloud-0", "cloud-1")]
    running(launcher, *tickets)
    if keys != "ssm":
        assert not secrets_of(aws)
        objects = s3.list_objects_v2(Bucket="keys")["Contents"]
        owner = launcher.place.whose.owner
        assert sorted(one["Key"] for one in objects) == [
            f"some/where/{owner}/{name}" for name in sorted((*tickets, "door"))
        ]
    assert launcher.take_down() == []
    assert (live(ec2), templates(ec2), secrets_of(aws)) == ([], [], {})
    assert "Contents" not in s3.list_objects_v2(Bucket="keys")
    assert launcher.take_down() == []


def test_somebody_s_own_template_is_built_upon(make, spec, ec2, options, image):
    own = {"ImageId": image, "Monitoring": {"Enabled": True}, "UserData": "c2VjcmV0"}
    own["InstanceMarketOptions"] = {"MarketType": "spot"}
    ec2.create_launch_template(LaunchTemplateName="mine", LaunchTemplateData=own)
    launcher = make(replace(options, launch_template="mine:1", image=None, instance_profile=None))
    running(launcher, launcher.submit(spec()))
    (ours,) = (one for one in templates(ec2) if one["LaunchTemplateName"] != "mine")
    said = ec2.describe_launch_template_versions(LaunchTemplateId=ours["LaunchTemplateId"])
    data = said["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert (data["ImageId"], data["Monitoring"]["Enabled"]) == (image, True)
    assert data["UserData"] != own["UserData"]
    assert "InstanceMarketOptions" not in data
    assert launcher.take_down() == []
    assert [one["LaunchTemplateName"] for one in templates(ec2)] == ["mine"]


def test_the_console_is_read_when_somebody_asks(make, spec):
    launcher = make()
    ticket = launcher.submit(spec())
    running(launcher, ticket)
    assert launcher.logs(ticket) == ""
    launcher.step()
    assert "Linux version" in launcher.logs(ticket)
    assert len(launcher.logs(ticket, max_bytes=10)) == 10


def test_the_console_can_be_fetched_by_a_nodes_name(make, spec):
    launcher = make()
    for expected in ("cloud-0", "cloud-1"):
        with pytest.raises(LaunchError, match=f"{expected} has no instance"):
            launcher.fetch(expected)
    running(launcher, launcher.submit(spec()))
    assert "Linux version" in launcher.fetch("cloud-0")
    with pytest.raises(LaunchError, match="cloud-1 has no instance"):
        launcher.fetch("cloud-1")


def test_rendering_asks_nobody(make, spec, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    words = make().render(spec())
    asked = json.JSONDecoder().raw_decode(words)[0]
    (config,) = asked["create_fleet"]["LaunchTemplateConfigs"]
    assert [one["InstanceType"] for one in config["Overrides"]] == ["g5.xlarge", "g4dn.xlarge"]
    assert "#cloud-config" in words
    assert "SECRET" not in words


def test_the_thread_does_it_all(make, spec, ec2):
    launcher = make(threaded=True)
    ticket = launcher.submit(spec())
    until(lambda: launcher.status(ticket).state is JobState.RUNNING)
    launcher.cancel(ticket)
    until(lambda: launcher.status(ticket).state is JobState.CANCELLED and not live(ec2))


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
