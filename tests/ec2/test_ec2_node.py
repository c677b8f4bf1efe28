"""What a node hears on its instance: its bundle, where the SuperLink is, that it will be taken away."""

import re
import socket
import stat
import subprocess
import sys

import pytest

from flower_hpc.clock import WALL
from flower_hpc.errors import LaunchError
from flower_hpc.launchers.aws.metadata import Metadata
from flower_hpc.launchers.aws.node import Watch, reaches
from flower_hpc.launchers.aws.store import as_text, from_text
from flower_hpc.launchers.pilot import Leaving

from .metadata import NOTICE, imds, notice


@pytest.fixture
def service(monkeypatch):
    with imds({"flower-hpc:node": "cloud-0", "flower-hpc:ticket": "cloud-0.1"}) as state:
        monkeypatch.setenv("FLOWER_HPC_METADATA", state.url)
        yield state


class Kept(dict):
    """A store in this process."""

    def get(self, name):
        if isinstance(found := super().get(name), Exception):
            raise found
        return found


@pytest.fixture
def watch(service, tmp_path):
    def make(patience_s=60.0, **texts):
        return Watch(tmp_path / "etc", Kept(texts), Metadata(), Leaving(), patience_s, grace_s=7.0)

    return make


def test_metadata_is_asked_with_a_token_that_is_renewed(service):
    metadata = Metadata()
    assert metadata.tag("flower-hpc:node") == "cloud-0"
    assert metadata.region() == "eu-central-1"
    assert len(service.tokens) == 1
    service.tokens.clear()
    assert metadata.notice() is None
    assert len(service.tokens) == 1


def test_metadata_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv("FLOWER_HPC_METADATA", "http://127.0.0.1:1")
    with pytest.raises(LaunchError, match=re.escape("http://127.0.0.1:1: ")):
        Metadata().notice()


def test_a_notice_is_an_action_and_a_time(service):
    service.paths[NOTICE], end = notice(120, "stop")
    found = Metadata().notice()
    assert (found.action, found.time) == ("stop", end)
    service.paths[NOTICE] = '{"action": 3}'
    with pytest.raises(LaunchError, match="makes no sense"):
        Metadata().notice()


def test_a_notice_has_the_node_leave_ten_seconds_ahead(watch, service):
    one = watch()
    one.look_for_notice()
    assert one.leaving.deadline is None
    service.paths[NOTICE], end = notice(100)
    one.look_for_notice()
    assert one.leaving.deadline - WALL.now() == pytest.approx(end - 10 - WALL.wall(), abs=0.5)
    assert one.leaving.why == "spot notice: terminate"


def test_the_sooner_of_two_ends_counts():
    leaving = Leaving()
    leaving.ask(100, "first")
    leaving.ask(50, "second")
    leaving.ask(200, "third")
    assert leaving.deadline - WALL.now() == pytest.approx(50, abs=0.5)
    assert leaving.why == "first"


def test_the_bundle_lies_there_for_its_user_alone(watch, tmp_path):
    files = {"ca.pem": b"CA", "cloud-0.key": b"\x00\xffKEY", "nodes.json.gz": b""}
    del files["nodes.json.gz"]
    assert watch(**{"cloud-0.1": as_text(files), "door": "tcp:gate:1"}).fetch("cloud-0.1")
    for name, data in (files | {"door": b"tcp:gate:1"}).items():
        path = tmp_path / "etc" / name
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "nonsense", as_text({"../etc/passwd": b"x"}), as_text({"..": b"x"})])
def test_a_bundle_that_is_none_is_refused(text):
    with pytest.raises(LaunchError, match="the node's bundle"):
        from_text(text)


@pytest.mark.parametrize("ticket", [None, LaunchError("AccessDeniedException: no")])
def test_a_node_without_a_bundle_gives_up(watch, ticket, monkeypatch, capsys):
    monkeypatch.setattr("flower_hpc.launchers.aws.node.RETRY_S", 0.01)
    one = watch(patience_s=0.05, **{"cloud-0.1": ticket, "door": "tcp:gate:1"})
    assert not one.fetch("cloud-0.1")
    assert one.gave_up
    assert (str(ticket) if ticket else "is not there") in capsys.readouterr().out


def test_a_node_follows_the_door_and_gives_up_where_nobody_answers(watch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as gate:
        here = f"tcp:127.0.0.1:{gate.getsockname()[1]}"
        assert reaches(here)
        one = watch(patience_s=0.0, door=here)
        one.look_at_door()
        assert (tmp_path / "etc/door").read_text() == here
        assert not one.gave_up
    assert not reaches(here)
    one.store["door"] = LaunchError("throttled")
    with pytest.raises(LaunchError):
        one.look_at_door()
    assert one.gave_up
    assert one.leaving.deadline - WALL.now() == pytest.approx(7, abs=0.5)


def test_an_instance_that_nobody_knows_ends_itself(aws, service, tmp_path):
    command = [sys.executable, "-m", "flower_hpc.launchers.aws.node", "--owner", "nobody"]
    command += ["--patience-min", "0.02", "--root", str(tmp_path / "etc")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 77, done.stdout + done.stderr
    assert "the node's bundle is not there" in done.stdout


def test_an_instance_without_tags_says_so(service):
    service.paths.clear()
    command = [sys.executable, "-m", "flower_hpc.launchers.aws.node", "--owner", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(
        "LaunchError: the instance's metadata does not show its tags flower-hpc:node"
    )
