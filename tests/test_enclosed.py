"""A command in a network of its own: reached through its sockets by its owner, and by nobody else."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import flower_hpc
from doors import alive, as_stranger, children, enclosed, free_port, short_folder, until
from flower_hpc.network.namespace import can_enclose

REASON = can_enclose()
needs_namespace = pytest.mark.skipif(REASON is not None, reason=f"no network namespace: {REASON}")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has network namespaces")

# answers a line with the same in capitals, and says so once it listens
SHOUT = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    with server.accept()[0] as one:
        one.sendall(one.recv(100).upper())
"""
# asks a port, and prints the answer
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
    one.sendall(sys.argv[2].encode())
    print(one.recv(100).decode())
"""
ASK_UNIX = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.connect(sys.argv[1])
"""


@pytest.fixture
def folder():
    with short_folder() as path:
        yield path


def output(*arguments, **more):
    process = enclosed(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    out, err = process.communicate()
    return process.returncode, out.strip(), err.strip()


@pytest.fixture(params=["private", "host"])
def shouting(request, folder, monkeypatch):
    """A server behind a UNIX socket, in a private network or, where there is none, on the host's."""
    if request.param == "private" and REASON:
        pytest.skip(REASON)
    options = []
    if request.param == "host":
        options = ["--or-host"]
        # as on a machine without namespaces
        folder_of_none = folder / "none"
        folder_of_none.mkdir()
        (folder_of_none / "sitecustomize.py").write_text(NO_NAMESPACE)
        monkeypatch.setenv("PYTHONPATH", str(folder_of_none))
    port = free_port()
    process = enclosed(
        *options,
        *("--in", f"unix:{folder}/s=127.0.0.1:{port}", "--", sys.executable, "-c", SHOUT, port),
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        yield process, port, options
        process.kill()


NO_NAMESPACE = """
import ctypes, errno
class Libc:
    def __init__(self, *args, **more): self.real = real(*args, **more)
    def unshare(self, flags): ctypes.set_errno(errno.EPERM); return -1
    def __getattr__(self, name): return getattr(self.real, name)
real, ctypes.CDLL = ctypes.CDLL, Libc
"""


def test_its_owner_reaches_a_server_through_its_socket(shouting, folder):
    _, _, options = shouting
    port = free_port()
    code, out, err = output(
        *options,
        *("--out", f"127.0.0.1:{port}=unix:{folder}/s", "--", sys.executable, "-c", ASK, port, "hello"),
    )
    assert (code, out, err) == (0, "HELLO", "")


@needs_namespace
def test_nobody_reaches_it_over_the_loopback(folder):
    port = free_port()
    command = (sys.executable, "-c", SHOUT, port)
    with enclosed("--in", f"unix:{folder}/s=127.0.0.1:{port}", "--", *command, stdout=subprocess.PIPE) as it:
        assert it.stdout.readline() == "ready\n"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        it.kill()


@needs_namespace
@needs_root
def test_another_user_reaches_nothing_of_it(folder):
    port = free_port()
    command = (sys.executable, "-c", SHOUT, port)
    with enclosed("--in", f"unix:{folder}/s=127.0.0.1:{port}", "--", *command, stdout=subprocess.PIPE) as it:
        assert it.stdout.readline() == "ready\n"
        tcp = as_stranger(["python3", "-c", ASK, str(port), "x"])
        unix = as_stranger(["python3", "-c", ASK_UNIX, f"{folder}/s"])
        enter = as_stranger(["nsenter", f"--net=/proc/{it.pid}/ns/net", "true"])
        it.kill()
    assert "ConnectionRefusedError" in tcp.stderr
    assert "PermissionError" in unix.stderr
    assert enter.returncode != 0


@needs_namespace
def test_nothing_of_the_host_is_reached_from_inside():
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, _, err = output("--", sys.executable, "-c", ASK, server.getsockname()[1], "x")
    assert code == 1
    assert "ConnectionRefusedError" in err


WHO = """
import json, os, re, signal
from pathlib import Path
status = Path("/proc/self/status").read_text()
Path("made").touch()
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "owner": Path("made").stat().st_uid,
    "caps": [int(value, 16) for value in re.findall("Cap(?:Prm|Eff|Inh|Amb):\\t(.*)", status)],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "ignored": int(re.search("SigIgn:\\t(.*)", status)[1], 16),
    "interfaces": Path("/proc/net/dev").read_text().count(":"),
    "files": len(os.listdir("/proc/self/fd")),
}))
"""


@needs_namespace
def test_a_command_is_who_its_caller_is_with_the_signals_that_its_caller_blocked(folder):
    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])

    command = ("--out", f"127.0.0.1:9=unix:{folder}/s", "--", sys.executable, "-c", WHO)
    code, out, err = output(*command, cwd=folder, preexec_fn=block)
    assert code == 0, err
    said = json.loads(out)
    assert (said["uid"], said["gid"], said["owner"]) == (os.geteuid(), os.getegid(), os.geteuid())
    assert said["blocked"] == sorted([signal.SIGTERM, signal.SIGUSR2])
    plain = subprocess.run([sys.executable, "-c", WHO], cwd=folder, capture_output=True, check=True)
    assert said["ignored"] == json.loads(plain.stdout)["ignored"]
    assert said["files"] == json.loads(plain.stdout)["files"]
    assert said["interfaces"] == 1


