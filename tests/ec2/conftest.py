"""An AWS to test with: moto's server, an image and a network in it, and credentials that mean nothing."""

from functools import partial

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from flower_hpc.launchers import JobSpec
from flower_hpc.launchers.aws.options import Ec2Options
from flower_hpc.launchers.bundle import HOME, ROOT
from flower_hpc.launchers.ec2 import Ec2Launcher

from .flaky import flaky

REGION = "eu-central-1"


@pytest.fixture(scope="session")
def moto_server():
    """Its address; it lives as long as the tests."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # hundreds, at each reset
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def aws(moto_server, monkeypatch):
    """Makes clients of an account that is empty at the start of each test."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    httpx.post(f"{moto_server}/moto-api/reset")
    return partial(boto3.client, region_name=REGION, endpoint_url=moto_server)


@pytest.fixture
def lossy(aws, moto_server, monkeypatch):
    """A way to AWS on which answers are lost; launchers take it."""
    with flaky(moto_server) as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.url)
        yield state


@pytest.fixture
def ec2(aws):
    return aws("ec2")


@pytest.fixture
def image(ec2):
    return ec2.register_image(Name="ours", RootDeviceName="/dev/sda1")["ImageId"]


@pytest.fixture
def folder(tmp_path):
    """What the controller leaves for a site's nodes."""
    folder = tmp_path / "site"
    (folder / "keys").mkdir(parents=True)
    (folder / "ca.pem").write_text("CERTIFICATE " * 60)
    (folder / "door").write_text("tcp:gate.example:9000")
    for name in ("cloud-0", "cloud-1"):
        (folder / "keys" / name).write_text(f"SECRET of {name}")
    return folder


@pytest.fixture
def options(image):
    return Ec2Options(
        region=REGION, image=image, types=("g5.xlarge", "g4dn.xlarge"), instance_profile="nodes"
    )


@pytest.fixture
def spec():
    """A node's, as :mod:`flower_hpc.federation.jobs` makes it."""

    def make(name="cloud-0", fingerprint="f1"):
        command = ("flower-supernode", "--auth-supernode-private-key", str(ROOT / f"{name}.key"))
        places = {"cwd": HOME / "nodes" / name, "log": HOME / "logs" / f"{name}.log", "door": ROOT / "door"}
        return JobSpec(name=name, command=command, fingerprint=fingerprint, **places)

    return make


@pytest.fixture
def make(aws, options, folder, tmp_path):
    """Launchers of one memory."""
    made = []

    def launcher(options=options, threaded=False, **more):
        names = {"federation": "lab", "site": "cloud", "job_name": "lab-cloud-abc123"} | more
        one = Ec2Launcher(options, folder=folder, memory=tmp_path / "jobs" / "cloud.json", **names)
        if not threaded:  # tests call `step` themselves
            one.poller.hurry = lambda: None
        made.append(one)
        return one

    yield launcher
    for one in made:
        one.close()


def live(ec2):
    """Instances that cost something."""
    found = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    return [one for one in found if one["State"]["Name"] in ("pending", "running", "stopping", "stopped")]
