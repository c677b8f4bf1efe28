"""The background process of a federation: ``python -m flower_hpc.federation.daemon STATE_DIR [OPTION]``.

It holds ``controller.lock`` for its whole life: a federation is up while that lock is held. With ``--once``
it stays in the foreground, sees to what is missing, and ends; what it started goes on without it. With
``--foreground`` it stays until a signal: then it ends what runs here, and nodes beyond this machine go on. It
stays after `down` too, since whatever keeps it would only start it again.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from ..clock import WALL
from ..errors import FlowerHpcError
from ..parent import adopt_orphans
from .controller import TICK_S, Controller
from .reaper import reap
from .state import CONTROLLER_LOCK, StateDir

log = logging.getLogger(__name__)

ALREADY = 75
FOREGROUND = "--foreground"


def main() -> int:
    """Take the lock, go to the background, and keep the federation."""
    state, once, foreground = (
        StateDir(Path(sys.argv[1])),
        "--once" in sys.argv[2:],
        FOREGROUND in sys.argv[2:],
    )
    lock = state.hold(CONTROLLER_LOCK)
    if lock is None:
        return ALREADY
    # the child keeps the lock; who started us returns knowing that it is held
    if not (once or foreground) and os.fork():
        os._exit(0)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if foreground:  # else standard error is that file
        handlers.append(logging.FileHandler(state.log("controller")))
    words = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=words, handlers=handlers)
    if not once:
        adopt_orphans()
    try:
        controller = Controller(state)

        def stop(number: int, frame: FrameType | None) -> None:
            controller.leaving = controller.leaving or foreground
            controller.stopping = controller.stopping or not foreground

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        if once:
            controller.once()
            return 0
        controller.run()
        if foreground and not controller.leaving:
            os.close(lock)
            log.info("down; this process stays until it is asked to end")
            while not controller.leaving:
                WALL.sleep(TICK_S)
    except FlowerHpcError as error:
        log.error("%s", error)
        return error.exit_code
    except Exception:
        log.exception("the controller ends")
        return 1
    finally:
        if not once:
            reap()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
