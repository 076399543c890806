"""One invocation, and what its caller gets: complete when the runtime has given it, not when the environment is idle."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sandbox.events import Trace
from sandbox.states import RuntimeState


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller asks for. `client_context` and `cognito_identity` are JSON texts. `streaming` as InvokeWithResponseStream."""

    event: bytes
    streaming: bool = False
    tenant_id: str | None = None
    client_context: str | None = None
    cognito_identity: str | None = None
    request_id: str | None = None
    trace: str | None = None


class Result:
    """The answer as it comes. Times are time.monotonic()."""

    def __init__(self) -> None:
        self.payload = bytearray()
        self.error_type: str | None = None
        self.content_type = "application/json"
        self.response_mode = "buffered"
        self.trailers: dict[str, str] = {}
        # When each piece of the answer came, and how many bytes it had.
        self.pieces: list[tuple[float, int]] = []
        self.answered = asyncio.Event()
        self.answered_at: float | None = None
        self._arrived = asyncio.Event()

    @property
    def failed(self) -> bool:
        return self.error_type is not None

    def begin(self, content_type: str, response_mode: str) -> None:
        self.content_type = content_type or "application/json"
        self.response_mode = response_mode

    def part(self, data: bytes) -> None:
        if not self.answered.is_set():
            self.payload += data
            self.pieces.append((time.monotonic(), len(data)))
            self._arrived.set()

    def end(self, trailers: dict[str, str] | None = None) -> None:
        """The answer is complete. Later ends and failures change nothing."""
        if not self.answered.is_set():
            self.trailers = trailers or {}
            self.answered_at = time.monotonic()
            self.answered.set()
            self._arrived.set()

    def fail(self, error_type: str, message: str) -> None:
        """The platform's own words replace an answer that has not been given, or end one that has begun in its trailers."""
        self.give_error(error_type, json.dumps({"errorType": error_type, "errorMessage": message}).encode())

    def give_error(self, error_type: str, payload: bytes) -> None:
        """`payload` is the error's body, from the platform or from the runtime."""
        if self.answered.is_set():
            return
        self.error_type = error_type
        if self.pieces and self.response_mode == "streaming":
            self.end({"lambda-runtime-function-error-type": error_type})
            return
        self.payload = bytearray()
        self.content_type = "application/json"
        self.part(payload)
        self.end()

    async def stream(self) -> AsyncIterator[bytes]:
        """The payload's pieces as they come."""
        sent = 0
        while True:
            self._arrived.clear()
            if len(self.payload) > sent:
                part = bytes(self.payload[sent:])
                sent += len(part)
                yield part
            elif self.answered.is_set():
                return
            else:
                await self._arrived.wait()


@dataclass(slots=True, eq=False)
class Invocation:
    """An invocation on its way through the environment. Times ending in `_at` are time.time(), others time.monotonic()."""

    call: Call
    result: Result = field(default_factory=Result)
    request_id: str = ""
    # A nonce of this attempt: a retry keeps the request id.
    invocation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    trace: Trace = field(default_factory=lambda: Trace(_new_trace()))
    deadline: float = 0.0
    deadline_ms: int = 0
    state: RuntimeState = RuntimeState.READY
    # The invocation is over for the platform: what the runtime still sends is refused.
    closed: bool = False
    announced: bool = False
    responded: bool = False
    started: float = 0.0
    started_at: float = 0.0
    first_byte: float | None = None
    last_byte: float | None = None
    runtime_ready: float | None = None
    produced_bytes: int = 0

    def __post_init__(self) -> None:
        self.request_id = self.call.request_id or str(uuid.uuid4())
        if self.call.trace is not None:
            self.trace = Trace(self.call.trace)

    def begin(self, timeout_s: float) -> None:
        """The function's timeout runs from now."""
        self.started, self.started_at = time.monotonic(), time.time()
        self.deadline = self.started + timeout_s
        self.deadline_ms = int((self.started_at + timeout_s) * 1000)

    def at(self, moment: float) -> float:
        """A monotonic moment as seconds since 1970."""
        return self.started_at + (moment - self.started)


def _new_trace() -> str:
    return f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled=0"
