"""What is to be done before a process ends, whatever its other handlers of signals do."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGINT)
LONGEST_S = 10.0


@contextmanager
def before_the_end(act: Callable[[], object]) -> Iterator[None]:
    """Have ``act`` called first when SIGTERM or SIGINT comes meanwhile; then what is due anyway.

    Flower's own handlers talk to a SuperNode that may be gone, and end the process after 5 s without
    returning. Outside of the main thread this does nothing: signals go elsewhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in NUMBERS}
    others = {number: handler for number, handler in found.items() if handler is not None}

    def restore() -> None:
        for number, handler in others.items():
            signal.signal(number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        restore()
        # in a thread: the main one may hold a lock that it needs
        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        thread.join(LONGEST_S)
        signal.raise_signal(number)

    for number in others:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
