"""The end of a file that grows."""

import os
from pathlib import Path


def tail(path: Path, max_bytes: int, start: int = 0) -> str:
    """The last ``max_bytes`` of what lies behind ``start`` (default: of all); empty where there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= end else 0, end - max_bytes))
            return file.read(max_bytes).decode(errors="replace")
    except OSError:
        return ""
