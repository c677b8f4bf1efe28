"""federation.yaml: what is read from it, and the one line that each mistake gets."""

from pathlib import Path

import pytest

from flower_hpc.errors import ConfigError, FederationError
from flower_hpc.federation import FederationConfig
from flower_hpc.federation.jobs import node_config, plan_nodes
from flower_hpc.federation.link import Link
from flower_hpc.federation.roster import Roster, names_of, roster_for
from flower_hpc.federation.state import StateDir


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "federation.yaml"
        path.write_text(text)
        return FederationConfig.load(path)

    return load


def test_a_short_file_gets_the_defaults(load):
    config = load("sites: {here: {nodes: 4}}")
    assert (config.name, config.security.mode, config.partitions) == ("local", "tls", None)
    assert (config.superlink.host, config.superlink.port) == ("127.0.0.1", None)
    assert config.sites["here"].launcher == "local"


def test_a_full_file_is_read(load, tmp_path):
    config = load("""
name: lab
security: insecure
partitions: 8
superlink: {host: "::1", port: 9000}
sites:
  here:
    launcher: local
    nodes: 4
    data_dir: data
    node_config: {slowdown: 5, greeting: "it's", fast: true, rate: 0.5}
    per_node: {here-3: {slowdown: 50}}
    env: {OMP_NUM_THREADS: 1}
""")
    site = config.sites["here"]
    assert site.data_dir == str(tmp_path / "data")
    assert site.env == {"OMP_NUM_THREADS": "1"}
    assert FederationConfig.parse(config.model_dump(mode="json"), "again") == config


