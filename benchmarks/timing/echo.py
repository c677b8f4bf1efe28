"""The app that all columns run, what is asked of it, and what it notes."""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from .programs import BENCHMARKS, Failed

NOTES = "server.json"
ASK_S = 90.0  # asking starts a Python, which the rounds feel
# stock FedAvg writes no checkpoints: neither do we where the two are compared
OURS = "hybrid(fraction_evaluate=0.0,checkpoint_every=0)"


@dataclass(frozen=True)
class Order:
    """One run of the app.

    Parameters
    ----------
    floats : int
        Of the model.
    rounds : int
        That count; the first, in which everything starts, is one more.
    torch : bool
        Whether the ClientApp imports torch.
    nodes : int
        How many; default 4.
    """

    floats: int
    rounds: int
    torch: bool = False
    nodes: int = 4

    @property
    def server(self) -> str:
        """The ServerApp."""
        return "echo_app.server_app:app"

    @property
    def client(self) -> str:
        """The ClientApp."""
        return f"echo_app.{'torch_' if self.torch else ''}client_app:app"

    def app(self, folder: Path) -> Path:
        """The app's folder, with that ClientApp."""
        made = folder / "echo"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(BENCHMARKS / "echo", made, ignore=shutil.ignore_patterns("__pycache__"))
        project = made / "pyproject.toml"
        plain = 'clientapp = "echo_app.client_app:app"'
        project.write_text(project.read_text().replace(plain, f'clientapp = "{self.client}"'))
        return made

    def config(self, notes: Path, strategy: str) -> dict[str, Any]:
        """The run config."""
        size = {"floats": self.floats, "num-rounds": self.rounds + 1, "nodes": self.nodes}
        return {"strategy": strategy, "notes": str(notes), **size}


@dataclass(frozen=True)
class Ran:
    """A run that is over.

    Parameters
    ----------
    rounds_s : list of float
        Seconds of each round that counts.
    server_mb : float
        The most memory of the process that ran the ServerApp.
    pid : int
        That process.
    """

    rounds_s: list[float]
    server_mb: float
    pid: int

    @property
    def round_s(self) -> float:
        """The median."""
        return statistics.median(self.rounds_s)

    @classmethod
    def read(cls, notes: Path) -> "Ran":
        """What the ServerApp noted."""
        path = notes / NOTES
        if not path.exists():
            raise Failed(f"the run left no {path}")
        found = json.loads(path.read_text())
        if not found["same"]:
            raise Failed("the model that came back is another one")
        return cls([b - a for a, b in pairwise(found["times"])][1:], found["peak_mb"], found["pid"])


def wait(notes: Path, ended: Callable[[], str | None], timeout_s: float) -> Ran:
    """Wait for the notes; ``ended`` gives the reason why there will be none."""
    until, ask = time.monotonic() + timeout_s, time.monotonic() + ASK_S
    while not (notes / NOTES).exists():
        if time.monotonic() > until:
            raise Failed(f"the run did not end within {timeout_s:g} s")
        if time.monotonic() > ask:
            ask = time.monotonic() + ASK_S
            if (why := ended()) and not (notes / NOTES).exists():
                raise Failed(f"the run ended early: {why}")
        time.sleep(0.2)
    return Ran.read(notes)
