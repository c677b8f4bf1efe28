"""The command line on a federation in a folder of its own, as a user has it."""

import json
import os
import subprocess
import time

from flower_hpc.telemetry import read_events
from processes import BIN


class Lab:
    """The command line on a federation of its own, in a folder of its own."""

    def __init__(self, folder, name, **env):
        self.folder, self.home = folder, folder / "home" / name
        self.env = os.environ | env | {"FLOWER_HPC_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0"}

    def __call__(self, *words, code=0):
        done = subprocess.run(
            [str(BIN / "flower-hpc"), *words], cwd=self.folder, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def start(self, *words):
        with (self.folder / "run.log").open("wb") as log:
            return subprocess.Popen(
                [str(BIN / "flower-hpc"), *words], cwd=self.folder, env=self.env, stderr=log
            )

    def status(self):
        return json.loads(self("status", "--json").splitlines()[-1])

    def node(self, name):
        return next((node for node in self.status()["nodes"] if node["name"] == name), None)

    def facts(self, name):
        lines = (self.home / "facts.jsonl").read_text().splitlines()
        return [fact for fact in map(json.loads, lines) if fact["name"] == name]

    def events(self, run):
        path = self.home / "runs" / run / "events.jsonl"
        return read_events(path) if path.exists() else []


def until(condition, seconds=120, every=0.5):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(every)
    return found
