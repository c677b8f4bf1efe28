"""On an instance: fetches the node's bundle, keeps its SuperNode, and sees the instance's end coming.

``python -m flower_hpc.launchers.aws.node --owner OWNER [--keys s3://...]``; the instance's tags say which
node it is. Exit code 77: nobody needs it any more, and the instance shuts itself down.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...clock import WALL
from ...errors import ConfigError, LaunchError
from ..bundle import DOOR, ROOT
from ..bundled import fly
from ..filling import read_door
from ..pilot import Leaving
from .cloud import Ec2Cloud
from .metadata import Metadata, Notice
from .options import Account
from .request import NODE, TICKET
from .store import DOOR_NAME, Store, from_text
from .userdata import GIVE_UP

NOTICE_S, DOOR_S, RETRY_S = 5.0, 30.0, 5.0
MARGIN_S = 10.0
"""A node that leaves is gone so long before its instance is."""
STAYS_S = 120.0
"""A notice that nothing came of is void so long after its time."""
ANSWER_S = 5.0


@dataclass
class Watch:
    """What a node hears beside its SuperNode; each ``look_`` is one look, called by a thread of its own.

    Parameters
    ----------
    root : Path
        The bundle's folder.
    store : Store
        Where keys and the door are.
    metadata : Metadata
        Of the instance.
    leaving : Leaving
        Told when to leave.
    patience_s : float
        Without the SuperLink for so long, the node gives up.
    grace_s : float
        That it then takes to leave.
    """

    root: Path
    store: Store
    metadata: Metadata
    leaving: Leaving
    patience_s: float
    grace_s: float
    notice: Notice | None = None
    gave_up: bool = False
    _reached: float = field(default_factory=WALL.now)
    _said: dict[str, str] = field(default_factory=dict)

    def fetch(self, ticket: str) -> bool:
        """Have the bundle in its folder; False where it was not to be had for too long."""
        while WALL.now() - self._reached < self.patience_s:
            try:
                text, door = self.store.get(ticket), self.store.get(DOOR_NAME)
                if text is not None and door is not None:
                    files = from_text(text) | {DOOR: door.encode()}
                    for name, data in files.items():
                        write(self.root / name, data)
                    return True
                self.say("bundle", "the node's bundle is not there")
            except (LaunchError, OSError) as error:
                self.say("bundle", str(error))
            WALL.sleep(RETRY_S)
        self.gave_up = True
        return False

    def look_for_notice(self) -> None:
        """Leave in time where EC2 will take the instance."""
        self.say("rebalance", self.metadata.rebalance() or "")
        self.notice = notice = self.metadata.notice()
        if notice is not None:
            at = time.strftime("%H:%M:%S UTC", time.gmtime(notice.time))
            self.say("notice", f"the instance is taken ({notice.action}) at {at}")
            self.leaving.ask(notice.time - MARGIN_S - WALL.wall(), f"spot notice: {notice.action}")

    def look_at_door(self) -> None:
        """Follow the SuperLink, and give up where it was out of reach for too long."""
        try:
            self.refresh()
        finally:
            if reaches(read_door(self.root / DOOR)):
                self._reached = WALL.now()
            elif WALL.now() - self._reached > self.patience_s:
                self.gave_up = True
                self.leaving.ask(self.grace_s, "the SuperLink is out of reach")

    def refresh(self) -> None:
        """Have the door's file say what the site's says."""
        door = self.store.get(DOOR_NAME)
        if door is not None and door != read_door(self.root / DOOR):
            write(self.root / DOOR, door.encode())

    def say(self, about: str, words: str) -> None:
        """Print what has changed."""
        if self._said.get(about, "") != words:
            self._said[about] = words
            print(f"{about}: {words or 'no more'}", flush=True)

    def start(self, look: Callable[[], None], every_s: float) -> None:
        """Call ``look`` again and again, whatever comes."""

        def work() -> None:
            while True:
                try:
                    look()
                    self.say(look.__name__, "")
                except (LaunchError, OSError) as error:
                    self.say(look.__name__, str(error))
                WALL.sleep(every_s)

        threading.Thread(target=work, daemon=True).start()


def main() -> int:
    """Run until asked to leave; exit code 1 where the SuperNode ended by itself, 77 to shut down."""
    asked = arguments()
    metadata = Metadata()
    try:
        node = asked.name or metadata.tag(NODE)
        ticket = asked.ticket or metadata.tag(TICKET)
        region = asked.region or metadata.region()
        if not node or not ticket:
            raise LaunchError(f"the instance's metadata does not show its tags {NODE} and {TICKET}")
        account = Account(region=region, endpoint_url=asked.endpoint_url, keys=asked.keys)
        store = Ec2Cloud(account).store(asked.owner)
    except (LaunchError, ConfigError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    leaving = Leaving()
    watch = Watch(asked.root, store, metadata, leaving, asked.patience_min * 60, asked.grace_s)
    watch.start(watch.look_for_notice, asked.notice_s)
    if not watch.fetch(ticket):
        return GIVE_UP
    watch.start(watch.look_at_door, DOOR_S)
    code = fly(asked.root, node, asked.grace_s, leaving)
    if watch.gave_up:
        return GIVE_UP
    if watch.notice is not None:
        wait_for_the_end(watch.notice)
    return code


def wait_for_the_end(notice: Notice) -> None:
    """Until the instance goes: a node that signed on again would be given work."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    WALL.sleep(max(0.0, notice.time + STAYS_S - WALL.wall()))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="flower_hpc.launchers.aws.node")
    parser.add_argument("--owner", required=True, help="mark of the site, below which its keys are")
    parser.add_argument("--name", help="the node's; default: the instance's tag")
    parser.add_argument("--ticket", help="the node's; default: the instance's tag")
    parser.add_argument("--keys", default="ssm")
    parser.add_argument("--region")
    parser.add_argument("--endpoint-url")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--grace-s", type=float, default=60.0)
    parser.add_argument("--patience-min", type=float, default=60.0)
    parser.add_argument(
        "--notice-s", type=float, default=NOTICE_S, help="between two looks for a spot notice"
    )
    return parser.parse_args()


def write(path: Path, data: bytes) -> None:
    """Replace a file, for this user alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    part.replace(path)


def reaches(door: str) -> bool:
    """Whether somebody listens at ``tcp:HOST:PORT``."""
    host, _, port = door.removeprefix("tcp:").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S):
            return True
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
