"""Which call of the Runtime API a request is (AWS, "Using the Lambda runtime API for custom runtimes"). Pure."""

from __future__ import annotations

from extension.http1 import RequestHead

NEXT, RESPONSE, ERROR, INIT_ERROR, PING, OTHER = "next", "response", "error", "init_error", "ping", "other"

PING_TARGET = b"/.backstop/ping"
_RUNTIME = b"/runtime/"


class Route:
    """What a request asks for, and for which invocation (None where there is none)."""

    __slots__ = ("kind", "request_id")

    def __init__(self, kind: str, request_id: str | None = None) -> None:
        self.kind = kind
        self.request_id = request_id


_OTHER = Route(OTHER)


def route(head: RequestHead) -> Route:
    """Classify a request by method and path; the API's date is not looked at, so that a newer one is still understood."""
    path = head.target.partition(b"?")[0]
    if path == PING_TARGET:
        return Route(PING)
    _, runtime, rest = path.partition(_RUNTIME)
    if not runtime:
        return _OTHER
    words = rest.split(b"/")
    if head.method == b"GET":
        return Route(NEXT) if words == [b"invocation", b"next"] else _OTHER
    if head.method != b"POST":
        return _OTHER
    if words == [b"init", b"error"]:
        return Route(INIT_ERROR)
    if len(words) == 3 and words[0] == b"invocation" and words[1]:
        if words[2] == b"response":
            return Route(RESPONSE, words[1].decode("latin-1"))
        if words[2] == b"error":
            return Route(ERROR, words[1].decode("latin-1"))
    return _OTHER