@needs_namespace
@needs_root
def test_a_command_of_a_plain_user_has_no_capability(folder):
    folder.chmod(0o777)
    source = Path(flower_hpc.__file__).parent
    copy = folder / "copy" / "flower_hpc"  # where another user can read it
    shutil.copytree(source / "network", copy / "network")
    for name in ("__init__.py", "errors.py", "local_socket.py", "parent.py"):
        shutil.copy(source / name, copy)
    python = "/usr/bin/python3"
    if not os.path.exists(python) or as_stranger([python, "-c", "from typing import Self"]).returncode:
        pytest.skip("another user has no Python 3.11 here")
    done = as_stranger(
        [python, "-m", "flower_hpc.network.enclosed", "--", python, "-c", WHO],
        folder=folder,
        env={"PYTHONPATH": str(copy.parent)},
    )
    if done.returncode == 69:
        pytest.skip(done.stderr)
    said = json.loads(done.stdout)
    assert (said["uid"], said["owner"], said["caps"]) == (65534, 65534, [0, 0, 0, 0])


COUNT = """
import signal, sys
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: (seen.append(number), print("term", flush=True)))
signal.signal(signal.SIGUSR1, lambda number, frame: (print(len(seen), flush=True), sys.exit(5)))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("options", [[], ["--or-host"]])
def test_a_signal_arrives_once_and_the_exit_code_is_the_commands(folder, options):
    if REASON and not options:
        pytest.skip(REASON)
    forwards = ("--in", f"unix:{folder}/s=127.0.0.1:9", "--out", f"127.0.0.1:{free_port()}=unix:{folder}/t")
    process = enclosed(*options, *forwards, "--", sys.executable, "-c", COUNT, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "term\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "1\n"
    assert process.returncode == 5


def test_who_dies_of_a_signal_is_seen_to():
    code, _, _ = output("--or-host", "--", "sh", "-c", "kill -TERM $$")
    assert code == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_command_is_ended_nothing_is_left(shouting, folder, number):
    process, _, _ = shouting
    porters = until(lambda: children(process.pid))
    process.send_signal(number)
    assert process.wait() == -number
    until(lambda: not any(alive(pid) for pid in porters))
    until(lambda: not (folder / "s").exists())


def test_a_porter_is_deaf_to_signals_of_its_group(folder):
    forwards = ("--in", f"unix:{folder}/s=127.0.0.1:9")
    command = ("--or-host", *forwards, "--", sys.executable, "-c", COUNT)
    with enclosed(*command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "term\n"
        (porter,) = children(process.pid)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "1\n"
        assert process.wait() == 5
    until(lambda: not alive(porter))


def test_where_there_is_no_namespace_it_says_so_in_one_line(folder, monkeypatch):
    (folder / "sitecustomize.py").write_text(NO_NAMESPACE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    code, out, err = output("--", "echo", "ran")
    assert (code, out) == (69, "")
    assert "no network namespace can be had" in err
    assert "\n" not in err
    assert output("--or-host", "--", "echo", "ran") == (0, "ran", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--in", "x", "--", "true"],
        ["--in", "unix:/nowhere/s=127.0.0.1:9", "--", "true"],
        ["--in", "unix:/nowhere/s=10.0.0.1:9", "--", "true"],
        ["--out", "127.0.0.1:9", "--", "true"],
        ["--out", "127.0.0.1:9=udp:x:1", "--", "true"],
        ["--out", "127.0.0.1:9=tls:x:1", "--", "true"],
        ["--out", "127.0.0.1:9=tcp:x:1", "--cert", "x", "--", "true"],
        ["--out", "127.0.0.1:9=tcp:x:1", "--max-connections", "0", "--", "true"],
        ["--what", "--", "true"],
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(arguments):
    code, out, err = output("--or-host", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("enclosed: ")
    assert "\n" not in err


def test_a_command_that_is_not_there_is_said_as_a_shell_says_it():
    assert output("--or-host", "--", "/no/such")[0] == 127
    assert output("--or-host", "--", "/")[0] == 126


def test_it_imports_nothing_heavy():
    code = "import sys, flower_hpc.network.enclosed; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"flwr", "pydantic", "typer", "numpy", "httpx", "uvicorn"} & set(out.split())
