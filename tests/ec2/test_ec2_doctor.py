"""What the doctor says of a site on EC2, and what of a federation still costs money."""

import json

import pytest

from flower_hpc.federation.config import FederationConfig
from flower_hpc.federation.doctor.ec2 import examine_ec2

SITE = {"launcher": "ec2", "nodes": 1, "types": ["g5.xlarge"], "instance_profile": "nodes"}


@pytest.fixture
def examine(image):
    def ask(is_up=False, **more):
        config = FederationConfig.parse(
            {
                "name": "lab",
                "gateway": {"address": "login1"},
                "sites": {"cloud": SITE | {"image": image} | more},
            },
            "f",
        )
        return list(examine_ec2("cloud", config.sites["cloud"], "lab", is_up=is_up))

    return ask


@pytest.fixture
def profile(aws):
    iam = aws("iam")
    iam.create_instance_profile(InstanceProfileName="nodes")
    trust = {"Version": "2012-10-17", "Statement": []}
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(trust))
    iam.add_role_to_instance_profile(InstanceProfileName="nodes", RoleName="node")


def by_check(findings):
    return {one.check: one for one in findings}


def test_where_all_is_well_nothing_is_left_behind(examine, profile, aws):
    found = by_check(examine())
    assert {name: str(one.state) for name, one in found.items()} == dict.fromkeys(found, "ok"), found
    assert list(found) == [
        "credentials",
        "image",
        "types",
        "dry run",
        "instance profile",
        "keys",
        "left over",
    ]
    assert aws("ssm").describe_parameters()["Parameters"] == []


def test_each_mistake_is_one_problem(examine, aws):
    found = by_check(examine(image="ami-00000000", types=["x9.huge"]))
    assert {name for name, one in found.items() if str(one.state) == "problem"} == {
        "image",
        "types",
        "instance profile",
    }
    assert "InvalidAMIID.NotFound" in found["image"].found
    assert "NoSuchEntity" in found["instance profile"].found
    found = by_check(examine(launch_template="gone"))
    assert "InvalidLaunchTemplateName" in found["launch template"].found


def test_credentials_that_are_none_end_it(examine, monkeypatch, tmp_path):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}")
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    (only,) = examine()
    assert (only.check, str(only.state)) == ("credentials", "problem")
    assert "Unable to locate credentials" in only.found


@pytest.mark.parametrize("site", ["cloud", "another"])
def test_what_still_costs_while_the_federation_is_down_is_a_problem(examine, profile, make, spec, site):
    launcher = make(site=site, job_name=f"lab-{site}-abc123")
    ticket = launcher.submit(spec())
    launcher.step()
    launcher.step()
    instance = launcher.status(ticket).job
    left = [one for one in examine() if one.check == "left over"]
    assert [str(one.state) for one in left] == ["problem"] * 4  # an instance, a template, two parameters
    assert instance in left[0].found
    assert "g5.xlarge, running, 0.0 h old" in left[0].found
    assert f"aws ec2 terminate-instances --region eu-central-1 --instance-ids {instance}" in left[0].mend
    found = by_check(examine(is_up=True))
    assert str(found["instances"].state) == "ok"
    assert instance in found["instances"].found
    assert launcher.take_down() == []
    assert str(by_check(examine())["left over"].state) == "ok"


def test_keys_in_a_bucket_are_found_too(examine, profile, aws):
    s3 = aws("s3")
    s3.create_bucket(Bucket="keys", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for name in ("lab-cloud-abc-1/cloud-0.1", "lab-2-cloud-abc-1/door"):
        s3.put_object(Bucket="keys", Key=f"of/{name}", Body=b"x")
    left = [one for one in examine(keys="s3://keys/of") if one.check == "left over"]
    assert [one.found for one in left] == [
        "the federation is down, and the key s3://keys/of/lab-cloud-abc-1/cloud-0.1 is there"
    ]
