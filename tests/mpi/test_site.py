"""A site as one node: what a server hears of it is what it would hear of all its clients."""

import os

import numpy as np
import pytest
from flwr.common.serde import message_to_proto

from flower_hpc.client.site.ask import HEADING
from flower_hpc.client.site.options import SRUN, SiteOptions
from flower_hpc.compression import Compression
from flower_hpc.errors import ConfigError, JobFailed
from flower_hpc.launchers.pilot import environment
from flower_hpc.protocol import (
    COMPRESSION,
    CONTROL,
    DEADLINE_S,
    MPI_ENV,
    REPLY_AS,
    RUN,
    UPDATE,
    VERSION,
)
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import FedAvg, FedNova
from flower_hpc.transport import InProcessGrid, InProcessNode
from mpi import sited
from mpi.siting import CLIENTS
from processes import left_of

SITES = 2
EXAMPLES = [sited.examples(i) for i in range(CLIENTS)]


def learned(strategy, nodes, folder, rounds=3):
    """The model after some rounds, and the metrics of the last."""
    made = [InProcessNode(f"n{i}") for i in range(nodes)]
    grid = InProcessGrid(sited.app, made, run_config={"folder": str(folder)})
    start = to_record({"w": np.ones(500, np.float32), "b": np.zeros((3, 4)), "n": np.array(5)})
    result = strategy(seed=1, fraction_evaluate=1.0).start(grid, start, num_rounds=rounds)
    return to_weights(result.arrays), result


@pytest.mark.parametrize("strategy", [FedAvg, FedNova])
def test_hierarchical_equals_flat(one, tmp_path, monkeypatch, strategy):
    sites, by_sites = learned(strategy, SITES, tmp_path)
    monkeypatch.delenv(MPI_ENV)
    flat, by_clients = learned(strategy, SITES * CLIENTS, tmp_path)
    assert sites.keys() == flat.keys()
    for name, x in flat.items():
        assert (sites[name].dtype, sites[name].shape) == (x.dtype, x.shape)
        np.testing.assert_allclose(sites[name], x, rtol=1e-6, atol=1e-6)
    theirs, ours = (r.train_metrics_clientapp[3] for r in (by_clients, by_sites))
    for key in ("num-steps", "messages", "partitions"):
        assert ours[key] == pytest.approx(theirs[key])
    theirs, ours = (r.evaluate_metrics_clientapp[3] for r in (by_clients, by_sites))
    assert ours["loss"] == pytest.approx(theirs["loss"])


def test_a_site_answers_as_one_client_with_the_weight_of_all(site):
    metrics = site().content["metrics"]
    assert metrics["num-examples"] == sum(EXAMPLES)
    assert metrics["num-steps"] == pytest.approx(np.average([1, 2, 3], weights=EXAMPLES))
    assert metrics["train-loss-rms"] == pytest.approx(np.sqrt(np.average([0, 1, 4], weights=EXAMPLES)))
    again = site().content["metrics"]
    assert (again["messages"], again["calls"]) == (2, 2)  # ranks are warm, and clients keep their state
    loss = site("evaluate").content["metrics"]["loss"]
    assert loss == pytest.approx(np.average(range(CLIENTS), weights=EXAMPLES))
    assert site.log.count(HEADING) == 1  # one job for all


@pytest.mark.parametrize("codec", ["identity", "int8"])
def test_a_site_sends_the_bytes_of_one_client(one, monkeypatch, codec):
    how = Compression.of(codec).ask() if codec != "identity" else Compression().ask()
    config = {REPLY_AS: UPDATE, VERSION: 0, COMPRESSION: how}
    model = {"w": np.zeros(100_000, np.float32)}
    whole = size(one(config=config, arrays=model))
    monkeypatch.delenv(MPI_ENV)
    single = size(one(config=config, arrays=model))
    assert abs(whole - single) < 64  # numbers of examples and means may take a few bytes more
    assert single < 450_000


def size(reply):
    return len(message_to_proto(reply).SerializeToString())


def test_clients_that_take_turns_share_the_budget(one):
    one.of(clients=4, ranks=2)
    assert one(config={DEADLINE_S: 60.0}).content["metrics"]["allowed"] > 20
    # the job is there by now: its start is no part of this one's budget
    assert 0.5 < one(config={DEADLINE_S: 4.0}, patient=True, run_id=8).content["metrics"]["allowed"] <= 2


