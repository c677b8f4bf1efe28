"""Certificates that Python's own TLS accepts, keys that Flower accepts, a folder that is the user's alone."""

import datetime
import os
import socket
import ssl
import stat
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from flower_hpc.errors import ConfigError, FederationError
from flower_hpc.federation import identity
from flower_hpc.federation.identity import ensure_node_key, ensure_tls
from flower_hpc.federation.state import StateDir


@pytest.fixture
def state(tmp_path):
    state = StateDir(tmp_path / "home of all" / "lab")
    state.create()
    return state


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_certificate_passes_a_strict_handshake(state, host):
    ensure_tls(state, "127.0.0.1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(state.server_cert, state.server_key)
    client = ssl.create_default_context(cafile=str(state.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    left, right = socket.socketpair()

    def serve():
        with server.wrap_socket(right, server_side=True) as tls:
            tls.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(left, server_hostname=host) as tls:
        assert tls.recv(1) == b"x"
    thread.join()


def test_certificates_are_made_once_and_renewed_in_time(state, monkeypatch):
    ensure_tls(state, "127.0.0.1")
    ca, cert = state.ca.read_bytes(), state.server_cert.read_bytes()
    ensure_tls(state, "127.0.0.1")
    assert (state.ca.read_bytes(), state.server_cert.read_bytes()) == (ca, cert)
    ensure_tls(state, "127.0.0.5")  # another address
    other = state.server_cert.read_bytes()
    assert state.ca.read_bytes() == ca
    assert other != cert
    monkeypatch.setattr(identity, "RENEW_DAYS", identity.SERVER_DAYS + 1)
    ensure_tls(state, "127.0.0.5")
    assert state.server_cert.read_bytes() != other


def test_a_damaged_certificate_is_one_line(state):
    ensure_tls(state, "127.0.0.1")
    state.server_cert.write_text("nonsense")
    with pytest.raises(FederationError, match="is damaged"):
        ensure_tls(state, "127.0.0.1")


def test_node_keys_are_openssh_p384_and_lasting(state):
    path = ensure_node_key(state.keys, "here-0")
    before = path.read_bytes()
    key = load_ssh_private_key(before, None)
    public = load_ssh_public_key((state.keys / "here-0.pub").read_bytes())
    assert isinstance(key.curve, ec.SECP384R1)
    assert public == key.public_key()
    assert ensure_node_key(state.keys, "here-0").read_bytes() == before
    assert ensure_node_key(state.keys, "here-1").read_bytes() != before


def test_secrets_are_for_their_owner_alone(state):
    ensure_tls(state, "127.0.0.1")
    ensure_node_key(state.keys, "here-0")
    assert mode(state.path) == mode(state.keys) == mode(state.path.parent) == 0o700
    for path in (state.ca_key, state.server_key, state.keys / "here-0"):
        assert mode(path) == 0o600


def test_a_state_folder_that_was_open_is_closed(state):
    state.path.chmod(0o777)
    state.create()
    assert mode(state.path) == 0o700


def test_a_link_or_a_file_is_no_state_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "file/lab"):
        with pytest.raises(ConfigError, match="state folder"):
            StateDir(tmp_path / name).create()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_another_users_folder_is_refused(tmp_path):
    (tmp_path / "lab").mkdir()
    os.chown(tmp_path / "lab", 12345, -1)
    with pytest.raises(ConfigError, match="folder of yours"):
        StateDir(tmp_path / "lab").create()
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(ConfigError, match="another user's"):
        StateDir(tmp_path / "new").create()


def test_server_certificates_last_825_days_at_most(state):
    from cryptography import x509

    ensure_tls(state, "127.0.0.1")
    cert = x509.load_pem_x509_certificate(state.server_cert.read_bytes())
    assert cert.not_valid_after_utc - cert.not_valid_before_utc < datetime.timedelta(days=826)
