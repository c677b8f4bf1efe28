"""The command line: one line and exit code 2 for what a user gets wrong; nothing is started for it."""

import json
import socket

import pytest
import typer

from flower_hpc import __version__, apps
from flower_hpc.cli import COMMANDS, app
from flower_hpc.telemetry.runlock import RunLock

NO_FEDERATION = ("demo", "mpi", "strategies", "gateway", "relay")
ON_HOST = "security: {network: host, shared_host: accept}\n"
FILE = """
name: lab
sites:
  here: {nodes: 2}
"""


@pytest.fixture
def flower_hpc(flower_hpc, monkeypatch):
    """The command line, where nobody has said where data lies."""
    monkeypatch.delenv("FLOWER_HPC_DATA", raising=False)
    return flower_hpc


def app_commands():
    return typer.main.get_command(app)


def refused(result):
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    return err


def test_version_and_help(flower_hpc):
    assert flower_hpc("--version")[1].strip() == f"flower-hpc {__version__}"
    code, out, _ = flower_hpc("--help")
    assert code == 0
    assert all(name in out for name in ("demo", "up", "status", "run", "logs", "scale", "down"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-c", "task=nope"], "task must be one of"),
        (["-c", "partitioner=dirichlet", "-c", "alpha=0"], "alpha"),
        (["-c", "partitioner=dirichlet", "-c", "alpha=-1"], "alpha"),
        (["-c", "num-rounds=0"], "num-rounds"),
        (["-c", "num-rounds=many"], "num-rounds must be of type int, got 'many'"),
        (["-c", "tsk=digits"], "no key 'tsk'"),
        (["-c", "digits"], "must be key=value"),
        (["-c", "task=[1]"], "must be a number, a string or true/false"),
        (["--strategy", "first_k(0)"], "k must be a whole number >= 1"),
        (["--strategy", "first_k(99)"], "at most the number of nodes, 3, got 99"),
        (["--strategy", "deadline(-1)"], "seconds > 0"),
        (["--strategy", "nope()"], "unknown name 'nope'"),
        (["--data-dir", "/no/such/folder"], "data-dir must be a folder that exists"),
        (["--name", "a/b"], "run name must be"),
        (["--federation", "federation.yaml"], "give it or --federation, not both"),
    ],
)
def test_a_wrong_run_is_refused_before_anything_starts(flower_hpc, tmp_path, args, words):
    assert words in refused(flower_hpc("run", "benchmark", "--nodes", 3, *args))
    assert not list((tmp_path / "home").glob("*/controller.lock"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "nope", "--nodes", 2], "one of: benchmark; got 'nope'"),
        (["run", ".", "--nodes", 2], "app must be a folder with a pyproject.toml"),
        (["run", "benchmark", "--nodes", 0], "nodes"),
        (["run"], "give an APP to run"),
        (["nope"], "No such command 'nope'"),
        (["up", "--nope"], "No such option"),
        (["status"], "which federation?"),
        (["status", "nope"], "federation must be a file or the name of one of"),
        (["up", "nope.yaml"], "nope.yaml"),
    ],
)
def test_other_mistakes_are_one_line_too(flower_hpc, args, words):
    assert words in refused(flower_hpc(*args))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "federation.yaml"),
        ("- a\n- b", "federation.yaml"),
        ("name: lab\nsites: {here: {nodes: -1}}", "sites.here.nodes: got -1"),
        ("name: lab\nsites: {here: {nodes: two}}", "sites.here.nodes: got 'two'"),
        ("name: lab\nsites: {here: {node: 2}}", "sites.here.node: unknown field"),
        ("name: lab\nsites: {here: {nodes: 1, launcher: lsf}}", "sites.here.launcher: got 'lsf'"),
        ("name: L A B\nsites: {here: {nodes: 1}}", "name: got 'L A B'"),
        ("name: lab\nname: lab\nsites: {here: {nodes: 1}}", "name"),
        ("name: [", "line 1"),
        ("name: lab\npartitions: 1\nsites: {here: {nodes: 2}}", "partitions"),
        ("name: lab\nsites: {here: {nodes: 1, data_dir: /no/such}}", "sites.here.data_dir"),
    ],
)
def test_a_malformed_file_is_one_line(flower_hpc, tmp_path, text, words):
    (tmp_path / "federation.yaml").write_text(text)
    assert words in refused(flower_hpc("up"))


