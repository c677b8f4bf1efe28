"""Bytes that are passed on: all of them, no more held than fits, to whom shows the right certificate."""

import contextlib
import os
import socket
import ssl
import stat

import pytest

from doors import forwarding, free_port, make_ca, make_identity, read_all, server, short_folder
from flower_hpc.errors import ConfigError
from flower_hpc.network.endpoint import Endpoint, listen
from flower_hpc.network.forward import Forward, Identity


@pytest.fixture
def folder():
    with short_folder() as path:
        yield path


def echo(connection):
    """Answers when the question has ended, as a half-closed connection tells."""
    connection.sendall(read_all(connection)[::-1])


def ask(connection, question):
    connection.sendall(question)
    connection.shutdown(socket.SHUT_WR)
    return read_all(connection)


@pytest.mark.parametrize("text", ["unix:/a b/c", "tcp:127.0.0.1:80", "tcp:[::1]:8", "tls:a-1.site.org:443"])
def test_an_endpoint_prints_as_it_was_read(text):
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix:", "unix:relative", "unix:/a/", "unix:/a\0b", "udp:a:1", "TCP:a:1", "tls:a:b"),
        *("tcp:80", "tcp:a:0", "tcp:a:65536", "tcp:::1:80", "tcp:[a]:1", "tcp:a:1 ", "tcp:a:1\n"),
    ],
)
def test_what_is_no_endpoint_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as refused:
        Endpoint.parse(text)
    assert "\n" not in str(refused.value)


