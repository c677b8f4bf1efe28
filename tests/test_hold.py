"""A request for messages is held until there is one, and for nobody longer than anybody waits."""

import asyncio
import base64
import json
import os
import socket
import threading

import pytest

from doors import server, short_folder, until
from flower_hpc.network import gateway as module
from flower_hpc.network.gateway import Gateway, GatewaySettings
from flower_hpc.network.heard import fingerprint
from flower_hpc.network.hold import LARGEST, MOST, PULL, Bell
from flower_hpc.protocol import BELL, STATE_ENV
from flower_hpc.strategies.loop.bell import ring
from test_gateway import FakeSuperLink, folder, gateway, post, raw, status

__all__ = ["folder"]
FOREVER_S = 10_000.0
REQUEST = b"\x0a\x02\x08\x07"
LINE = REQUEST.hex() + "\n"


class Quiet(FakeSuperLink):
    """Has no messages but those that a test gives it."""

    def __init__(self, path):
        super().__init__(path)
        self.message = b""

    def __call__(self, connection):
        with connection.makefile("rb") as file:
            while line := file.readline():
                head = [line]
                while (line := file.readline()) not in (b"\r\n", b""):
                    head.append(line.lower())
                headers = dict(each.strip().split(b": ", 1) for each in head[1:])
                body = file.read(int(headers[b"content-length"]))
                self.heads.append(head)
                self.bodies.append(body)
                found = self.message
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(found), found))


@pytest.fixture
def superlink():
    with short_folder() as path:
        fake = Quiet(path / "superlink")
        fake.bell, fake.withdrawn = path / BELL, path / "withdrawn.json"
        with server(fake, socket.AF_UNIX, str(fake.path)):
            yield fake


@pytest.fixture
def inside(superlink, folder):
    """The gateway in this process."""
    settings = GatewaySettings(
        listen="127.0.0.1:1",
        superlink=f"unix:{superlink.path}",
        certificate=folder / "gateway.pem",
        key=folder / "gateway.key",
        insecure_superlink=True,
        bell=superlink.bell,
        withdrawn=superlink.withdrawn,
    )
    return Gateway(settings)


class Asked:
    """One request to the gateway, as uvicorn hands it over."""

    def __init__(self, app, body=REQUEST, headers=()):
        self.said, self._left = [], asyncio.Event()
        self._coming = [{"type": "http.request", "body": body}]
        scope = {"method": "POST", "raw_path": PULL, "query_string": b"", "headers": list(headers)}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self):
        if self._coming:
            return self._coming.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.said.append(message)

    def leave(self):
        self._left.set()

    async def answer(self):
        await asyncio.wait_for(self.task, 60)
        return self.said[0]["status"], b"".join(each.get("body", b"") for each in self.said[1:])


def run(app, test):
    async def whole():
        try:
            await test
        finally:
            await app._superlink.aclose()

    asyncio.run(whole())


async def asked_for(superlink, times):
    while len(superlink.heads) < times:
        await asyncio.sleep(0.01)


def rings(superlink, line=LINE):
    with superlink.bell.open("a") as file:
        file.write(line)


@pytest.fixture
def patient(monkeypatch):
    """Only the bell can end a wait."""
    monkeypatch.setattr(module, "AGAIN_S", FOREVER_S)
    monkeypatch.setattr(module, "HOLD_S", FOREVER_S)


@pytest.mark.usefixtures("patient")
def test_the_bell_brings_the_message_to_the_node_that_it_rings_for(superlink, inside):
    async def main():
        one, other = Asked(inside), Asked(inside, b"other")
        await asked_for(superlink, 2)
        superlink.message = b"message"
        rings(superlink)
        assert await one.answer() == (200, b"message")
        assert not other.task.done()
        rings(superlink, "not hexadecimal\n\xff\n" + b"other".hex() + "\n")
        assert await other.answer() == (200, b"message")

    run(inside, main())
    assert superlink.bodies == [REQUEST, b"other"] * 2 or superlink.bodies == [b"other", REQUEST] * 2


@pytest.mark.usefixtures("patient")
def test_a_bell_for_nothing_has_it_held_on(superlink, inside):
    async def main():
        asked = Asked(inside)
        for times in (1, 2, 3):
            await asked_for(superlink, times)
            rings(superlink)
        superlink.message = b"message"
        rings(superlink)
        assert await asked.answer() == (200, b"message")

    run(inside, main())


def test_without_a_bell_the_superlink_is_asked_again(superlink, inside, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.05)

    async def main():
        asked = Asked(inside)
        await asked_for(superlink, 3)
        superlink.message = b"message"
        assert await asked.answer() == (200, b"message")

    run(inside, main())


def test_nobody_is_held_longer_than_it_waits(superlink, inside, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.05)
    monkeypatch.setattr(module, "HOLD_S", 2.0)

    async def main():
        assert await Asked(inside).answer() == (200, b"")

    run(inside, main())
    assert len(superlink.heads) > 1


