"""The relay passes TCP on as it is."""

import signal
import socket
import subprocess

import pytest

from doors import free_port, read_all, server, until
from flower_hpc.errors import ConfigError
from flower_hpc.network.relay import relay
from processes import BIN


def test_bytes_pass_in_both_directions_until_it_is_stopped():
    port = free_port()
    with server(lambda connection: connection.sendall(read_all(connection).upper())) as (host, behind):
        command = [
            str(BIN / "flower-hpc"),
            "relay",
            "--listen",
            f"127.0.0.1:{port}",
            "--to",
            f"{host}:{behind}",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            client = until(lambda: connected(port))
            with client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"HELLO"
            process.send_signal(signal.SIGTERM)
            assert process.communicate() == (None, "")
        assert process.returncode == 0


def connected(port):
    try:
        return socket.create_connection(("127.0.0.1", port))
    except ConnectionRefusedError:
        return None


@pytest.mark.parametrize(
    "arguments",
    [("x", "a:1"), ("127.0.0.1:1", "unix:/a"), ("127.0.0.1:1", "a:1", 0), ("no.such.host.:1", "a:1")],
)
def test_what_cannot_work_is_refused_in_one_line(arguments):
    with pytest.raises(ConfigError) as refused:
        relay(*arguments)
    assert "\n" not in str(refused.value)
