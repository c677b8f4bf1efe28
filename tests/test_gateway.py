"""Through the gateway go Flower's Fleet methods: no other path, however written, no request in another."""

import base64
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import threading

import pytest
import uvicorn
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.routers.fleet.router import router

from doors import free_port, make_ca, make_identity, server, short_folder, until
from flower_hpc.errors import ConfigError
from flower_hpc.network.fleet import METHODS, passed
from flower_hpc.network.gateway import GatewaySettings
from flower_hpc.network.heard import fingerprint
from flower_hpc.network.patience import patient_protocol
from processes import BIN

GET_RUN = "/v1/fleet/get-run"
OTHERS = sorted(path for _, path in PROTOBUF_REQUEST_TYPES if not path.startswith("/v1/fleet/"))


class FakeSuperLink:
    """Plain HTTP on a UNIX socket; keeps the head of every request that reaches it."""

    def __init__(self, path):
        self.path, self.heads, self.bodies = path, [], []

    def __call__(self, connection):
        with connection.makefile("rb") as file:
            while line := file.readline():
                head = [line]
                while (line := file.readline()) not in (b"\r\n", b""):
                    head.append(line.lower())
                self.heads.append(head)
                self.bodies.append(self._body(file, dict(each.strip().split(b": ", 1) for each in head[1:])))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Flower: yes\r\n\r\nanswer")

    def _body(self, file, headers):
        if b"content-length" in headers:
            return len(file.read(int(headers[b"content-length"])))
        total = 0
        while b"transfer-encoding" in headers and (size := int(file.readline() or b"0", 16)):
            total += len(file.read(size))
            file.readline()
        if b"transfer-encoding" in headers:
            file.readline()
        return total

    @property
    def requests(self):
        return [head[0].split()[:2] for head in self.heads]


@pytest.fixture(scope="module")
def folder():
    with short_folder() as path:
        ca = make_ca(path)
        make_identity(path, ca, "gateway", for_client=False)
        yield path


@contextlib.contextmanager
def gateway(folder, *options):
    """A running gateway; yields its port."""
    port = free_port()
    command = [BIN / "flower-hpc", "gateway", "--listen", f"127.0.0.1:{port}", *options]
    files = ["--certificate", folder / "gateway.pem", "--key", folder / "gateway.key"]
    with subprocess.Popen(list(map(str, command + files)), stderr=subprocess.PIPE, text=True) as process:
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr))
        reader.start()
        try:
            until(lambda: answers(port) or process.poll() is not None)
            yield port, lines
        finally:
            process.send_signal(signal.SIGTERM)
            reader.join()


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True


@pytest.fixture(scope="module")
def door(folder):
    superlink = FakeSuperLink(folder / "superlink")
    options = ("--superlink", f"unix:{superlink.path}", "--insecure-superlink", "--max-body-mb", "2")
    with (
        server(superlink, socket.AF_UNIX, str(superlink.path)),
        gateway(folder, *options) as (port, lines),
    ):
        superlink.port, superlink.lines, superlink.folder = port, lines, folder
        yield superlink


@pytest.fixture(autouse=True)
def forget(request):
    if "door" in request.fixturenames:
        fake = request.getfixturevalue("door")
        fake.heads.clear()
        fake.bodies.clear()


def raw(door, data):
    """What the gateway answers to these bytes, until it closes."""
    context = ssl.create_default_context(cafile=str(door.folder / "ca.pem"))
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
        contextlib.suppress(ConnectionError, ssl.SSLError),
    ):
        client.sendall(data)
        while chunk := client.recv(65536):
            answer += chunk
    return answer


def post(path, *headers, body=b"", method="POST", close=True):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(answer):
    return int(answer.split()[1])


def test_the_list_is_what_flowers_fleet_router_serves():
    assert {(route.path.encode(), *route.methods) for route in router.routes} == {
        (path, "POST") for path in METHODS
    }


