"""A pilot for schedulers that run scripts: its spec travels as a file, ``python -m ... FILE`` flies it.

:class:`Piloted` wraps such a launcher: what it submits is the pilot of what it was given.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import LaunchError
from .base import Found, JobSpec, JobStatus, Launcher
from .bundle import as_data, from_data
from .filling import PYTHON
from .pilot import Pilot, PilotError
from .supernode_log import since_last_start


class Piloted:
    """A launcher whose jobs are SuperNodes kept by pilots.

    Parameters
    ----------
    launcher : Launcher
        Of a batch system.
    folder : Path
        For the specs; shared with the nodes.
    """

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self.launcher, self.folder = launcher, folder

    def render(self, spec: JobSpec) -> str:
        """What the batch system is told; a comment says what the pilot starts."""
        return f"{self.launcher.render(self._flown(spec))}\n# which runs: {' '.join(spec.command)}"

    def submit(self, spec: JobSpec) -> str:
        """Write the spec down and submit its pilot."""
        flown = self._flown(spec)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            Path(flown.command[-1]).write_text(json.dumps(as_data(spec)), encoding="utf-8")
        except OSError as error:
            raise LaunchError(f"{self.folder} cannot be written: {error.strerror or error}") from error
        return self.launcher.submit(flown)

    def _flown(self, spec: JobSpec) -> JobSpec:
        command = (PYTHON, "-m", __name__, str(self.folder / f"{spec.name}.json"))
        return replace(spec, command=command, env={}, door=None)

    def status(self, job_id: str) -> JobStatus:
        """Where the job is."""
        return self.launcher.status(job_id)

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Ask the pilot to leave, or end it."""
        self.launcher.cancel(job_id, force=force)

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """What the SuperNode's last start wrote."""
        return since_last_start(self.launcher.logs(job_id, max_bytes))

    def adopt(self) -> Mapping[str, Found]:
        """What an earlier launcher started."""
        return self.launcher.adopt()

    def close(self) -> None:
        """Let go; jobs go on."""
        self.launcher.close()


def main() -> int:
    """Fly the pilot of a file; exit code 1 where its SuperNode ended by itself."""
    try:
        print(Pilot(from_data(json.loads(Path(sys.argv[1]).read_text("utf-8"))))(), flush=True)
    except PilotError as error:
        print(f"PilotError: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