def test_the_node_s_stop_file_reaches_its_clients(one):
    one()
    (one.folder / "n0" / "stop").touch()
    reply = one(config={DEADLINE_S: 3600.0}, patient=True)
    assert reply.content["metrics"]["num-examples"] == sum(EXAMPLES)


@pytest.mark.parametrize("how", [{"raises": 1}, {"broken": 1}])
def test_a_client_that_fails_is_left_out_and_counted(one, caplog, how):
    reply = one(config={RUN: "r"}, **how)
    metrics = reply.content["metrics"]
    assert (metrics["site-clients"], metrics["site-failed"]) == (2, 1)
    assert metrics["num-examples"] == EXAMPLES[0] + EXAMPLES[2]
    zeros = np.zeros(1000, np.float32)
    means = np.average([sited.trained(i, zeros) for i in (0, 2)], axis=0, weights=[EXAMPLES[0], EXAMPLES[2]])
    np.testing.assert_allclose(to_weights(reply.content["arrays"])["w"], means, rtol=1e-6, atol=1e-6)
    assert "client-1: " in caplog.text


def test_where_all_fail_the_site_does(one):
    with pytest.raises(JobFailed, match=r"none of the site's 3 clients .* as asked"):
        one(raises="all")


def test_a_rank_that_dies_is_told_and_the_next_message_starts_a_new_job(site):
    with pytest.raises(JobFailed, match=r"rank 2 on .* died .signal SIGKILL. while it worked on n0/client-1"):
        site(dies=1)
    assert site(dies=1).content["metrics"]["num-examples"] == sum(EXAMPLES)
    assert site.log.count(HEADING) == 2


def test_the_job_ends_with_the_supernode(one):
    one()
    assert left_of(one.folder)
    one.kill()
    assert not (one.folder / "n0" / "site" / "socket").exists()


@pytest.mark.parametrize(
    ("kind", "config", "run_config", "said"),
    [
        ("train", {CONTROL: b""}, {}, "SCAFFOLD"),
        ("train", {}, {"tells": True}, "ConfigRecord .mine.: it has no mean"),
        ("query.what", {}, {}, "train and evaluate messages, got 'query'"),
    ],
)
def test_what_has_no_mean_is_refused(one, kind, config, run_config, said):
    with pytest.raises((ConfigError, JobFailed), match=said):
        one(kind, config=config, **run_config)


def test_a_program_that_is_not_there_or_fails_is_told(one):
    one.of(clients=2, launch="no-such-mpiexec")
    with pytest.raises(ConfigError, match="launch must start with a program of this host"):
        one()
    one.of(clients=2, launch="sh -c 'echo error: no such partition; exit 3' --")
    with pytest.raises(JobFailed, match=r"did not start: no such partition .log: "):
        one()


@pytest.mark.parametrize(
    ("launch", "job", "words"),
    [
        ("", "7", " ".join(["srun --jobid=7", *SRUN[1:], "-n 3"])),
        ("srun --mpi=pmix", "7", "srun --jobid=7 --mpi=pmix -n 3"),
        ("mpiexec -l", "7", "mpiexec -l -n 3"),
        ("", "", "mpiexec -n 3"),
    ],
)
def test_inside_a_slurm_job_ranks_are_a_step_of_it(tmp_path, monkeypatch, launch, job, words):
    for name in ("srun", "mpiexec"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    outer = {"SLURM_JOB_ID": job, "SLURM_NTASKS": "1"} if job else {}
    for name, value in environment(outer, {}, tmp_path).items():  # what a pilot's SuperNode sees
        monkeypatch.setenv(name, value)
    assert SiteOptions(clients=2, launch=launch).command() == words.split()
    assert "SLURM_NTASKS" not in os.environ


@pytest.mark.parametrize(
    "text", ["{", "3", '{"clients": 0}', '{"clients": 1, "ranks": 2}', '{"client": 1}', '{"together": 1}']
)
def test_what_the_variable_holds_is_checked(text):
    with pytest.raises(ConfigError, match=f"^{MPI_ENV}"):
        SiteOptions.read(text)
