"""moto's Lambda echoes; here a function's name leads to a callable that answers like a function: with bytes, or with
an error."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moto.awslambda.models import LambdaBackend
from moto.core import responses
from moto.utilities.aws_headers import gen_amzn_requestid_long


@dataclass
class FunctionFailed(Exception):
    """What a function raises to fail as a function does: the invocation succeeds, the answer has FunctionError."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation as a function sees it, in bytes."""

    function: str
    qualifier: str | None
    request_id: str
    payload: bytes
    kind: str
    client_context: str | None


Function = Callable[[Invocation], bytes]


@dataclass
class Registry:
    """Functions by name, and every invocation."""

    functions: dict[str, Function] = field(default_factory=dict)
    invocations: list[Invocation] = field(default_factory=list)

    def clear(self) -> None:
        self.functions.clear()
        self.invocations.clear()


registry = Registry()


def json_function(handler: Callable[[Any], Any]) -> Function:
    """A function from a handler of parsed events; what it raises is its error, as in Python's runtime."""

    def run(invocation: Invocation) -> bytes:
        try:
            return json.dumps(handler(json.loads(invocation.payload or b"null"))).encode()
        except FunctionFailed:
            raise
        except Exception as error:
            raise FunctionFailed({"errorType": type(error).__name__, "errorMessage": str(error)}) from error

    return run


def _invoke(
    self: LambdaBackend,
    function_name: str,
    qualifier: str | None,
    body: Any,
    headers: Any,
    response_headers: dict[str, str],
) -> bytes | None:
    name = function_name.split(":function:")[-1]
    name, _, in_arn = name.partition(":")
    function = registry.functions.get(name)
    if function is None:
        return None
    invocation = Invocation(
        name,
        qualifier or in_arn or None,
        str(uuid.uuid4()),
        body.encode() if isinstance(body, str) else bytes(body or b""),
        headers.get("X-Amz-Invocation-Type", "RequestResponse"),
        headers.get("X-Amz-Client-Context"),
    )
    registry.invocations.append(invocation)
    response_headers["x-amzn-requestid"] = invocation.request_id
    response_headers["X-Amz-Executed-Version"] = "$LATEST"
    try:
        answer = function(invocation)
    except FunctionFailed as failure:
        if invocation.kind != "Event":
            response_headers["x-amz-function-error"] = "Unhandled"
        answer = json.dumps(failure.error).encode()
    return b"" if invocation.kind == "Event" else answer


def _request_id(headers: dict[str, Any] | None = None) -> str:
    """Lambda's answers keep the request id that the function saw; moto would give each answer one of its own."""
    kept = (headers or {}).get("x-amzn-requestid")
    return str(kept) if kept else gen_amzn_requestid_long(headers)


def install() -> None:
    vars(responses)["gen_amzn_requestid_long"] = _request_id
    LambdaBackend.invoke = _invoke  # type: ignore[method-assign]
