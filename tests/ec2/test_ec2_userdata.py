"""What an instance does at its first boot: scripts that shells and cloud-init take, and no secret in them."""

import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from flower_hpc.errors import ConfigError
from flower_hpc.launchers.aws.options import Ec2Options
from flower_hpc.launchers.aws.userdata import user_data

PLAIN = Ec2Options(image="ami-12345678", instance_profile="nodes")
RICH = replace(
    PLAIN,
    region="eu-central-1",
    endpoint_url="https://ec2.example.org",
    python="/opt/a%b$c/bin/python",
    setup=("apt-get -qq install -y git", "echo 'a \"quoted\" line' > /tmp/x"),
    max_hours=24,
    keys="s3://keys/some/where",
)
BOTH = pytest.mark.parametrize("options", [PLAIN, RICH, replace(PLAIN, package="a-wheel.whl --no-deps")])


def needs(program):
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install {program}")


def files(options):
    config = yaml.safe_load(user_data(options, "lab-cloud-1"))
    return {one["path"].rpartition("/")[2]: one["content"] for one in config["write_files"]}


def check(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@BOTH
@pytest.mark.parametrize("checker", [("bash", "-n"), ("shellcheck",)], ids=" ".join)
def test_its_scripts_are_sound(options, checker, tmp_path):
    needs(checker[0])
    scripts = {name: text for name, text in files(options).items() if text.startswith("#!/bin/bash")}
    assert len(scripts) == 3
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        check(*checker, str(tmp_path / name))


@BOTH
def test_cloud_init_takes_it(options, tmp_path):
    needs("cloud-init")
    (tmp_path / "user-data").write_text(user_data(options, "lab-cloud-1"))
    check("cloud-init", "schema", "--config-file", str(tmp_path / "user-data"))


@BOTH
def test_systemd_takes_its_unit(options, tmp_path):
    needs("systemd-analyze")
    unit = tmp_path / "flower-hpc.service"
    # the programs, and the user, are made at the first boot
    text = files(options)["flower-hpc.service"].replace("User=flower-hpc", "User=root")
    lines = [
        f"{line.partition('=')[0]}=/bin/true" if line.startswith("Exec") else line
        for line in text.splitlines()
    ]
    unit.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert str(unit) not in done.stderr
    assert "flower-hpc.service:" not in done.stderr


def test_the_node_is_nobody_special_and_dies_for_good_when_nobody_needs_it():
    unit = files(RICH)["flower-hpc.service"].splitlines()
    for line in ("User=flower-hpc", "NoNewPrivileges=yes", "ProtectSystem=strict", "KillMode=mixed"):
        assert line in unit
    assert "TimeoutStopSec=75" in unit
    assert "RestartPreventExitStatus=77" in unit
    (command,) = (line for line in unit if line.startswith("ExecStart="))
    assert command.startswith("ExecStart='/opt/a%%b$$c/bin/python' -m flower_hpc.launchers.aws.node ")
    assert "--keys s3://keys/some/where" in command
    assert "poweroff" in files(RICH)["flower-hpc-ended"]
    assert "shutdown -h +1440" in files(RICH)["flower-hpc-install"]
    assert "pip install" not in files(RICH)["flower-hpc-install"]


@pytest.mark.parametrize(("status", "ends"), [("77", True), ("1", False), ("", False)])
def test_only_a_node_that_gave_up_ends_its_instance(tmp_path, status, ends):
    (tmp_path / "systemctl").write_text('#!/bin/sh\necho "$@" > "$0.asked"\n')
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "ended").write_text(files(PLAIN)["flower-hpc-ended"])
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "EXIT_STATUS": status}
    subprocess.run(["bash", str(tmp_path / "ended")], env=env, check=True)
    assert (tmp_path / "systemctl.asked").exists() is ends


def test_what_ec2_would_not_take_is_refused():
    with pytest.raises(ConfigError, match="setup must fit into 16384 bytes of user data, got 2"):
        user_data(replace(PLAIN, setup=("# " + "x" * 20000,)), "o")