def test_a_taken_port_is_one_line(flower_hpc, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "federation.yaml").write_text(FILE + f"superlink: {{port: {port}}}\n{ON_HOST}")
        assert str(port) in refused(flower_hpc("up"))


def test_a_dry_run_prints_the_commands_and_makes_nothing(flower_hpc, tmp_path):
    (tmp_path / "federation.yaml").write_text(FILE)
    code, out, _ = flower_hpc("up", "--dry-run")
    assert code == 0
    assert all(words in out for words in ("flower-superlink", "here-0", "here-1", "partition-id=1"))
    assert not (tmp_path / "home").exists()


def test_an_app_without_the_key_takes_no_strategy(flower_hpc, tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        '[project]\nname = "plain"\n[tool.flwr.app]\npublisher = "me"\n[tool.flwr.app.config]\nrounds = 3\n'
    )
    err = refused(flower_hpc("run", app, "--nodes", 2, "--strategy", "deadline(3)"))
    assert "plain takes none" in err


def test_down_and_status_of_a_federation_that_is_not_up(flower_hpc, tmp_path):
    (tmp_path / "federation.yaml").write_text(FILE)
    assert flower_hpc("down", "--json")[:2] == (0, '{"name": "lab", "was_up": false}\n')
    code, out, _ = flower_hpc("status", "--json")
    assert code == 0
    assert '"state": "down"' in out
    code, _, err = flower_hpc("scale", "here", 3)
    assert (code, err.strip()) == (1, "error: federation lab is not up")


@pytest.mark.parametrize("command", ["status", "down", "up --dry-run"])
def test_the_federation_is_an_option_of_every_command(flower_hpc, tmp_path, command):
    (tmp_path / "lab.yaml").write_text(FILE)
    words = command.split()
    plain = flower_hpc(*words, "lab.yaml", "--json")
    assert plain[0] == 0
    assert flower_hpc(*words, "-f", "lab.yaml", "--json") == plain
    assert flower_hpc(*words, "lab.yaml", "--federation", "lab.yaml", "--json") == plain
    err = refused(flower_hpc(*words, "lab.yaml", "-f", "other"))
    assert "FEDERATION and --federation differ: 'lab.yaml' and 'other'" in err
    out = flower_hpc(words[0], "--help")[1]
    assert "[FEDERATION]" in out
    assert "--federation" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_and_option_says_what_it_is(flower_hpc, command):
    params = app_commands().get_command(None, command).params
    assert not [p.name for p in params if not getattr(p, "help", None)]


def test_an_app_is_described(flower_hpc):
    for command in ("mpi", "run"):
        out = " ".join(flower_hpc(command, "--help")[1].replace("│", " ").split())
        assert "Folder of a Flower App, that is one with a pyproject.toml" in out
        assert "There is no default" in out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_FEDERATION])
def test_every_command_that_has_a_federation_takes_the_option(command):
    options = {word for p in app_commands().get_command(None, command).params for word in p.opts}
    assert {"-f", "--federation"} <= options


def test_strategies_are_listed_with_parameters_defaults_and_papers(flower_hpc):
    code, out, _ = flower_hpc("strategies", "--json")
    entries = {e["name"]: e for e in json.loads(out)}
    assert code == 0
    assert entries["fedbuff"]["parameters"] == {"k": "10"}
    assert "Nguyen" in entries["fedbuff"]["paper"]
    assert entries["oort"]["kind"] == "selection"
    code, out, _ = flower_hpc("strategies", "hinge")
    assert (code, "default 10" in out, "oort" in out) == (0, True, False)
    assert "no strategy or policy is called 'nope'" in refused(flower_hpc("strategies", "nope"))
    code, out, _ = flower_hpc("strategies", "codec")
    assert (code, "error_bounded" in out, "oort" in out) == (0, True, False)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("{up: topk(2)}", "ratio must be in (0, 1], got 2"),
        ("{foo: 1}", "compression has no parameter 'foo'"),
        ("{down: int8, delta: perhaps}", "delta must be true or false, got 'perhaps'"),
        ("{delta: true}", "delta needs a codec in down"),
        ("{rules: {'a.*': 3}}", "rule 'a.*' must be a codec, got 3"),
        ("5", "compression: got 5, must be a codec or a mapping"),
        ("int9", "unknown"),
    ],
)
def test_a_compression_that_cannot_work_is_refused_by_up_and_run(flower_hpc, tmp_path, block, words):
    text = f"name: lab\ncompression: {block}\nsites: {{a: {{nodes: 2}}}}\n"
    (tmp_path / "federation.yaml").write_text(text)
    assert words in refused(flower_hpc("up", "--dry-run"))
    assert words in refused(flower_hpc("run", "benchmark"))


