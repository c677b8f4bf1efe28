"""A federation with a site on EC2, from `up` to `down`: its controller, a SuperLink, moto's instances."""

import os
import subprocess
import time

import pytest

from processes import BIN, left_of

from .conftest import live

pytestmark = pytest.mark.federation
FILE = """
name: lab
gateway: {{address: 127.0.0.1}}
sites:
  cloud: {{launcher: ec2, nodes: 2, image: {image}, instance_profile: nodes, types: [g5.xlarge], poll_s: 1}}
"""


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.parametrize("killed", [False, True])
def test_down_leaves_nothing_that_costs_money(aws, ec2, image, tmp_path, killed):
    (tmp_path / "federation.yaml").write_text(FILE.format(image=image))
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    command, log = str(BIN / "flower-hpc"), (tmp_path / "up.log").open("wb")
    up = subprocess.Popen([command, "up"], cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        until(lambda: len(live(ec2)) == 2)
        names = {
            one["Value"] for each in live(ec2) for one in each["Tags"] if one["Key"] == "flower-hpc:node"
        }
        assert names == {"cloud-0", "cloud-1"}
        logs = subprocess.run(
            [command, "logs", "cloud-1"], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert "Linux version" in logs.stdout, logs.stderr
        if killed:
            pid = int((tmp_path / "home/lab/controller.lock").read_text())
            os.kill(pid, 9)
    finally:
        down = subprocess.run([command, "down"], cwd=tmp_path, env=env, capture_output=True, text=True)
        up.kill()
        up.wait()
        log.close()
    assert down.returncode == 0, down.stderr
    assert live(ec2) == []
    assert ec2.describe_launch_templates()["LaunchTemplates"] == []
    assert aws("ssm").describe_parameters()["Parameters"] == []
    assert not left_of(tmp_path)
