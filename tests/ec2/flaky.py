"""Stands between boto3 and moto: hands requests on, and loses answers or says no when told to."""

import contextlib
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

import httpx

from .serving import serving

ERROR = "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors></Response>"


class Flaky:
    """What happens to the next requests of an action.

    ``lost[action]`` times the answer is lost after the server did as asked; ``errors[action]`` is a list of
    (status, code, message) to be answered instead.
    """

    def __init__(self, server):
        self.server, self.url = server, ""
        self.lost, self.errors, self.asked = {}, {}, []


@contextlib.contextmanager
def flaky(server):
    """Yields a :class:`Flaky` whose ``url`` stands for ``server``."""
    state = Flaky(server)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            action = target or parse_qs(body.decode()).get("Action", [""])[0]
            state.asked.append((action, body.decode()))
            if state.errors.get(action):
                status, code, message = state.errors[action].pop(0)
                return self.answer(status, ERROR.format(code, message).encode(), "text/xml")
            said = httpx.post(server + self.path, content=body, headers=dict(self.headers), timeout=30)
            if state.lost.get(action, 0) > 0:
                state.lost[action] -= 1
                self.close_connection = True
                return None
            return self.answer(said.status_code, said.content, said.headers.get("Content-Type", "text/xml"))

        def answer(self, status, body, kind):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    with serving(Handler) as state.url:
        yield state