@pytest.mark.usefixtures("patient")
def test_who_goes_away_is_held_no_longer(superlink, inside):
    async def main():
        asked = Asked(inside)
        await asked_for(superlink, 1)
        asked.leave()
        await asyncio.wait_for(asked.task, 60)
        assert asked.said == []
        assert not inside._bell._waiting

    run(inside, main())


def test_a_node_that_is_withdrawn_meanwhile_is_refused(superlink, inside, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.05)

    async def main():
        asked = Asked(inside, headers=[(b"flwr-public-key", base64.b64encode(b"one"))])
        await asked_for(superlink, 2)
        superlink.withdrawn.write_text(json.dumps({"a": fingerprint(b"one")}))
        assert await asked.answer() == (403, b"{}")

    run(inside, main())
    assert inside.refused["withdrawn"] == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("harm", ["deleted", "cut", "garbage"])
def test_a_bell_that_was_harmed_rings_again(superlink, inside, harm):
    async def main():
        asked = Asked(inside)
        await asked_for(superlink, 1)
        rings(superlink)
        await asked_for(superlink, 2)
        if harm == "deleted":
            superlink.bell.unlink()
            while not superlink.bell.exists():
                await asyncio.sleep(0.01)
        elif harm == "cut":
            os.truncate(superlink.bell, 0)
            while inside._bell._read:
                await asyncio.sleep(0.01)
        else:
            superlink.bell.write_bytes(bytes(range(256)) * (MOST // 100) + b"\n")
        superlink.message = b"message"
        rings(superlink)
        assert await asked.answer() == (200, b"message")

    run(inside, main())


def test_what_was_heard_is_cut_off(tmp_path):
    bell = Bell(tmp_path / "bell", lambda: False)
    lines = (REQUEST.hex() + "\n") * (MOST // 5)
    with (tmp_path / "bell").open("a") as file:
        file.write(lines)
    heard = 0
    while (tmp_path / "bell").stat().st_size:
        heard += bell._new().count(REQUEST)
    assert heard == lines.count("\n")
    rings(type("Link", (), {"bell": tmp_path / "bell"}))
    assert [each for _ in range(2) for each in bell._new()] == [REQUEST]


@pytest.mark.usefixtures("patient")
def test_many_wait_and_each_is_told(superlink, inside):
    bodies = [b"node %d" % number for number in range(200)]

    async def main():
        asked = [Asked(inside, body) for body in bodies]
        await asked_for(superlink, len(bodies))
        superlink.message = b"message"
        rings(superlink, "".join(f"{body.hex()}\n" for body in bodies))
        assert {await each.answer() for each in asked} == {(200, b"message")}

    run(inside, main())


def test_a_large_body_is_refused_there(superlink, inside):
    async def main():
        assert await Asked(inside, bytes(LARGEST + 1)).answer() == (413, b"{}")
        said = [(b"content-length", b"%d" % (LARGEST + 1))]
        assert await Asked(inside, bytes(LARGEST + 1), said).answer() == (413, b"{}")

    run(inside, main())
    assert superlink.heads == []


def test_what_rings_is_what_the_node_asks(tmp_path, monkeypatch):
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.proto.node_pb2 import Node

    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    ring([7])
    assert list(tmp_path.iterdir()) == []  # where nobody listens
    bell = Bell(tmp_path / BELL, lambda: False)
    ring([7, 2**63])
    asked = [PullMessagesRequest(node=Node(node_id=each)).SerializeToString() for each in (7, 2**63)]
    assert bell._new() == asked


@pytest.fixture
def process(superlink, folder):
    """The gateway as a process, and calls to it in threads."""
    options = ("--superlink", f"unix:{superlink.path}", "--insecure-superlink", "--max-connections", "3")
    with gateway(folder, *options, "--bell", str(superlink.bell)) as (port, _):
        superlink.port, superlink.folder, superlink.answers = port, folder, []
        yield superlink


def ask(superlink):
    def call():
        superlink.answers.append(raw(superlink, post(PULL.decode(), body=REQUEST)))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    return threads


def test_its_end_ends_what_is_held(superlink, folder):
    options = ("--superlink", f"unix:{superlink.path}", "--insecure-superlink", "--bell", str(superlink.bell))
    with gateway(folder, *options) as (port, _):
        superlink.port, superlink.folder, superlink.answers = port, folder, []
        threads = ask(superlink)
        until(lambda: len(superlink.heads) >= 3)
    for thread in threads:
        thread.join()
    assert [status(each) for each in superlink.answers] == [200] * 3  # and not the end of a connection


def test_those_who_wait_count_as_connections(process):
    threads = ask(process)
    until(lambda: len(process.heads) >= 3)
    assert raw(process, post(PULL.decode(), body=REQUEST)) == b""
    process.message = b"message"
    rings(process)
    for thread in threads:
        thread.join()
    assert [each.endswith(b"message") for each in process.answers] == [True] * 3
    until(lambda: raw(process, post(PULL.decode(), body=REQUEST)).endswith(b"message"))
