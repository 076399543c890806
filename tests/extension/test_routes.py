"""Which call of the Runtime API a request is, for any date of the API and with or without a query."""

from __future__ import annotations

import pytest

from extension import http1
from extension.routes import ERROR, INIT_ERROR, NEXT, OTHER, PING, RESPONSE, route

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
DATE = "/2018-06-01"


@pytest.mark.parametrize(
    ("method", "target", "kind", "request_id"),
    [
        ("GET", f"{DATE}/runtime/invocation/next", NEXT, None),
        ("GET", f"{DATE}/runtime/invocation/next?a=b", NEXT, None),
        ("GET", "/2099-01-01/runtime/invocation/next", NEXT, None),
        ("POST", f"{DATE}/runtime/invocation/{ID}/response", RESPONSE, ID),
        ("POST", f"{DATE}/runtime/invocation/{ID}/response?x", RESPONSE, ID),
        ("POST", f"{DATE}/runtime/invocation/{ID}/error", ERROR, ID),
        ("POST", f"{DATE}/runtime/init/error", INIT_ERROR, None),
        ("GET", "/.backstop/ping", PING, None),
        ("GET", "http://127.0.0.1:9009/2018-06-01/runtime/invocation/next", NEXT, None),
        ("POST", f"{DATE}/runtime/invocation/next", OTHER, None),
        ("PUT", f"{DATE}/runtime/invocation/{ID}/response", OTHER, None),
        ("GET", f"{DATE}/runtime/invocation/{ID}/response", OTHER, None),
        ("HEAD", f"{DATE}/runtime/invocation/next", OTHER, None),
        ("POST", f"{DATE}/runtime/invocation//response", OTHER, None),
        ("POST", f"{DATE}/runtime/invocation/{ID}/response/more", OTHER, None),
        ("POST", f"{DATE}/runtime/invocation/{ID}", OTHER, None),
        ("GET", f"{DATE}/runtime/restore/next", OTHER, None),
        ("POST", f"{DATE}/runtime/restore/error", OTHER, None),
        ("GET", "/2021-04-23/credentials", OTHER, None),
        ("GET", "/2020-01-01/extension/event/next", OTHER, None),
        ("GET", "/runtime/invocation/next", NEXT, None),
        ("GET", "/", OTHER, None),
        ("OPTIONS", "*", OTHER, None),
    ],
)
def test_what_a_request_asks_for(method: str, target: str, kind: str, request_id: str | None) -> None:
    head = http1.parse_request_head(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    found = route(head)
    assert (found.kind, found.request_id) == (kind, request_id)
