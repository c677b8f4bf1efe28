"""What a SuperNode's log says of it: whether it is online, at work, refused, and why it ended."""

import re
from pathlib import Path

from ..clock import WALL

# printed when the SuperLink's answer to its activation, which sets it online, has come: asking the
# SuperLink instead (`flwr supernode list`) costs 2 s of processor time a question
ONLINE = re.compile(r"SuperNode ID: (\d+)")
BUSY = "Receiving: "
DONE = ("Sent successfully", "Failed to send message", "Failed to receive message", "Ignoring ")
# Flower's words, in lower case, where the SuperLink believes the killed predecessor alive
HELD = ("already connected", "failed to activate")
PORT_TAKEN = ("address already in use", "port in server address")
ERROR = re.compile(r"\bERROR\b|[A-Za-z]Error\b|^error\b")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HEADER = re.compile(r"^=== .* started .*===$", re.MULTILINE)
PILOT = "PilotError: "
# what Slurm calls errors too, and says behind the one that matters
CONSEQUENCES = ("Exited with exit code", "CANCELLED AT", "Terminated")
MOST_BYTES = 65536


class SuperNodeLog:
    """Reads what one start of a SuperNode writes, as it grows.

    Parameters
    ----------
    path : Path
        Its log.
    position : int
        Bytes before this start; default 0.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self.path = path
        self.busy = False
        self.sent_at: float | None = None
        """``WALL.now()`` when its last reply was seen to be sent."""
        self.moved = False
        """Set by who ends it because the SuperLink is elsewhere now."""
        self.exit_code: int | None = None
        """Set by who ends it, or sees it end."""
        self._position = position
        self._tail = self._partial = ""

    def read(self) -> None:
        """Take in what is new; nothing while the shared disk does not answer."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except OSError:
            return
        self._position += len(data)
        text = self._partial + data.decode(errors="replace")
        whole, _, self._partial = text.rpartition("\n")
        for line in whole.splitlines():
            if BUSY in line:
                self.busy = True
            elif any(words in line for words in DONE):
                self.busy = False
                self.sent_at = WALL.now() if DONE[0] in line else self.sent_at
        self._tail = (self._tail + text)[-MOST_BYTES:]

    @property
    def held(self) -> bool:
        """Whether it was refused because the SuperLink believes its predecessor alive."""
        return is_held(self._tail)

    @property
    def port_taken(self) -> bool:
        """Whether another program of this host was quicker to take its port."""
        return any(words in self._tail.lower() for words in PORT_TAKEN)

    def last_line(self) -> str:
        """Why it ended."""
        return last_line(self._tail)


def is_held(text: str) -> bool:
    """Whether a log ends with the SuperLink's refusal of a node that it believes connected."""
    return any(words in text.lower() for words in HELD)


def since_last_start(text: str) -> str:
    """What was written after the last line that tells of a start."""
    starts = [found.end() for found in HEADER.finditer(text)]
    return text[starts[-1] :] if starts else text


def last_line(text: str) -> str:
    """The line of a log that says best why it ends: Flower's own reason, the last error, or just the last."""
    return last_error(text) or (_lines(text) or ["it wrote nothing"])[-1][:300]


def last_error(text: str) -> str:
    """Flower's own reason for an end, else the last error of a log; empty where there is none."""
    lines = _lines(text)
    told = [line.partition(PILOT)[2] for line in lines if PILOT in line]
    if told:
        return told[-1][:300]
    codes = [index for index, line in enumerate(lines) if "Exit Code:" in line]
    if codes:
        words = [line for line in lines[codes[-1] :][:4] if not line.startswith(("INFO", "For more"))]
        return " ".join(words)[:300]
    errors = [line for line in lines if ERROR.search(line)] or [
        line for line in lines if "error: " in line and not any(words in line for words in CONSEQUENCES)
    ]
    return errors[-1][:300] if errors else ""


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in COLOUR.sub("", text).splitlines()]
    return [line for line in lines if line.strip("-= ")]
