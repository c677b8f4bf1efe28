"""A thread that looks at a platform again and again, so that nothing slow there holds the controller up."""

import logging
import threading
from collections.abc import Callable

from ..clock import WALL
from ..errors import LaunchError

log = logging.getLogger(__name__)

POLL_S, QUICK_POLL_S, QUICK_FOR_S = 10.0, 2.0, 60.0
TOGETHER_S, TOLD_S = 0.05, 60.0


class Poller:
    """Calls a function every few seconds, and at once where somebody asks for it.

    Parameters
    ----------
    name : str
        Of the thread, and of what is logged.
    step : callable
        Looks, and does what was asked for. Its LaunchError is kept in ``trouble``, and logged once a minute.
    poll_s : float
        Seconds between two looks; default 10. After a change they are 2 s apart for a minute.
    """

    def __init__(self, name: str, step: Callable[[], None], poll_s: float = POLL_S) -> None:
        self.poll_s = poll_s
        self.trouble = ""
        """Why the last look failed; empty where all is well."""
        self.closed = False
        self._name, self._step = name, step
        self._wake = threading.Event()
        self._quick_until = self._told = -1e9
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Look once; called by the thread."""
        try:
            self._step()
            self.trouble = ""
        except LaunchError as error:
            self.trouble = str(error)
            if WALL.now() - self._told > TOLD_S:
                self._told = WALL.now()
                log.warning("%s: %s", self._name, error)

    def changed(self) -> None:
        """Something is under way: look more often for a while."""
        self._quick_until = WALL.now() + QUICK_FOR_S

    def hurry(self) -> None:
        """Look soon; the first who asks starts the thread."""
        self.changed()
        self._wake.set()
        if self._thread is None and not self.closed:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread after a last look, which does what was asked for until now."""
        self.closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def _work(self) -> None:
        while not self.closed:
            quick = WALL.now() < self._quick_until
            self._wake.wait(min(QUICK_POLL_S, self.poll_s) if quick else self.poll_s)
            if self._wake.is_set():
                self._wake.clear()
                WALL.sleep(TOGETHER_S)  # what comes together goes together
            self.look()
