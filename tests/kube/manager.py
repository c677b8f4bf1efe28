"""The loop that lets every controller, the scheduler and the kubelets look at the objects again and again."""

import threading
import traceback
from typing import Protocol

from kube.store import Store

PAUSE_S = 0.1


class Part(Protocol):
    """What is called in every turn."""

    def sync(self) -> None:
        """Bring the world closer to what the objects say."""


class Manager:
    """One thread for all of them: processes end with the thread that started them."""

    def __init__(self, store: Store, parts: list[Part]):
        self.store, self.parts, self.errors = store, parts, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="controllers")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the turn."""
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._stop.is_set():
            seen = self.store.revision
            for part in self.parts:
                try:
                    part.sync()
                except Exception:
                    self.errors.append(traceback.format_exc())
            with self.store.changed:
                if self.store.revision == seen:
                    self.store.changed.wait(PAUSE_S)
