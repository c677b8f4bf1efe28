"""A fork of a warm server is a fresh process that nothing distinguishes from Flower's own, but its start."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from doors import alive, children, until
from flower_hpc.errors import ConfigError
from flower_hpc.federation import FederationConfig
from flower_hpc.federation.environment import warming
from flower_hpc.launchers.warm import PACKAGES, WARM_ENV, server, shim
from warm import REAL, Warm
from warm import warm as running

TELL = "import os, sys; print(os.getpid(), os.getppid(), end=' ')"
NOT_TAKEN = "warm clients: the server did not take this message: Flower's own command answers\n"
WAIT = "import time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
def warm(tmp_path):
    with running(tmp_path) as server:
        yield server


def package(folder, name, text):
    """A package that only the server and its forks can find; its folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(textwrap.dedent(text))
    return folder


def test_each_call_is_a_new_child_of_the_server_without_what_others_left(warm):
    code = f"{TELL}; import json; print(getattr(json, 'left', None)); json.left = 1"
    one, two = warm(code).split(), warm(code).split()
    assert one[0] != two[0]
    assert one[1:] == two[1:] == [str(warm.server), "None"]


def test_a_fork_has_the_callers_files_folder_arguments_and_environment(warm, tmp_path):
    (tmp_path / "cwd").mkdir()
    (tmp_path / "in").write_text("input")
    code = "import os, sys; print(input(), os.getcwd(), sys.argv[1:], os.environ['A'], 'B' in os.environ)"
    with (tmp_path / "in").open() as given:
        said = warm(code, "--token", "t", "--insecure", env={"A": "1=\n2"}, stdin=given, cwd=tmp_path / "cwd")
    assert said == f"input {tmp_path / 'cwd'} ['--token', 't', '--insecure'] 1=\n2 False"


def test_a_fork_has_no_file_of_the_server(warm):
    with warm.start(WAIT) as waiting:
        waiting.stdout.readline()
        # its own list of names, and the folder that is being read
        assert len(eval(warm("import os; print(os.listdir('/proc/self/fd'))"))) == 5
        waiting.kill()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('words')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_exit_code_is_the_forks(warm, code, expected):
    warm(code, code_is=expected)


@pytest.mark.parametrize(
    "words",
    [
        ["--allow-runtime-dependency-installation"],
        ["--insecure", "--new"],
        ["--token"],
        ["--token=x"],
        ["--tok", "x"],
    ],
)
def test_what_is_not_known_goes_to_flowers_own(warm, words):
    assert warm("print('fork')", *words) == " ".join(["real", *words])


def test_without_a_server_flowers_own_answers(warm, tmp_path):
    warm.kill()
    with warm.start("print('fork')", "--insecure") as caller:
        assert caller.communicate() == (
            "real --insecure\n", "warm clients: the server is gone: Flower's own command answers\n"
        )  # fmt: skip
    (tmp_path / "socket").unlink()
    assert warm("print('fork')") == "real"


def test_a_call_that_no_fork_has_taken_goes_to_flowers_own(warm):
    with unanswered(warm, "print('fork')") as caller:
        warm.kill()
        assert caller.communicate() == ("real\n", NOT_TAKEN)


@contextlib.contextmanager
def unanswered(warm, code):
    """A call whose caller waits for a server that is stopped."""
    os.kill(warm.server, signal.SIGSTOP)
    with warm.start(code) as caller:
        until(lambda: b"socket:[" in b"".join(links(caller.pid)))
        yield caller


@pytest.mark.parametrize("answer", [b"", b"-", b"0"])
def test_only_one_answer_means_that_a_fork_has_the_call(tmp_path, answer):
    (tmp_path / "real").write_text(REAL)
    (tmp_path / "real").chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        with Warm(tmp_path, None).start() as caller:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
            assert caller.communicate() == ("real\n", NOT_TAKEN)


def test_a_signal_that_comes_before_the_fork_is_the_forks(warm):
    with unanswered(warm, "import time; time.sleep(60)") as caller:
        assert os.getpgid(caller.pid) == caller.pid
        caller.send_signal(signal.SIGTERM)
        os.kill(warm.server, signal.SIGCONT)
        assert caller.wait(30) == 128 + signal.SIGTERM  # as the fork ended; else it is the caller that did


def test_a_signal_that_comes_before_flowers_own_is_that_ones(warm):
    with unanswered(warm, "") as caller:
        caller.send_signal(signal.SIGTERM)
        warm.kill()
        assert caller.communicate()[0] == ""
        assert caller.returncode == -signal.SIGTERM


