"""What the author of an app wrote that cannot be loaded: file, line and error, rather than a traceback."""

import re
import traceback
import warnings
from pathlib import Path

from ..errors import ConfigError
from ..federation.runs import App

FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
LOADING = re.compile(r", in load_app$", re.MULTILINE)
ERROR = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<words>.*))?$")


def check_sources(app: App) -> None:
    """Compile the modules of the app's two halves, and run neither: ConfigError where Python cannot."""
    for component in app.components.values():
        path = app.path.joinpath(*component.partition(":")[0].split("."))
        found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
        for file in found[:1]:
            try:
                with warnings.catch_warnings(action="ignore"):
                    compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
            except SyntaxError as error:
                place = f"{file.relative_to(app.path)}:{error.lineno or 1}"
                raise ConfigError(f"{place}: {type(error).__name__}: {error.msg}") from error
            except ValueError as error:  # null bytes, in Python 3.11
                raise ConfigError(f"{file.relative_to(app.path)}:1: SyntaxError: {error}") from error


def unloadable(error: BaseException | str, app: App) -> str:
    """Where and why an app could not be imported, from an exception or a log with its traceback.

    Empty where it was imported, and failed later or elsewhere.
    """
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    # the frames of a chain's last error; those before it were handled, or became it
    last = text[text.rfind("Traceback (most recent call last)") :]
    if not LOADING.search(last):
        return ""
    frames = list(FRAME.finditer(last))
    lines = last[frames[-1].end() :].splitlines() if frames else []
    told = next((m for line in lines if (m := ERROR.match(line))), None)
    if told is None:
        return ""
    words = f"{told['kind']}: {told['words']}" if told["words"] else told["kind"]
    mine = [(name, frame["line"]) for frame in frames if (name := _inside(frame["file"], app))]
    return f"{mine[-1][0]}:{mine[-1][1]}: {words}" if mine else words


def _inside(file: str, app: App) -> str:
    """The file's name in the app's folder, or in the copy of it that a SuperLink runs; empty for others."""
    path = Path(file)
    if path.is_relative_to(app.path) and "site-packages" not in path.parts:
        return str(path.relative_to(app.path))
    # apps/PUBLISHER.NAME.VERSION.HASH/...
    copies = (i for i, part in enumerate(path.parts) if i and path.parts[i - 1] == "apps")
    return next((str(Path(*path.parts[i + 1 :])) for i in copies if f".{app.name}." in path.parts[i]), "")