WRONG = {
    "sites: {here: {nodes: 1000000}}": "sites.here.nodes: got 1000000, must be an integer from 1 to 1000",
    "sites: {here: {nodes: -1}}": "sites.here.nodes: got -1, must be an integer from 1 to 1000",
    "sites: {here: {nodes: '4'}}": "sites.here.nodes: got '4', must be an integer from 1 to 1000",
    "sites: {here: {nodes: true}}": "sites.here.nodes: got True, must be an integer from 1 to 1000",
    "sites: {here: {}}": "sites.here.nodes: is missing, must be an integer from 1 to 1000",
    "sites: {here: null}": "sites.here: got None, must be a mapping",
    "sites: {}": "sites: got {}, must be a mapping of at least one site's name to its settings",
    "sites: [here]": "sites: got ['here'], must be a mapping of at least one site's name to its settings",
    "name: lab": "sites: is missing, must be a mapping of at least one site's name to its settings",
    "": "is empty, must be a mapping",
    "superlink: {launcher: psij}\nsites: {a: {nodes: 1}}": "superlink.launcher: got 'psij', must be",
    "sites: {a: {nodes: 1, launcher: slurm, shared: ''}}": "sites.a.shared: got '', must be a path",
    "sites: {a: {nodes: 1, data_dir: ~nobody-there/x}}": "a path; there is no such user",
    "sites: {a: {nodes: 1, launcher: slurm, poll_s: true}}": "sites.a.poll_s: got True, must be seconds",
    "sites: {a: {nodes: 1, launcher: slurm, options: {time: 3}}}": "write it as the site's own 'time'",
    "sites: {a: {nodes: 1, launcher: slurm, container: 'a \"b'}}": "words as a shell reads them (No closing",
    "- 1": "got [1], must be a mapping",
    "nmae: lab": "nmae: unknown field, must be one of: name, security, partitions, strategy,",
    "sites: {here: {nods: 4, nodes: 1}}": "sites.here.nods: unknown field, must be one of: launcher, nodes,",
    "superlink: {prot: 1}\nsites: {here: {nodes: 1}}": "superlink.prot: unknown field, must be one of:",
    "superlink: {port: 70000}\nsites: {here: {nodes: 1}}": "superlink.port: got 70000, must be an integer",
    "superlink: {host: 0.0.0.0}\nsites: {here: {nodes: 1}}": "superlink.host: got '0.0.0.0', must be a",
    "security: none\nsites: {here: {nodes: 1}}": "security: got 'none', must be one of: tls, insecure",
    "sites: {here: {nodes: 1, launcher: lsf}}": "sites.here.launcher: got 'lsf', must be one of: local",
    "sites: {p: {nodes: 1, launcher: psij, executor: sge}}": "sites.p.executor: got 'sge', must be",
    "sites: {p: {nodes: 1, launcher: psij}}": "sites.p.executor: is missing",
    "sites: {hpc: {nodes: 1, launcher: slurm, time: soon}}": "sites.hpc.time: got 'soon', must be min",
    "sites: {hpc: {nodes: 1, launcher: slurm, time: 0}}": "sites.hpc.time: got 0, must be minutes,",
    "sites: {hpc: {nodes: 1, launcher: slurm, gpus: 'a100:'}}": "sites.hpc.gpus: got 'a100:', must be a",
    "sites: {hpc: {nodes: 1, launcher: slurm, mem: lots}}": "sites.hpc.mem: got 'lots', must be a size",
    "sites: {hpc: {nodes: 1, launcher: slurm, cpus: 0}}": "sites.hpc.cpus: got 0, must be an integer from 1",
    "sites: {hpc: {nodes: 1, launcher: slurm, mode: spot}}": "sites.hpc.mode: got 'spot', must be one of: p",
    "sites: {hpc: {nodes: 1, launcher: slurm, partion: x}}": "sites.hpc.partion: unknown field, must be one",
    "sites: {hpc: {nodes: 1, launcher: slurm, options: {array: 1}}}": "a mapping without 'array'",
    "sites: {hpc: {nodes: 1, launcher: slurm, poll_s: 0}}": "sites.hpc.poll_s: got 0, must be seconds from",
    "sites: {here: {nodes: 1, partition: x}}": "sites.here.partition: unknown field, must be one",
    "security: insecure\nsites: {a: {nodes: 1, launcher: slurm}}": "security: got 'insecure', must be",
    "security: {shared_host: maybe}\nsites: {a: {nodes: 1}}": "security.shared_host: got 'maybe', must",
    "gateway: {host: login}\nsites: {a: {nodes: 1}}": "gateway.host: got 'login', must be an IP address",
    "name: ../x\nsites: {here: {nodes: 1}}": "name: got '../x', must be 1 to 50 of a-z",
    "name: default\nsites: {here: {nodes: 1}}": "name: got 'default', must be another word",
    "sites: {He/re: {nodes: 1}}": "sites.He/re: got 'He/re', must be 1 to 50 of a-z",
    "sites: {1: {nodes: 1}}": "sites.1: got 1, must be a string",
    "partitions: 1\nsites: {a: {nodes: 2}, b: {nodes: 1}}": "partitions: got 1, must be at least the 3 nodes",
    "sites: {a: {nodes: 1, per_node: {b-0: {x: 1}}}}": "sites.a.per_node: got 'b-0', must be a node's name",
    "sites: {a: {nodes: 1, node_config: {partition-id: 1}}}": "a mapping without 'partition-id'",
    "sites: {a: {nodes: 1, node_config: {x: [1]}}}": "numbers, strings, true or false ('x' is not)",
    "sites: {a: {nodes: 1, node_config: {x: .inf}}}": "('x' is not)",
    'sites: {a: {nodes: 1, node_config: {x: "a\\nb"}}}': "strings of one line",
    "sites: {a: {nodes: 1, env: {A: true}}}": "sites.a.env: got {'A': True}, must be a mapping to strings",
    "sites: {a: {nodes: 1, env: {'A=B': 1}}}": "a mapping whose keys are names of variables",
    "name: a\nname: b": "line 2, column 1: duplicate key 'name'",
    "sites: {here: {nodes: 4}": "line 1, column",
    "a: b: c": "line 1, column 5: mapping values are not allowed here",
    "a: *b": "line 1, column 4: found undefined alias",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_one_line_with_path_value_and_what_is_allowed(load, tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'federation.yaml'}: ")
    assert WRONG[text] in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_what_is_no_text_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            FederationConfig.load(path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="must be UTF-8"):
        FederationConfig.load(tmp_path / "binary.yaml")


def test_node_config_survives_flowers_own_parser():
    from flwr.common.config import parse_config_args

    values = {"name": "here-0", "partition-id": 3, "rate": 1e-05, "on": True, "path": "/a b/c", "q": "it's"}
    assert parse_config_args([node_config(values)]) == values


def test_names_keep_their_partitions(load):
    config = load("sites: {a: {nodes: 2}, b: {nodes: 1}}")
    first = roster_for(config, None, {"a": 2, "b": 1})
    assert {name: m.partition for name, m in first.members.items()} == {"a-0": 0, "a-1": 1, "b-0": 2}
    learnt = first.learn("a-1", 7, registered=True)
    assert roster_for(config, learnt, {"a": 1, "b": 0}) == learnt
    with pytest.raises(ConfigError, match=r"a-2 finds no partition left"):
        learnt.admit(["a-2"])
    with pytest.raises(ConfigError, match=r"nodes: got 4 in all, must be at most the 3 partitions"):
        roster_for(config, learnt, {"a": 3, "b": 1})


def test_partitions_are_fixed_once_made(load):
    made = Roster(partitions=8)
    assert roster_for(load("sites: {a: {nodes: 2}}"), made, {"a": 2}).partitions == 8
    with pytest.raises(ConfigError, match="partitions: got 9, must be 8"):
        roster_for(load("partitions: 9\nsites: {a: {nodes: 2}}"), made, {"a": 2})


def test_per_node_settings_reach_that_node_alone(load):
    config = load("sites: {a: {nodes: 2, node_config: {x: 1}, per_node: {a-1: {x: 2}}, data_dir: /data}}")
    roster, link = roster_for(config, None, {"a": 2}), Link("::1", 1)
    plans = plan_nodes(config, roster, {"a": 2}, StateDir(Path("s")), link, "tcp:127.0.0.1:2")
    assert [dict(plans[name].config)["x"] for name in names_of({"a": 2})] == [1, 2]
    assert plans["a-1"].config == {
        "name": "a-1",
        "partition-id": 1,
        "num-partitions": 2,
        "data-dir": "/data",
        "x": 2,
    }


def test_a_damaged_roster_is_one_line(tmp_path):
    path = tmp_path / "nodes.json"
    for text in ("{", '{"members": 3}'):
        path.write_text(text)
        with pytest.raises(FederationError, match=r"nodes.json is damaged"):
            Roster.read(path)