def test_settings_of_compression_are_read_as_the_readme_writes_them(flower_hpc):
    for setting in ("compression=int8(rounding=stochast)", "compression=topk(0.1,scope=layer)"):
        assert "must be one of" in refused(flower_hpc("run", "benchmark", "--nodes", 2, "--set", setting))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--strategy", "fedbuff", "--set", "k=0"], "k must be a whole number >= 1"),
        (["--strategy", "fedbuff", "--set", "nope=1"], "nope"),
        (["--set", "k"], "--set must be key=value, got 'k'"),
        (["--set", "staleness=hinge(a=-1)"], "hinge slope a must be a number > 0, got -1"),
        (["--set", "selection=random_selection(where='site = 3')"], "where"),
        (["--resume", "r"], "a run that is resumed has its own, leave 'benchmark' out"),
        (["--strategy", "fedavg", "-c", "strategy=fedbuff"], "are both given; leave one out"),
        (["--set", "work=compass"], "compass must be work and cutoff at once"),
        (["--strategy", "fedqueue", "--set", "sync_s=10"], "safety_s must be below sync_s, 10, got 60"),
        (["--strategy", "fedbuff", "--set", "q=10"], "fedbuff has no parameter 'q', known are"),
        (["--strategy", "fedbuff(inner=flower.FedAdam())"], "FedBuff takes no inner strategy"),
        (["--set", "work=fixed_work(config={'a': [1]})"], "config must map names to numbers"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(flower_hpc, tmp_path, args, words):
    assert words in refused(flower_hpc("run", "benchmark", "--nodes", 2, *args))
    assert not (tmp_path / "home").exists()


def test_the_block_of_a_federation_is_judged_before_anything_starts(flower_hpc, tmp_path):
    path = tmp_path / "federation.yaml"
    path.write_text(FILE + "strategy: {name: fedbuff, k: many}\n")
    for command in (["up"], ["run", "benchmark"]):
        assert "k must be a whole number" in refused(flower_hpc(*command))
    path.write_text(FILE + "strategy: [fedbuff]\n")
    assert "strategy" in refused(flower_hpc("up", "--dry-run"))
    path.write_text(FILE + "strategy: {name: fedbuff, k: 2}\n")
    assert flower_hpc("up", "--dry-run")[0] == 0
    assert not (tmp_path / "home").exists()


def a_run(folder, **request):
    folder.mkdir(parents=True)
    full = {"app": str(apps.path("benchmark")), "overrides": {}, "federation": "lab", "nodes": 2, "run_id": 1}
    (folder / "request.json").write_text(json.dumps(full | request))


def test_a_run_that_cannot_be_resumed_is_refused_with_the_reason(flower_hpc, tmp_path):
    assert "no run 'nope'" in refused(flower_hpc("run", "--resume", "nope"))
    assert "no run '../..'" in refused(flower_hpc("run", "--resume", "../.."))
    home = tmp_path / "home"
    a_run(home / "lab/runs/one")
    assert "the latest are: one" in refused(flower_hpc("run", "--resume", "nope"))
    assert "a run that is resumed keeps its name" in refused(
        flower_hpc("run", "--resume", "one", "--name", "two")
    )
    with RunLock(home / "lab/runs/one"):
        assert "run 'one' is still running" in refused(flower_hpc("run", "--resume", "one"))
    a_run(home / "other/runs/one")
    assert "several runs are called 'one'" in refused(flower_hpc("run", "--resume", "one"))
    (home / "lab/runs/two").mkdir()
    assert "it was never submitted" in refused(flower_hpc("run", "--resume", "two"))
    a_run(home / "lab/runs/three", app=str(tmp_path / "gone"))
    assert "app must be a folder" in refused(flower_hpc("run", "--resume", "three"))
    (home / "lab/runs/three/request.json").write_text("{}")
    assert "request.json is damaged: no 'overrides'" in refused(flower_hpc("run", "--resume", "three"))