@pytest.mark.parametrize("path", sorted(path.decode() for path in METHODS))
def test_what_nodes_need_passes(door, path):
    answer = raw(door, post(path, "Flwr-Signature: abc", "Flwr-Public-Key: key", body=b"hello"))
    assert status(answer) == 200
    assert answer.endswith(b"answer")
    assert b"x-flower: yes" in answer.lower()
    (head,) = door.heads
    assert head[0] == f"POST {path} HTTP/1.1\r\n".encode()
    assert {b"flwr-signature: abc\r\n", b"flwr-public-key: key\r\n", b"content-length: 5\r\n"} <= set(head)
    assert door.bodies == [5]


HOSTILE = [
    *("/v1/fleet/../control/start-run", "/v1/fleet/get-run/../../control/start-run", "/v1/fleet/./get-run"),
    *("/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/%2E%2E%2Fcontrol/start-run", "/v1/%66leet/get-run"),
    *("//v1/fleet/get-run", "/v1//fleet/get-run", "/v1/fleet//get-run", "/V1/fleet/get-run", "/v1/fleet"),
    *("/v1/fleet/get-run/", "/v1/fleet/get-run;x=1", "/v1/fleet/get-run?x", "/v1/fleet/get-run#x", "*", "/"),
    *("/v1/fleet/get-run%00", "/v1/fleet/get-run%20", "/v1/fleet\\get-run", "/v1/fleet/GET-RUN", "/docs"),
    *("https://localhost/v1/control/start-run", "https://localhost/v1/fleet/get-run", "v1/fleet/get-run"),
    *("/openapi.json", "/health", "/v1/fleet/new-method", "/v1/fleet/get-run?/../../control/start-run"),
]


@pytest.mark.parametrize("path", HOSTILE + OTHERS)
def test_no_other_path_passes_however_it_is_written(door, path):
    assert status(raw(door, post(path))) in (400, 404)
    assert door.heads == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post"])
def test_no_other_method_passes(door, method):
    assert status(raw(door, post(GET_RUN, method=method))) == 404
    assert door.heads == []


