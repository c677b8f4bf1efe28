"""What a site leaves where a rank, its SuperNode or the federation ends in mid-round: nothing."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from flower_hpc.client.site.ask import HEADING, PLACE, SOCKET
from lab import Lab, until
from processes import BIN, left_of

pytestmark = [pytest.mark.federation, pytest.mark.timeout(400)]

FILE = f"""
name: lab
sites:
  here:
    nodes: 1
    node_config: {{slowdown: 1000}}
    mpi: {{clients: 2, launch: {BIN / "mpiexec"}}}
"""
SHARED = set()
"""Files of memory that ranks shared."""


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "federation.yaml").write_text(FILE)
    made = Lab(tmp_path, "lab")
    made("up")
    run = made.start("run", "benchmark", "-c", "num-rounds=20", "--name", "first")
    try:
        yield made
    finally:
        made("down")
        run.wait(60)
    assert not left_of(tmp_path)
    assert SHARED
    assert not [name for name in SHARED if os.path.exists(name)]


def working(lab, jobs):
    """The site's ranks, and their parents, once that many jobs were started and the last one works."""
    node = lab.home / "nodes" / "here-0"

    def ready():
        log = node / "site.log"
        return log.exists() and log.read_text().count(HEADING) == jobs and (node / PLACE / SOCKET).exists()

    until(ready)
    time.sleep(3)  # the message comes at once, and its work takes long
    found = ranks(lab)
    for process in found:
        SHARED.update(re.findall(r"/dev/shm/mpich_shm_\w+", Path(f"/proc/{process.pid}/maps").read_text()))
    return found


def ranks(lab):
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "flower_hpc.client.site.job" in words and str(lab.home) in " ".join(words):
            found.append(process)
    return found


def test_a_round_without_a_rank_or_a_supernode_leaves_nothing_behind(lab):
    controller = psutil.Process(int((lab.home / "controller.lock").read_text()))
    first = [p for p in working(lab, 1) if p.environ().get("PMI_RANK") == "1"]
    max(first, key=lambda p: p.create_time()).kill()  # the other one is its parent
    failed = until(lambda: [e for e in lab.events("first") if e["event"] == "reply_failed"])
    assert "the site's MPI job ended while it worked: rank " in failed[0]["reason"]
    assert "died (signal SIGKILL) while it worked on here-0/client-" in failed[0]["reason"]
    assert "\n" not in failed[0]["reason"]
    assert working(lab, 2)  # the next round's
    os.kill(lab.node("here-0")["pid"], signal.SIGKILL)
    until(lambda: not ranks(lab), 20)
    # of the site's processes the controller is now the parent: the SuperNode's own successor is alive
    until(lambda: not [p for p in controller.children() if p.status() == psutil.STATUS_ZOMBIE], 30)


def test_down_in_mid_round_leaves_nothing_behind(lab):
    assert working(lab, 1)  # the rest is the fixture's
