"""How the SuperLink is reached, and where it may not live."""

import socket
import sys
from pathlib import Path

import pytest

from flower_hpc.errors import LaunchError
from flower_hpc.federation import FederationConfig, link, planning
from flower_hpc.federation.link import Link, make_private, wants_private, why_refused
from flower_hpc.federation.state import StateDir


@pytest.fixture
def host(monkeypatch):
    """A host that others use or not, and that can or cannot have private networks."""

    def be(*, shared, reason):
        monkeypatch.setattr(link, "shared_host", lambda: shared)
        monkeypatch.setattr(planning.leftovers, "shared_host", lambda: shared)
        monkeypatch.setattr(link, "can_enclose", lambda: reason)

    return be


def config(security="tls", **more):
    data = {"sites": {"here": {"nodes": 1}}, "security": security}
    return FederationConfig.parse(data | more, "test")


SLURM = {"hpc": {"nodes": 1, "launcher": "slurm"}}


def test_the_superlink_hides_where_others_could_reach_it(host):
    host(shared=False, reason=None)
    assert not wants_private(config())
    assert wants_private(config({"network": "private"}))
    assert wants_private(config(sites=SLURM))
    host(shared=True, reason=None)
    assert wants_private(config())
    assert why_refused(config()) is None


def test_where_it_cannot_hide_from_others_it_is_refused_unless_that_is_accepted(host):
    host(shared=True, reason="no network namespace can be had: no")
    assert "security.shared_host: got 'refuse', must be accept here" in why_refused(config())
    assert "no network namespace can be had" in why_refused(config())
    accepted = config({"shared_host": "accept"})
    assert why_refused(accepted) is None
    assert any("can have code run as you" in words for words in planning.warnings(accepted))
    host(shared=True, reason=None)
    assert "network: host was asked for" in why_refused(config({"network": "host"}))
    host(shared=False, reason="no")
    assert why_refused(config()) is None
    assert "security.network: got 'private'" in why_refused(config({"network": "private"}))
    assert "superlink.launcher: got 'slurm'" in why_refused(config(superlink={"launcher": "slurm"}))


def test_a_node_on_the_hosts_network_never_gets_the_superlinks_own_socket(host):
    host(shared=True, reason=None)
    sites = {"here": {"nodes": 1, "network": "host"}}
    steps = {
        step["name"]: step["command"]
        for step in planning.plan(config(sites=sites), StateDir(Path("/nonexistent")))
    }
    assert "gateway" in steps
    assert "--superlink 127.0.0.1:0" in steps["here-0"]
    assert "unix:" not in steps["here-0"]
    insecure = config("insecure", sites=sites)
    assert "must be tls where nodes are on the network of this host" in why_refused(insecure)
    insecure = config("insecure", sites={"hpc": {"nodes": 1, "mpi": {"clients": 2}}})
    assert "as those with mpi are" in why_refused(insecure)


def test_a_link_is_noted_and_read_again(tmp_path):
    state = StateDir(tmp_path)
    far = Link("127.0.0.1", 1, far="tls:h:2", folder=tmp_path)
    for each in (Link("::1", 7), Link("127.0.0.1", 7, tmp_path / "s"), far):
        each.write(state)
        assert Link.read(state) == each
    state.link.write_text("{}")
    assert Link.read(state) is None


def test_a_stranger_on_the_port_does_not_pass_for_the_superlink(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert Link("127.0.0.1", port).answers(None)
        assert not Link("127.0.0.1", port).answers(ca)


@pytest.mark.skipif(sys.platform != "linux", reason="modes of folders as Linux has them")
def test_a_folder_that_others_may_enter_holds_no_socket(tmp_path):
    make_private(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("open", "link"):
        with pytest.raises(LaunchError, match="must be a folder of yours that nobody else may enter"):
            make_private(tmp_path / name)
