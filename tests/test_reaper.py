"""Orphans that come to us are collected as they end, and our own children's exit codes stay theirs."""

import subprocess
import sys

import pytest

CODE = """
import subprocess, time
import psutil
from flower_hpc.federation.reaper import Adopted
from flower_hpc.parent import adopt_orphans
adopt_orphans()
command = ["sh", "-c", "sleep 0.2; exit 3"]
ours = [subprocess.Popen(command, start_new_session=alone) for alone in (True, False)]
parent = subprocess.Popen(["sh", "-c", "sleep 0.2 & setsid sleep 0.2 & exit 4"], start_new_session=True)
codes, adopted, until = [parent.wait()], Adopted(every_s=0.2), time.monotonic() + 20
most = 0
while (children := psutil.Process().children()) and time.monotonic() < until:
    most = max(most, len(children))
    for each in ours:
        each.poll()
    adopted.tick()
    time.sleep(0.05)
print(most, len(children), *codes, *(each.returncode for each in ours))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to others than process 1")
def test_orphans_are_collected_and_children_of_our_own_are_not():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["4", "0", "4", "3", "3"]