def test_flowers_own_is_in_the_callers_group(warm, tmp_path):
    (tmp_path / "real").write_text("#!/bin/sh\ncut -d' ' -f5 /proc/$$/stat\n")
    with unanswered(warm, "") as caller:
        warm.kill()
        assert int(caller.communicate()[0]) == os.getpgrp()


def test_calls_of_other_users_are_refused(tmp_path):
    with running(tmp_path, answers="real", AS_UID=str(os.geteuid() + 1)) as warm:
        assert set(warm.said) == {"warm clients: a call of another user is refused"}


def test_a_server_of_another_user_gets_no_call(warm, tmp_path):
    code = "import os, runpy, sys; os.geteuid = lambda: 4242; "
    code += "runpy.run_path(sys.argv.pop(1), None, '__main__')"
    words = [sys.executable, "-c", code, shim.__file__]
    call = [*words, str(tmp_path / "socket"), str(tmp_path / "real")]
    done = subprocess.run(call, env=warm.env | {"CODE": "print('fork')"}, capture_output=True, text=True)
    assert done.stdout == "real\n"
    assert done.stderr == "warm clients: the server is another user's: Flower's own command answers\n"


def test_a_server_that_is_killed_is_started_again(tmp_path):
    with running(tmp_path, AGAIN_S="0") as warm:
        for name in ("SIGKILL", "SIGTERM"):
            before = warm.server
            os.kill(before, signal.Signals[name])
            until(lambda: warm("print('fork')") == "fork")
            assert warm.server not in (None, before)
            said = f"warm clients: the server was killed by {name}; the next one starts in 0 s"
            assert warm.said[-1] == said


def test_a_server_is_not_started_again_at_once(warm):
    os.kill(warm.server, signal.SIGKILL)
    until(lambda: warm.said)
    [said] = warm.said
    assert 30 < int(said.removesuffix(" s").rpartition(" ")[2]) <= 60
    assert warm("print('fork')") == "real"
    assert warm.server is None


def links(pid):
    folder = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"{folder}/{name}").encode())
    return found


