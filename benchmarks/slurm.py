"""What a federation on Slurm costs: start of many nodes, notice of a lost one, GPUs held.

Needs a Slurm; ``python tests/slurm/cluster.py up --nodes 6 --gpu-nodes 2 --cpus 8`` brings one up here.

    uv run python benchmarks/slurm.py [--case start|killed|gpus] [--nodes 32]

start   from `up` to all nodes online, beside a single one, and what Slurm is asked meanwhile and afterwards.
killed  a killed step: until the strategies are told, beside the SuperLink's own heartbeat.
gpus    GPU-seconds of 4 nodes and 3 rounds: a job a node, beside a job a training message.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from flower_hpc.federation import Federation, NodeState
from flower_hpc.telemetry import read_events

SITE = "{{launcher: slurm, nodes: {nodes}, time: 30, cpus: 1, mem: {mem}, poll_s: {poll_s}{more}}}"
COUNTED = ("squeue", "sacct", "sbatch")


def federation(folder: Path, name: str, nodes: int, *, mem: str = "250M", poll_s: float = 2, more: str = ""):
    """A federation of one Slurm site, from a file as a user would write it."""
    path = folder / f"{name}.yaml"
    site = SITE.format(nodes=nodes, mem=mem, poll_s=poll_s, more=more)
    path.write_text(f"name: {name}\nsites:\n  hpc: {site}\n")
    return Federation.load(path)


def count_calls(folder: Path) -> Path:
    """Put programs before Slurm's own on PATH that note each call; returns the file of notes."""
    bin_folder, notes = folder / "bin", folder / "calls"
    bin_folder.mkdir()
    for name in COUNTED:
        if real := shutil.which(name):
            script = bin_folder / name
            script.write_text(f'#!/bin/sh\necho {name} >> "{notes}"\nexec {real} "$@"\n')
            script.chmod(0o755)
    os.environ["PATH"] = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    notes.write_text("")
    return notes


def start(folder: Path, nodes: int) -> None:
    """From `up` to all online, and what Slurm is asked meanwhile and afterwards."""
    notes, times = count_calls(folder), {}
    for count in (1, nodes):
        lab, begun = federation(folder, f"start-{count}", count), time.monotonic()
        try:
            status = lab.up(timeout_s=900)
            times[count] = time.monotonic() - begun
            hosts = Counter(node.where for node in status.nodes)
            restarts = sum(node.restarts for node in status.nodes)
            if count == nodes:
                calls = Counter(notes.read_text().split())
                time.sleep(65)  # then it polls at its own pace
                notes.write_text("")
                time.sleep(20)
                quiet = Counter(notes.read_text().split())
        finally:
            lab.down()
    print(f"{nodes} nodes on {len(hosts)} hosts ({', '.join(f'{k}: {v}' for k, v in sorted(hosts.items()))})")
    print(
        f"from up to online: {times[nodes]:.1f} s, {times[1]:.1f} s for one: {times[nodes] / times[1]:.1f}x"
    )
    print(f"restarts (a port clash would be one): {restarts}")
    print(
        f"calls while they came up: {dict(calls)}; in 20 s of a quiet federation, 2 s a poll: {dict(quiet)}"
    )


def kill_step(site: Path) -> None:
    """Kill -9 what runs in the jobs of a site whose cluster is virtual, and so on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "submitit.core._submit" in words and str(site) in words and not words.startswith("srun"):
            for each in (*process.children(recursive=True), process):
                each.kill()


def killed(folder: Path) -> None:
    """A step that is killed: until the strategies are told, and until the SuperLink noticed by itself."""
    lab = federation(folder, "killed", 1)
    try:
        lab.up()
        job, facts = lab.status().nodes[0].job, lab.state_dir / "facts.jsonl"
        size = facts.stat().st_size
        kill_step(lab.state_dir / "sites" / "hpc")
        begun, wall = time.monotonic(), time.time()
        while not (new := facts.read_text()[size:]):
            time.sleep(0.05)
        told = json.loads(new.splitlines()[0])
        # the SuperLink takes the node's next process when it has noticed that the last one is gone
        node = lab.status().nodes[0]
        while node.state is not NodeState.ONLINE or node.job == job:
            time.sleep(0.2)
            node = lab.status().nodes[0]
        noticed = time.monotonic() - begun
    finally:
        lab.down()
    by_scheduler = told["time"] - wall
    print(f"a killed step is told through the scheduler after {by_scheduler:.1f} s ({told['reason']!r}),")
    print(f"the SuperLink has noticed by heartbeat after {noticed:.1f} s: {noticed / by_scheduler:.0f}x")


class GpuSeconds(threading.Thread):
    """Adds up the GPUs of running jobs, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds, self.done = 0.0, threading.Event()

    def run(self) -> None:
        """Look until ``done``."""
        last = time.monotonic()
        while not self.done.wait(0.5):
            said = subprocess.run(
                ["squeue", "-h", "-t", "R", "-o", "%b"], capture_output=True, text=True
            ).stdout
            now = time.monotonic()
            held = sum(int(line.rsplit(":", 1)[-1]) for line in said.split() if "gpu" in line)
            self.seconds, last = self.seconds + held * (now - last), now


def gpus(folder: Path) -> None:
    """GPU-seconds of 4 nodes and 3 rounds: a job a node against a job a training message."""
    seconds = {}
    for mode in ("pilot", "on-demand"):
        more = f", mode: {mode}, gpus: 1, partition: gpu"
        lab, meter = federation(folder, f"gpus-{mode}", 4, more=more, mem="600M"), GpuSeconds()
        meter.start()
        try:
            lab.up()
            command = [str(Path(sys.executable).parent / "flower-hpc"), "run", "benchmark"]
            command += ["-f", lab.name, "-c", "num-rounds=3", "--name", f"gpus-{time.time():.0f}"]
            begun = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            took = time.monotonic() - begun
            run = max((lab.state_dir / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
            waits = [e["queue_s"] for e in read_events(run / "events.jsonl") if e.get("queue_s") is not None]
        finally:
            lab.down()
            meter.done.set()
            meter.join()
        seconds[mode] = meter.seconds
        queue = f", queue {min(waits):.1f} to {max(waits):.1f} s a message" if waits else ""
        print(f"{mode}: {meter.seconds:.0f} GPU-seconds, the run took {took:.0f} s{queue}")
    print(f"on demand holds {seconds['on-demand'] / seconds['pilot']:.2f} of the GPU time")


def main() -> None:
    """Run the cases in a state folder of their own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=("start", "killed", "gpus"), action="append")
    parser.add_argument("--nodes", type=int, default=32, help="for --case start; default 32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FLOWER_HPC_HOME"] = str(folder / "home")
        for case in options.case or ("start", "killed", "gpus"):
            print(f"--- {case}")
            {"start": lambda: start(folder, options.nodes), "killed": lambda: killed(folder)}.get(
                case, lambda: gpus(folder)
            )()
    print(f"command: python {' '.join(sys.argv)}")


if __name__ == "__main__":
    main()