INNER = post("/v1/control/start-run")
LENGTHS = [
    post(GET_RUN, "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + INNER),
    post(GET_RUN, "Content-Length: 5", body=INNER),
    post(GET_RUN, f"Content-Length: {len(INNER)}, 0", body=INNER),
    post(GET_RUN, "Transfer-Encoding: xchunked", body=INNER),
    post(GET_RUN, "Transfer-Encoding: identity, chunked", body=INNER),
    post(GET_RUN, "Transfer-Encoding : chunked", body=INNER),
    post(GET_RUN, "X: y\n\nPOST /v1/control/start-run HTTP/1.1", body=INNER),
    post(GET_RUN, "Connection: content-length", body=INNER),
    post(f"{GET_RUN} HTTP/1.1\r\nX: y\r\n\r\nPOST /v1/control/start-run"),
    post(GET_RUN, close=False) + INNER,
    INNER.replace(b"Connection: close\r\n", b"") + post(GET_RUN),
    b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
    + INNER,
]


@pytest.mark.parametrize("data", LENGTHS, ids=range(len(LENGTHS)))
def test_no_request_passes_inside_or_behind_another(door, data):
    raw(door, data)
    assert all(words == [b"POST", GET_RUN.encode()] for words in door.requests)
    assert len(door.requests) <= 1
    assert all(head.count(b": ") == 1 for each in door.heads for head in each[1:])


def test_an_upgrade_is_not_passed_on(door):
    upgrade = (
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade, HTTP2-Settings",
    )
    assert status(raw(door, post(GET_RUN, *upgrade))) == 200
    (head,) = door.heads
    assert not any(line.startswith((b"upgrade", b"http2", b"connection: upgrade")) for line in head)
    raw(door, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert len(door.heads) == 1


def test_what_a_superlink_would_believe_of_its_caller_is_dropped():
    headers = [(b"X-Forwarded-For", b"1"), (b"Forwarded", b"1"), (b"Host", b"h"), (b"Flwr-Timestamp", b"t")]
    assert passed([*headers, (b"Connection", b"close, Secret"), (b"secret", b"1")]) == [
        (b"flwr-timestamp", b"t")
    ]


def test_bodies_up_to_the_bound_pass_and_larger_ones_are_told(door):
    path = "/v1/fleet/push-object"
    assert status(raw(door, post(path, body=bytes(2_000_000)))) == 200
    assert door.bodies == [2_000_000]
    assert status(raw(door, post(path, body=bytes(2_000_001)))) == 413
    assert len(door.heads) == 1
    chunks = b"f4240\r\n" + bytes(1_000_000) + b"\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(raw(door, head.encode() + 2 * chunks + b"0\r\n\r\n")) == 200
    assert status(raw(door, head.encode() + 3 * chunks + b"0\r\n\r\n")) == 413


def test_a_kind_of_refusal_is_logged_once(folder):
    with gateway(folder, "--superlink", f"unix:{folder}/none", "--insecure-superlink") as (port, lines):
        door = FakeSuperLink(None)
        door.port, door.folder = port, folder
        for number in range(5):
            raw(door, post(f"/number/{number}"))
        assert status(raw(door, post(GET_RUN))) == 503  # which has a SuperNode try again
    assert sum("refused (path)" in line for line in lines) == 1
    assert not any("Traceback" in line for line in lines)


def test_who_sends_no_whole_request_is_shown_out():
    async def app(scope, receive, send): ...

    with socket.create_server(("127.0.0.1", 0)) as listener:
        protocol = patient_protocol(100, head_s=0.2)
        config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: running.started)
        for words in (b"", b"POST / HTTP/1.1\r\nX: "):
            with socket.create_connection(listener.getsockname(), timeout=60) as client:
                client.sendall(words)
                with contextlib.suppress(ConnectionError):
                    assert client.recv(1) == b""
        running.should_exit = True
        thread.join()


def test_settings_that_cannot_work_are_refused(folder):
    good = {
        "listen": "127.0.0.1:1",
        "superlink": "unix:/run/s",
        "certificate": folder / "gateway.pem",
        "key": folder / "gateway.key",
        "ca": folder / "ca.pem",
    }
    GatewaySettings(**good)
    for bad in (
        {"listen": "127.0.0.1"},
        {"superlink": "tls:a:1"},
        {"superlink": "unix:/" + 200 * "a"},
        {"certificate": folder / "none"},
        {"key": folder / "ca.key"},
        {"ca": None},
        {"ca": folder / "gateway.key"},
        {"max_body_mb": 0},
        {"max_body_mb": float("nan")},
        {"max_connections": 0},
        {"log_level": "loud"},
    ):
        with pytest.raises(ConfigError) as refused:
            GatewaySettings(**(good | bad))
        assert "\n" not in str(refused.value)


def test_a_taken_port_is_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [BIN / "flower-hpc", "gateway", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"]
        command += ["--superlink", "unix:/run/s", "--insecure-superlink"]
        command += ["--certificate", folder / "gateway.pem", "--key", folder / "gateway.key"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr


def test_nodes_that_are_withdrawn_are_refused_and_others_are_not(folder):
    superlink, listed = FakeSuperLink(folder / "withdrawn"), folder / "withdrawn.json"
    options = ("--superlink", f"unix:{superlink.path}", "--insecure-superlink", "--withdrawn", str(listed))
    keys = [base64.b64encode(key).decode() for key in (b"one", b"two")]
    with (
        server(superlink, socket.AF_UNIX, str(superlink.path)),
        gateway(folder, *options) as (port, lines),
    ):
        superlink.port, superlink.folder = port, folder

        def answered(*headers):
            return status(raw(superlink, post(GET_RUN, *headers)))

        asked = [(f"flwr-public-key: {key}",) for key in keys] + [("flwr-public-key: ?",), ()]
        assert [answered(*each) for each in asked] == [200] * 4
        listed.write_text(json.dumps({"a": fingerprint(b"one"), "b": ""}))
        assert [answered(*each) for each in asked] == [403, 200, 200, 200]
        listed.write_text("{")  # what cannot be read changes nothing
        assert answered(*asked[0]) == 403
        listed.write_text("{}")
        assert answered(*asked[0]) == 200
    assert sum("wanted no longer" in line for line in lines) == 1
