"""Start a job's command on the node: ``python -m flower_hpc.launchers.filled DOOR PROGRAM [ARGUMENT ...]``.

For launchers whose scheduler runs shell scripts: what is known only where the job starts is filled in here.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from ..errors import LaunchError
from .base import JobSpec
from .filling import fill, with_programs


def command(spec: JobSpec) -> tuple[str, ...]:
    """What a script runs for ``spec``; ``-P``, as else files in its folder would be taken for modules."""
    return (sys.executable, "-P", "-m", __name__, str(spec.door or ""), *spec.command)


def main(arguments: list[str]) -> NoReturn:
    """Become the program; where it cannot be, say why in one line and end as a shell does."""
    door, *words = arguments
    here = Path.cwd()
    spec = JobSpec(
        name=Path(words[0]).name, command=tuple(words), cwd=here, log=here, door=Path(door) if door else None
    )
    try:
        program = fill(spec, set())
        os.execvpe(program[0], program, with_programs(os.environ))
    except (OSError, LaunchError) as error:
        print(f"{words[0]} cannot be started: {error}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
