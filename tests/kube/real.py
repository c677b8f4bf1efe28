"""A real cluster in the place of the stand-in; tests that need what only the stand-in can do are skipped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class RealCluster:
    """Whatever a kubeconfig leads to."""

    real = True

    def __init__(self, kubeconfig: Path):
        self.kubeconfig = kubeconfig

    def wait(self, predicate: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait until ``predicate()`` holds; a real cluster takes its time."""
        end = time.monotonic() + 6 * seconds
        while not (found := predicate()):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {6 * seconds} s")
            time.sleep(0.5)
        return found

    def __getattr__(self, name: str) -> Any:
        """Nothing else."""
        pytest.skip(f"only the stand-in for a cluster has {name}")
