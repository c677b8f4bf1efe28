"""An instance metadata service (IMDSv2) of the tests: a token by PUT, then what ``paths`` holds; else 404.

``state.paths[NOTICE], end = notice(40)`` is a spot notice for in 40 seconds. Tokens end when a test says
``state.tokens.clear()``; without a token every answer is 401, as with ``HttpTokens: required``.
"""

import contextlib
import datetime
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler

from .serving import serving

NOTICE = "meta-data/spot/instance-action"


class Imds:
    """What the service says, and what it was asked."""

    def __init__(self, tags):
        self.paths = {f"meta-data/tags/instance/{key}": value for key, value in tags.items()}
        self.paths["meta-data/placement/region"] = "eu-central-1"
        self.tokens, self.asked, self.url = set(), [], ""


def notice(seconds, action="terminate"):
    """The text of a spot notice for so many seconds from now, and that time."""
    at = datetime.datetime.fromtimestamp(int(time.time() + seconds), datetime.UTC)
    return json.dumps({"action": action, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}), at.timestamp()


@contextlib.contextmanager
def imds(tags):
    """Yields an :class:`Imds` that answers at its ``url``."""
    state = Imds(tags)

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            wanted = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            if self.path != "/latest/api/token" or not wanted:
                return self.answer(400, "")
            state.tokens.add(token := secrets.token_hex(8))
            return self.answer(200, token)

        def do_GET(self):
            path = self.path.removeprefix("/latest/")
            state.asked.append(path)
            if self.headers.get("X-aws-ec2-metadata-token") not in state.tokens:
                return self.answer(401, "")
            return self.answer(200 if path in state.paths else 404, state.paths.get(path, ""))

        def answer(self, status, text):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words):
            pass

    with serving(Handler) as state.url:
        yield state
