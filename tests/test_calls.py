"""Calls that workers on other hosts fetch and answer: over TLS, each with its own token, without copies."""

import http.client
import json
import os
import pickle
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from flower_hpc.errors import JobFailed, LaunchError
from flower_hpc.launchers.calls import luggage
from flower_hpc.launchers.calls.runner import Line, prepare
from flower_hpc.launchers.calls.server import CallServer
from flower_hpc.launchers.job_future import JobFuture
from flower_hpc.launchers.kubernetes_executor import call_of
from flower_hpc.protocol import JOB_STATE_ENV

HERE = str(Path(__file__).parent)
READY = {"env": {}, "apps": luggage.pack([])}


@pytest.fixture
def server():
    made = CallServer("127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def errand(server, tmp_path):
    """Makes calls of functions of this module, and worker processes for them."""
    workers, count = [], iter(range(100))

    def make(fn, *args, patience_s=60.0, ready=READY):
        name = f"call-{next(count)}"
        future = JobFuture("job", name, server.withdraw)
        call = call_of(future, [ready, (fn, args, {})])
        server.offer(name, call)
        line = Line(server.url, name, call.token, server.certificate, patience_s)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "call.json").write_text(json.dumps(vars(line)))

        def start():
            command = [sys.executable, "-m", "flower_hpc.launchers.calls.runner", str(folder)]
            env = os.environ | {"PYTHONPATH": HERE}
            worker = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
            workers.append(worker)
            return worker

        return SimpleNamespace(name=name, future=future, line=line, start=start)

    yield make
    for worker in workers:
        worker.kill()
        worker.communicate()


def times(number, text):
    return number * text, os.getpid()


def test_a_call_runs_in_the_worker_and_its_result_comes_back(errand):
    call = errand(times, 3, "ab")
    assert not call.future.running()
    worker = call.start()
    assert call.future.result(60) == ("ababab", worker.pid)
    assert worker.wait(60) == 0


def failing():
    raise ValueError("no such\npartition")


def unpicklable():
    return Future()


def leaving():
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (failing, "ValueError: no such partition"),
        (leaving, "SystemExit: 3"),
        (unpicklable, "TypeError: cannot pickle '_thread.RLock' object"),
    ],
)
def test_what_goes_wrong_there_is_one_line_here(errand, fn, words):
    call = errand(fn)
    call.start()
    with pytest.raises(JobFailed) as error:
        call.future.result(60)
    assert str(error.value) == f"job {call.name}: {words}"
    assert "Traceback" in "".join(error.value.__notes__)


def test_a_call_that_cannot_be_pickled_fails_at_once_and_its_worker_leaves(errand):
    call = errand(times, 1, Future())
    worker = call.start()
    with pytest.raises(JobFailed, match="what travels cannot be read or written: TypeError: cannot pickle"):
        call.future.result(60)
    call.future._end(call.name)
    assert "nobody waits" in worker.communicate(timeout=60)[1]


def gone():
    return Vanishing()


class Vanishing:
    def __reduce__(self):
        return getattr, (os, "no_such_name")


def test_a_result_that_cannot_be_read_here_is_an_error_and_not_asked_for_again(errand):
    call = errand(gone)
    worker = call.start()
    with pytest.raises(JobFailed, match="what travels cannot be read or written: AttributeError"):
        call.future.result(60)
    assert worker.wait(60) == 0


# who may


