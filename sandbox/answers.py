"""Answers of Lambda's local APIs: status, headers and JSON body, named as AWS's own source names them. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `close` ends the connection after it."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


def json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """`value` as JSON, ended by a newline as Go's encoder does."""
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Answer(status, body, {"Content-Type": JSON_TYPE, **(headers or {})})


def error(status: int, error_type: str, message: str) -> Answer:
    """An error of the API, in its own shape."""
    return json_answer(status, {"errorMessage": message, "errorType": error_type})


def forbidden(error_type: str, message: str) -> Answer:
    return error(403, error_type, message)


def accepted() -> Answer:
    """202 with a body that is not empty: .NET's runtime needs one."""
    return json_answer(202, {"status": "OK"})


def bad_transition(start: str, end: str, who: str) -> Answer:
    """A runtime's call that its state does not allow."""
    return forbidden(
        "InvalidStateTransition", f"State transition from {start} to {end} failed for {who}. Error: {NOT_ALLOWED}"
    )


def bad_extension_state(start: str, end: str, identifier: str) -> Answer:
    """An extension's call that its state does not allow."""
    return forbidden(
        "Extension.InvalidExtensionState",
        f"State transition from {start} to {end} failed for extension {identifier}. Error: {NOT_ALLOWED}",
    )


NOT_ALLOWED = "State transition is not allowed"
NOT_FOUND = Answer(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
METHOD_NOT_ALLOWED = Answer(405)
INVALID_REQUEST_ID = error(400, "InvalidRequestID", "Invalid request ID")
INVALID_RESPONSE_MODE = error(400, "InvalidFunctionResponseMode", "Invalid function response mode")
TRUNCATED = error(400, "TruncatedHTTPRequest", "HTTP request detected as truncated")
# For an answer that comes after the invocation's timeout, and one whose Lambda-Runtime-Invocation-Id is not this invocation's.
INVOKE_TIMEOUT = error(410, "InvokeTimeout", "Invoke timeout")
SERVER_ERROR = error(500, "InternalServerError", "Internal Server Error")


def too_large(limit: int) -> Answer:
    return error(413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({limit} bytes).")