def test_both_directions_arrive_whole_and_a_half_close_is_passed_on(folder):
    question = os.urandom(3_000_000)
    with (
        server(echo) as (host, port),
        forwarding(f"unix:{folder}/s", f"tcp:{host}:{port}"),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(f"{folder}/s")
        assert ask(client, question) == question[::-1]


def test_tcp_to_a_unix_socket_and_many_at_once(folder):
    port = free_port()
    with (
        server(echo, socket.AF_UNIX, f"{folder}/s"),
        forwarding(f"tcp:127.0.0.1:{port}", f"unix:{folder}/s"),
    ):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for number, client in reversed(list(enumerate(clients))):
            with client:
                assert ask(client, b"n%d" % number) == (b"n%d" % number)[::-1]


def test_no_more_is_read_than_the_other_side_takes(folder):
    held = []
    with (
        server(lambda connection: held.append(connection.dup())) as (host, port),
        forwarding(f"unix:{folder}/s", f"tcp:{host}:{port}"),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(f"{folder}/s")
        client.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                sent += client.send(bytes(1_000_000))
        for connection in held:
            connection.close()
    assert sent < 50_000_000  # what the kernel holds, and a chunk


def test_who_is_refused_behind_is_reset_in_front():
    port = free_port()
    with (
        forwarding(f"tcp:127.0.0.1:{port}", f"tcp:127.0.0.1:{free_port()}"),
        socket.create_connection(("127.0.0.1", port)) as client,
        pytest.raises(ConnectionResetError),
    ):
        client.recv(1)


def test_who_is_closed_without_a_word_is_reset_in_front():
    port = free_port()
    with (
        server(lambda connection: connection.recv(1)) as (host, behind),
        forwarding(f"tcp:127.0.0.1:{port}", f"tcp:{host}:{behind}"),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_more_connections_than_allowed_wait_for_their_turn(folder):
    with (
        server(echo) as (host, port),
        forwarding(f"unix:{folder}/s", f"tcp:{host}:{port}", max_connections=1),
    ):
        first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with first, second:
            first.connect(f"{folder}/s")
            second.connect(f"{folder}/s")
            second.sendall(b"two")
            second.shutdown(socket.SHUT_WR)
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.recv(1)
            assert ask(first, b"one") == b"eno"
            second.settimeout(60)
            assert read_all(second) == b"owt"


def test_a_socket_is_for_its_owner_and_goes_when_the_forward_does(folder):
    path = folder / "s"
    with forwarding(f"unix:{path}", "tcp:127.0.0.1:1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_dead_socket_is_replaced_and_a_live_one_is_refused(folder):
    at = Endpoint.parse(f"unix:{folder}/s")
    listen(at).close()
    with listen(at), pytest.raises(ConfigError, match="is in use"):
        listen(at)


def test_other_files_and_open_folders_are_refused(folder):
    (folder / "s").touch()
    with pytest.raises(ConfigError, match="no socket"):
        listen(Endpoint.parse(f"unix:{folder}/s"))
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="you alone"):
        listen(Endpoint.parse(f"unix:{folder}/t"))
    with pytest.raises(ConfigError, match="cannot be listened on"):
        listen(Endpoint.parse(f"unix:{folder}/none/t"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_path_may_be_longer_than_a_socket_address(folder):
    deep = folder / ("x" * 90) / ("y" * 90)
    deep.mkdir(parents=True, mode=0o700)
    front = folder / "front"
    with (
        server(echo) as (host, port),
        forwarding(f"unix:{deep}/s", f"tcp:{host}:{port}"),
        forwarding(f"unix:{front}", f"unix:{deep}/s"),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(front))
        assert ask(client, b"abc") == b"cba"


def test_a_taken_port_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="is in use"):
        listen(Endpoint.parse(f"tcp:127.0.0.1:{taken.getsockname()[1]}"))


def test_mutual_tls_carries_bytes_between_two_forwards(folder):
    ca = make_ca(folder)
    inner = make_identity(folder, ca, "listener", for_client=False)
    outer = make_identity(folder, ca, "dialler", for_client=True)
    port = free_port()
    question = os.urandom(1_000_000)
    with (
        server(echo_of_length) as (host, behind),
        forwarding(f"tls:127.0.0.1:{port}", f"tcp:{host}:{behind}", inner),
        forwarding(f"unix:{folder}/s", f"tls:127.0.0.1:{port}", outer),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(f"{folder}/s")
        client.sendall(len(question).to_bytes(4, "big") + question)
        assert read_all(client) == question


def echo_of_length(connection):
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        data += connection.recv(65536)
    connection.sendall(data[4:])


def test_tls_lets_nobody_in_without_a_certificate_of_our_ca(folder):
    ca, strange = make_ca(folder), make_ca(folder, "strange")
    inner = make_identity(folder, ca, "listener", for_client=False)
    wrong_ca = make_identity(folder, strange, "stranger", for_client=True)
    wrong_use = make_identity(folder, ca, "server", for_client=False)
    reached = []
    port = free_port()
    with (
        server(reached.append) as (host, behind),
        forwarding(f"tls:127.0.0.1:{port}", f"tcp:{host}:{behind}", inner),
    ):
        for shown in (None, wrong_ca, wrong_use):
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            if shown:
                context.load_cert_chain(shown.cert, shown.key)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                tell(port, context)
    assert not reached


def tell(port, context):
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(b"x")  # with TLS 1.3 a client learns that it is refused when it reads
        if client.recv(1) == b"":
            raise ConnectionResetError


def test_a_dialler_believes_only_the_name_it_expects(folder):
    ca = make_ca(folder)
    inner = make_identity(folder, ca, "listener", for_client=False)
    outer = make_identity(folder, ca, "dialler", for_client=True, expected="another.host")
    reached = []
    port = free_port()
    with (
        server(reached.append) as (host, behind),
        forwarding(f"tls:127.0.0.1:{port}", f"tcp:{host}:{behind}", inner),
        forwarding(f"unix:{folder}/s", f"tls:127.0.0.1:{port}", outer),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(f"{folder}/s")
        assert client.recv(1) == b""
    assert not reached


def test_tls_without_files_that_fit_is_refused(folder):
    ca = make_ca(folder)
    good = make_identity(folder, ca, "good", for_client=True)
    make_identity(folder, ca, "other", for_client=True)
    with pytest.raises(ConfigError, match=r"other\.key"):
        Identity(good.cert, folder / "other.key", good.ca)
    with pytest.raises(ConfigError, match="No such file"):
        Identity(good.cert, good.key, folder / "none")
    at = Endpoint.parse("tls:127.0.0.1:1")
    with socket.socket() as unused, pytest.raises(ConfigError, match="needs a certificate"):
        Forward(unused, at, at)
