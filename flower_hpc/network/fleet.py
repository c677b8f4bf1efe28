"""What of Flower a node needs: the methods and headers of the Fleet API that the gateway passes.

Flower's SuperLink serves Fleet, Control and Runtime on one port; Control starts runs, which is to run code.
"""

from collections.abc import Iterable

METHODS = frozenset(
    f"/v1/fleet/{name}".encode()
    for name in (
        "register-node",
        "activate-node",
        "deactivate-node",
        "unregister-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
"""Paths, as bytes of the request line; all are POST."""

# between two neighbours only (RFC 9110, 7.6.1), and what a SuperLink would believe about its caller
HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade http2-settings expect host forwarded".split()
)
Headers = list[tuple[bytes, bytes]]


def refusal(method: str, raw_path: bytes, query: bytes) -> str | None:
    """None where a request may pass, else what is wrong with it; nothing is decoded or joined before."""
    if raw_path not in METHODS:
        return "path"
    if query:
        return "query"
    return None if method == "POST" else "method"


def passed(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that go on to the other side, names in lower case."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower() for name, value in lower if name == b"connection" for word in value.split(b",")
    }
    # whoever names a header in Connection has it dropped: not the length, which frames the body
    dropped = HOP | named - {b"content-length"}
    return [
        (name, value) for name, value in lower if name not in dropped and not name.startswith(b"x-forwarded-")
    ]


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """What a request says of its body in bytes; 0 where it says nothing, as chunked ones do."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)
