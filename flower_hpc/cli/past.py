"""A run of the past that is to go on."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, FederationError
from ..federation import Federation
from ..federation.runs import REQUEST, Scalar, find_run, is_running, state_of, stop
from ..federation.state import home, read_json
from .common import ERR


@dataclass(frozen=True)
class Past:
    """What a run's folder says of it."""

    name: str
    folder: Path
    app: Path
    overrides: dict[str, Scalar]
    federation: str
    nodes: int
    run_id: int

    @classmethod
    def find(cls, name: str) -> "Past":
        """A run that has ended, in whichever federation's state.

        Raises
        ------
        ConfigError
            No such run, or one that goes on still.
        """
        folder = find_run(name, home())
        if is_running(folder):
            raise ConfigError(f"--resume: run {name!r} is still running")
        kinds = {"overrides": dict, "app": str, "federation": str, "nodes": int, "run_id": int}
        try:
            saved = read_json(folder / REQUEST)
        except FederationError as error:
            raise ConfigError(f"--resume: {error}") from error
        for key, kind in kinds.items():
            if not isinstance(saved, dict) or not isinstance(saved.get(key), kind):
                raise ConfigError(f"--resume: {folder / REQUEST} is damaged: no {key!r}")
        overrides: dict[str, Scalar] = saved["overrides"]
        return cls(
            name,
            folder,
            Path(saved["app"]),
            dict(overrides),
            saved["federation"],
            saved["nodes"],
            saved["run_id"],
        )

    def target(self, federation: str | None, nodes: int | None) -> Federation:
        """Where it goes on: as asked, else where it was; one that was made for it is made anew."""
        if nodes is not None:
            return Federation.ephemeral(nodes=nodes)
        if federation is not None:
            return Federation.find(federation)
        try:
            return Federation.load(self.federation)
        except ConfigError:
            return Federation.ephemeral(nodes=self.nodes)

    def end(self, federation: Federation) -> None:
        """Have Flower forget the old attempt, which it may not know to be dead yet."""
        if federation.name != self.federation:
            return
        with contextlib.suppress(
            FederationError
        ):  # a SuperLink that has lost its database knows of no such run
            status, _ = state_of(federation.state_dir, federation.connection, self.run_id)
            if not status.startswith("finished"):
                ERR.print(f"run {self.name}: its last attempt is dead, Flower is told so", highlight=False)
                stop(federation.state_dir, federation.connection, self.run_id)
