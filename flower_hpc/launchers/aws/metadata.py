"""What an instance is told of itself: its tags, and that it will be taken away (IMDSv2)."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime

from ...errors import LaunchError

ADDRESS, ADDRESS_ENV = "http://169.254.169.254", "FLOWER_HPC_METADATA"
TOKEN_S, ANSWER_S = 21600, 2.0
NOTICE, REBALANCE = "meta-data/spot/instance-action", "meta-data/events/recommendations/rebalance"


@dataclass(frozen=True)
class Notice:
    """That the instance will be stopped or terminated; ``time`` is in seconds since the epoch."""

    action: str
    time: float


class Metadata:
    """The instance metadata service, version 2; ``$FLOWER_HPC_METADATA`` says where, for tests."""

    def __init__(self) -> None:
        self._base = os.environ.get(ADDRESS_ENV, ADDRESS).rstrip("/")
        self._token = ""
        # it is on this host's own link: never behind a proxy
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> str | None:
        """What ``/latest/PATH`` says; None where it says nothing; LaunchError where it does not answer."""
        for fresh in (False, True):
            if fresh or not self._token:
                self._token = self._ask("PUT", "api/token", fresh=True) or ""
            try:
                return self._ask("GET", path)
            except PermissionError:  # the token is too old
                continue
        raise LaunchError(f"{self._base}: it does not take its own token")

    def tag(self, key: str) -> str | None:
        """A tag of this instance."""
        return self.get(f"meta-data/tags/instance/{key}")

    def region(self) -> str | None:
        """Where it is."""
        return self.get("meta-data/placement/region")

    def notice(self) -> Notice | None:
        """The spot notice, some two minutes ahead; None while there is none."""
        text = self.get(NOTICE)
        if text is None:
            return None
        try:
            said = json.loads(text)
            return Notice(str(said["action"]), datetime.fromisoformat(said["time"]).timestamp())
        except (ValueError, KeyError, TypeError) as error:
            raise LaunchError(f"{self._base}: a spot notice that makes no sense: {text[:200]!r}") from error

    def rebalance(self) -> str | None:
        """That the instance is at risk, long before a notice; mostly None."""
        return self.get(REBALANCE)

    def _ask(self, method: str, path: str, *, fresh: bool = False) -> str | None:
        ask = urllib.request.Request(f"{self._base}/latest/{path}", method=method)
        if fresh:
            ask.add_header("X-aws-ec2-metadata-token-ttl-seconds", str(TOKEN_S))
        else:
            ask.add_header("X-aws-ec2-metadata-token", self._token)
        try:
            with self._opener.open(ask, timeout=ANSWER_S) as answer:
                return str(answer.read(65536).decode())
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            if error.code == 401:
                raise PermissionError(str(error)) from error
            raise LaunchError(f"{self._base}/latest/{path}: {error}") from error
        except (OSError, ValueError) as error:
            raise LaunchError(f"{self._base}: {error}") from error