def test_a_folder_that_is_gone_is_no_matter(warm, tmp_path):
    (tmp_path / "gone").mkdir()
    words = ["/bin/sh", "-c", f'rmdir {tmp_path / "gone"}; exec "$@"', "sh"]
    shim = [sys.executable, "-I", "-S", server.__file__.replace("server", "shim")]
    call = [*shim, str(tmp_path / "socket"), str(tmp_path / "real")]
    done = subprocess.run([*words, *call], cwd=tmp_path / "gone", capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("real\n", 0), done.stderr


HANDLER = """
import os, signal, time
count = []
signal.signal(signal.SIGTERM, lambda *_: count.append(1))
print(os.getpid(), flush=True)
while not count: time.sleep(0.01)
time.sleep(0.5)
raise SystemExit(10 + len(count))
"""


def test_a_signal_to_the_caller_reaches_the_fork_once(warm):
    with warm.start(HANDLER) as caller:
        fork = int(caller.stdout.readline())
        assert os.getpgid(caller.pid) == caller.pid != os.getpgid(fork)
        caller.send_signal(signal.SIGTERM)
        assert caller.wait(30) == 11


GROUP = """
import os, pathlib, signal, subprocess, time
count = []
signal.signal(signal.SIGTERM, lambda *_: count.append(1))
child = subprocess.Popen(["sleep", "60"])
print(os.getpid(), child.pid, flush=True)
while not count: time.sleep(0.01)
time.sleep(0.5)
pathlib.Path(os.environ["COUNT"]).write_text(f"{len(count)} {child.wait()}")
"""


def test_a_signal_to_the_nodes_group_reaches_the_fork_once_and_its_children(tmp_path):
    # they are in a session of their own: the tests are not in that group
    with running(tmp_path, COUNT=str(tmp_path / "count")) as warm:
        group = os.getpgid(warm.server)
        with warm.start(GROUP) as caller:
            fork, child = map(int, caller.stdout.readline().split())
            assert os.getpgid(fork) == os.getpgid(child) == group != os.getpgid(caller.pid)
            os.killpg(group, signal.SIGTERM)
            until(lambda: not alive(fork) and not alive(child))
            caller.wait(30)
        assert (tmp_path / "count").read_text() == f"1 {-signal.SIGTERM}"


def test_a_caller_that_is_killed_takes_its_fork_along_though_it_ignores_sigterm(warm):
    ignore = "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
    with warm.start(ignore + WAIT) as caller:
        fork = int(caller.stdout.readline())
        caller.kill()
        until(lambda: not alive(fork))
    assert warm("print('next')") == "next"


def test_a_fork_outlives_a_server_that_is_killed(warm, tmp_path):
    go, done = tmp_path / "go", tmp_path / "done"
    code = (
        f"import os, time\nprint('up', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"
    )
    with warm.start(f"{code}\nopen({str(done)!r}, 'w')") as caller:
        caller.stdout.readline()
        os.kill(warm.server, signal.SIGKILL)
        assert caller.wait(30) == 1
        go.touch()
    until(done.exists)


def test_the_server_ends_with_its_parent_though_sigterm_is_blocked(tmp_path):
    words = ["-m", server.__name__, str(tmp_path / "socket"), "real", ""]
    code = f"""
    import os, signal, subprocess, sys, time
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print(subprocess.Popen([sys.executable, *{words!r}, str(os.getpid())]).pid, flush=True)
    time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        until((tmp_path / "socket").exists)
        [serving] = children(child)
        parent.kill()
    until(lambda: not alive(child) and not alive(serving))


def test_a_server_whose_parent_is_gone_already_does_not_stay(tmp_path):
    words = [sys.executable, "-m", server.__name__, str(tmp_path / "socket"), "real", "", "1"]
    assert subprocess.run(words, timeout=60).returncode == 0


def test_what_cannot_be_read_harms_no_other_call(warm, tmp_path):
    for data in (b"", b"\1", b"\xff" * 8, (3).to_bytes(8, "little") + b"abc"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(tmp_path / "socket"))
            stranger.sendall(data)
    assert warm("print('next')") == "next"
    assert len(warm.said) == 4


def test_a_server_keeps_nothing_of_its_calls(warm):
    server = warm.server
    until(lambda: children(server) == [])
    before = len(links(server))
    for _ in range(20):
        warm()
    # not equal: the call before may have been forgotten since
    until(lambda: len(links(server)) <= before)
    until(lambda: children(server) == [])


def test_what_a_message_imported_is_there_for_the_next_where_it_is_allowed(tmp_path):
    path = package(tmp_path / "path", "wanted", "import os, other; PID = os.getpid()")
    package(path, "other", "import os; PID = os.getpid()")
    code = "import os, wanted, other; print(*(each.PID == os.getpid() for each in (wanted, other)))"
    with running(tmp_path, "wanted", PYTHONPATH=str(path)) as warm:
        assert warm(code) == "True True"
        assert warm(code) == "False False"  # the one needs the other
    with running(tmp_path, "flwr", PYTHONPATH=str(path)) as warm:
        assert (warm(code), warm(code)) == ("True True", "True True")


def test_an_apps_own_module_goes_before_one_of_the_same_name(tmp_path):
    path = package(tmp_path / "path", "datasets", "NAME = 'installed'")
    package(path, "jax", "import sys, datasets\ndef names(): return sys.modules['datasets'].NAME")
    own = package(tmp_path / "app", "datasets", "NAME = 'own'")
    plain = "import datasets, jax; print(datasets.NAME, jax.names())"
    with running(tmp_path, "jax,datasets", PYTHONPATH=str(path)) as warm:
        assert (warm(plain), warm(plain)) == ("installed installed",) * 2
        app = f"import sys; sys.path.insert(0, {str(own)!r}); {plain}"
        assert warm(app) == "own own"
        assert warm(app.replace("datasets, jax", "jax, datasets")) == "own own"
        later = "import sys; sys.path.insert(0, '/'); import jax; print(jax.names(), jax.__spec__.name)"
        assert warm(later) == "installed jax"  # without an import of its own
        assert warm("import sys; print('jax' in sys.modules)") == "False"


def test_a_package_that_cannot_be_imported_is_one_line_and_harmless(tmp_path):
    path = package(
        tmp_path / "path", "picky", "import os\nif os.environ.get('CODE') is None: raise OSError('no')"
    )
    code = "import picky; print('fine')"
    with running(tmp_path, "picky,missing", PYTHONPATH=str(path)) as warm:
        assert [warm(code) for _ in range(3)] == ["fine"] * 3
        assert warm.said == ["warm clients: picky is not imported ahead: no"]


def test_a_package_that_starts_a_thread_ends_the_server(tmp_path):
    text = "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()"
    path = package(tmp_path / "path", "busy", text)
    with running(tmp_path, "busy", PYTHONPATH=str(path)) as warm:
        warm("import busy")
        assert warm.process.wait(30) == 0
        with warm.start("print('fork')") as caller:
            assert caller.communicate() == ("real\n", "")  # why has been said
        assert warm.said == [
            "warm clients: busy starts a thread when imported: from now on Flower's own command answers"
        ]


def test_an_opened_gpu_is_noticed(monkeypatch):
    monkeypatch.setattr(server.threading, "active_count", lambda: 1)  # other tests leave threads behind
    assert not server.unfit()
    monkeypatch.setattr(server, "GPUS", ("/dev/full",))
    with open("/dev/full"):
        assert server.unfit() == "opens a GPU"


DRAWS = """
import random, numpy, torch
print(random.random(), numpy.random.rand(), torch.rand(1).item())
"""
TRAINS = """
import torch
from torch.utils.data import DataLoader, TensorDataset
torch.set_num_threads(2)
data = TensorDataset(torch.arange(64.0).reshape(-1, 1))
layer = torch.nn.Linear(1, 1)
for how in ("fork", "spawn"):
    for (x,) in DataLoader(data, 32, num_workers=1, multiprocessing_context=how):
        layer(x).sum().backward()
wide = torch.ones(1000, 1000)
print(layer.weight.grad.item(), (wide @ wide)[0, 0].item(), torch.get_num_threads())
"""


def test_forks_draw_numbers_of_their_own_and_train_as_other_processes_do(tmp_path):
    with running(tmp_path, "numpy,torch") as warm:
        warm(DRAWS)  # from here on torch is there
        draws = [warm(DRAWS).split() for _ in range(3)]
        assert all(len(set(numbers)) == 3 for numbers in zip(*draws, strict=True))
        assert warm("import torch; torch.manual_seed(1); print(torch.rand(1).item())") == "0.7576315999031067"
        assert warm(TRAINS) == "4032.0 1000.0 2"
        assert warm.server


NODE = """
import os, subprocess, sys, time
from pathlib import Path
from flower_hpc.launchers.warm import start
folder = Path(sys.argv[1])
env = os.environ | start("flwr", folder)
while not (folder / "warm/socket").exists(): time.sleep(0.05)
print(env["PATH"], flush=True)
first = subprocess.run(["flwr-clientapp", "--insecure"], env=env).returncode
(folder / "warm/socket").unlink()
sys.exit(10 * first + subprocess.run(["flwr-clientapp", "--insecure"], env=env).returncode)
"""


def test_the_program_is_found_first_and_a_long_folder_is_no_matter(tmp_path):
    folder = tmp_path / ("long" * 25) / "with 'words'"
    real = tmp_path / "bin/flwr-clientapp"  # in the place of Flower's own
    real.parent.mkdir()
    real.write_text("#!/bin/sh\nexit 3\n")
    real.chmod(0o700)
    env = os.environ | {"PATH": f"{real.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", NODE, folder], env=env, capture_output=True, text=True, timeout=60
    )
    # a fork is Flower's command, and says what it misses; without a server it is what was found on the PATH
    assert (done.returncode, done.stderr.count("--token --token-file is required")) == (23, 1), done.stderr
    program, _, rest = done.stdout.strip().partition(os.pathsep)
    assert (program, rest) == (str(folder / "warm"), env["PATH"])
    assert os.stat(program).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("value", ["yes please", "1", "[torch.nn]", "[3]", "['']", "{torch: true}", "null"])
def test_other_values_are_one_clear_line(tmp_path, value):
    (tmp_path / "federation.yaml").write_text(f"name: lab\nsites: {{here: {{nodes: 1, warm: {value}}}}}\n")
    with pytest.raises(ConfigError) as caught:
        FederationConfig.load(tmp_path / "federation.yaml")
    assert "sites.here.warm: got " in str(caught.value)
    assert "must be true, false, or a list of packages" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", {WARM_ENV: PACKAGES}),
        ("false", {}),
        ("[]", {WARM_ENV: "flwr"}),
        ("[jax, flax]", {WARM_ENV: "flwr,jax,flax"}),
    ],
)
def test_a_site_says_what_its_servers_may_import(tmp_path, value, expected):
    (tmp_path / "federation.yaml").write_text(f"name: lab\nsites: {{here: {{nodes: 1, warm: {value}}}}}\n")
    assert warming(FederationConfig.load(tmp_path / "federation.yaml").sites["here"]) == expected
