"""A SuperNode that is a site, as far as its clients can tell."""

import json
import subprocess

import numpy as np
import psutil
from flwr.app import ConfigRecord, Context, Message, RecordDict

from flower_hpc.client.site.ask import LOG_FILE
from flower_hpc.protocol import MPI_ENV, NODE_STATE_ENV, SUPERNODE_ENV
from flower_hpc.records import to_record
from flower_hpc.transport.base import identify
from lab import until
from mpi import sited
from processes import left_of

CLIENTS = 3


class Site:
    """One; ``kill`` ends it."""

    def __init__(self, folder, mpi, monkeypatch):
        self.folder, self._mpi, self._patch = folder, mpi, monkeypatch
        self.node = subprocess.Popen(["sleep", "1000"])
        self.of(clients=CLIENTS)
        created = psutil.Process(self.node.pid).create_time()
        monkeypatch.setenv(SUPERNODE_ENV, f"{self.node.pid}:{created!r}")
        monkeypatch.setenv(NODE_STATE_ENV, str(folder))  # undone afterwards: the mod `placed` sets it
        identify()

    def of(self, **settings):
        text = json.dumps({"launch": str(self._mpi.program), **settings})
        self._patch.setenv(MPI_ENV, text)

    def __call__(self, kind="train", arrays=None, config=(), run_id=7, **run_config):
        content = {"arrays": to_record(arrays or {"w": np.zeros(1000, np.float32)})}
        content["config"] = ConfigRecord(dict(config))
        context = Context(run_id, 1, place(), RecordDict(), {"folder": str(self.folder), **run_config})
        return sited.app(Message(RecordDict(content), 1, kind), context)

    def kill(self):
        self.node.kill()
        self.node.wait()
        until(lambda: not left_of(self.folder), every=0.1)

    @property
    def log(self):
        return (self.folder / "n0" / LOG_FILE).read_text()


def place():
    return {"name": "n0", "partition-id": 0, "num-partitions": 1}


def siting(mpi, folder, monkeypatch):
    for key, value in mpi.env.items():
        monkeypatch.setenv(key, value)
    made = Site(folder, mpi, monkeypatch)
    try:
        yield made
    finally:
        made.kill()