def status_of(line, method="GET", what="call", *, worker="first", token=None, body=None):
    connection = line._connection(10)
    headers = {"Authorization": f"Bearer {line.token if token is None else token}", "X-Worker": worker}
    try:
        connection.request(method, f"/{line.name}/{what}", body=body, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def evil():
    raise AssertionError("this must never be unpickled")


class Evil:
    def __reduce__(self):
        return evil, ()


def test_nothing_is_told_or_read_without_the_calls_own_token(errand):
    call, other = errand(times, 1, "a"), errand(times, 1, "b")
    poison = pickle.dumps((True, Evil()))
    for token in ("", "x", other.line.token):
        assert status_of(call.line, token=token) == 403
        with suppress(OSError):  # the server does not read what it refuses
            assert status_of(call.line, "POST", "result", token=token, body=poison) == 403
    assert not call.future.running()
    assert not call.future.done()


def test_a_second_worker_gets_nothing(errand):
    call = errand(times, 1, "a")
    assert status_of(call.line) == 200
    assert call.future.running()
    assert status_of(call.line, worker="second") == 409
    assert status_of(call.line) == 200  # the first may ask again: its connection may have broken


def test_what_nobody_waits_for_is_gone(errand, server):
    call = errand(times, 1, "a")
    assert status_of(call.line, what="alive") == 204
    server.withdraw(call.name)
    assert status_of(call.line, what="alive") == 410


def test_another_servers_certificate_is_not_accepted(errand):
    call, other = errand(times, 1, "a"), CallServer("127.0.0.1")
    try:
        line = Line(other.url, call.name, call.line.token, call.line.ca, 1.0)
        with pytest.raises(ssl.SSLCertVerificationError):
            status_of(line)
    finally:
        other.close()


def test_who_does_not_speak_tls_hinders_nobody(errand, server):
    call = errand(times, 1, "a")
    plain = http.client.HTTPConnection(*server.server_address, timeout=10)
    plain.connect()  # and says nothing
    assert status_of(call.line) == 200
    plain.close()


def test_an_address_of_another_host_is_one_line():
    with pytest.raises(LaunchError, match=r"^calls cannot be served at 192\.0\.2\.1, ports 9100 to 9163: "):
        CallServer("192.0.2.1")


# how a worker ends


def until_told(path, then_s=0.0):
    Path(path).touch()
    while not (Path(os.environ[JOB_STATE_ENV]) / "stop").exists():
        time.sleep(0.02)
    time.sleep(then_s)
    return "so far"


def wait_for(path):
    while not path.exists():
        time.sleep(0.02)


def test_a_worker_that_is_asked_to_leave_sends_what_it_has(errand, tmp_path):
    call = errand(until_told, str(tmp_path / "began"))
    worker = call.start()
    wait_for(tmp_path / "began")
    worker.send_signal(signal.SIGTERM)
    assert call.future.result(60) == "so far"


def test_a_cancelled_worker_that_is_asked_to_leave_ends_at_once(errand, tmp_path):
    call = errand(until_told, str(tmp_path / "began"), 3600.0)
    worker = call.start()
    wait_for(tmp_path / "began")
    call.future.cancel()
    worker.send_signal(signal.SIGTERM)
    assert "nobody waits" in worker.communicate(timeout=60)[1]
    with pytest.raises(CancelledError):
        call.future.result(0)


def test_a_worker_whose_caller_is_silent_is_told_to_stop_and_then_ends(errand, server, tmp_path):
    call = errand(until_told, str(tmp_path / "began"), 3600.0, patience_s=1.0)
    worker = call.start()
    wait_for(tmp_path / "began")
    server.close()
    said = worker.communicate(timeout=60)[1]
    assert "is silent: this job is to stop" in said
    assert worker.returncode == 1


def test_a_worker_that_cannot_reach_its_caller_says_so(errand, server):
    call = errand(times, 1, "a", patience_s=1.0)
    server.close()
    worker = call.start()
    assert f"{call.line.url} cannot be reached: " in worker.communicate(timeout=60)[1]
    assert worker.returncode == 1


# what travels


def test_an_apps_folders_come_first_there_and_in_their_order(tmp_path, monkeypatch):
    home = tmp_path / "home"
    for name, text in (("app", "WORD = 'app'"), ("more", "WORD = 'more'")):
        (home / "apps" / name / "__pycache__").mkdir(parents=True)
        (home / "apps" / name / "flower_hpc_word.py").write_text(text)
    monkeypatch.setenv("FLWR_HOME", str(home))
    monkeypatch.setattr(sys, "path", [str(home / "apps" / "more"), "/usr", str(home / "apps" / "app")])
    packed = luggage.pack(luggage.app_folders())
    monkeypatch.setattr(sys, "path", ["/usr"])
    prepare({"env": {"FLOWER_HPC_SAID": "yes"}, "apps": packed})
    assert os.environ.pop("FLOWER_HPC_SAID") == "yes"
    import flower_hpc_word

    assert flower_hpc_word.WORD == "more"
    assert len(sys.path) == 3
    assert not list(Path(sys.path[0]).glob("__pycache__/x"))
