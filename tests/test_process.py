"""A process is known by its number and its creation time, a local socket's other end by its user."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from doors import until
from flower_hpc import process
from flower_hpc.local_socket import LONGEST, address, is_ours
from flower_hpc.parent import end_with_parent


def test_an_identity_finds_its_process_and_no_other_of_that_number():
    pid, _, created = process.identity().partition(":")
    assert process.find(int(pid), float(created)) == psutil.Process()
    assert process.find(int(pid), float(created) - 10) is None
    assert process.identity(os.getppid()) == f"{os.getppid()}:{process.created(os.getppid())!r}"


def test_a_process_that_ended_is_not_found_though_nobody_has_asked_how():
    with subprocess.Popen(["sleep", "60"]) as child:
        created = process.created(child.pid)
        assert process.find(child.pid, created) is not None
        child.kill()
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert process.find(child.pid, created) is None
    assert process.created(child.pid) == 0
    assert process.find(child.pid, 0.0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children")
def test_a_child_ends_with_its_parent():
    ours, theirs = os.pipe()
    if (parent := os.fork()) == 0:
        if os.fork() == 0:
            gone = end_with_parent(signal.SIGKILL, 1 << 30)
            os.write(theirs, b"%d %d" % (os.getpid(), gone))
            time.sleep(60)
        time.sleep(60)
        os._exit(0)
    child, is_parent = map(int, os.read(ours, 100).split())
    assert not is_parent
    created = process.created(child)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until(lambda: process.find(child, created) is None)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("name", ["s", "s" * 200])
def test_a_socket_is_reached_however_long_its_folders_path_is(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        with address(folder / "socket") as where:
            listener.bind(where)
        assert len(where) <= LONGEST
        listener.listen()
        with address(str(folder / "socket")) as where:
            caller.connect(where)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose the other end is")
def test_the_other_end_of_a_socket_is_ours_or_not(monkeypatch):
    one, other = socket.socketpair()
    with one, other:
        assert is_ours(one)
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        assert not is_ours(other)
