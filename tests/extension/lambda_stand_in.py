"""A small Lambda for the sidecar's tests: the Extensions, Telemetry and Runtime APIs on one port, by script.

States and codes are those of AWS's "Lambda Extensions API", "Telemetry API reference" and "Using the Lambda runtime API for
custom runtimes". The whole life is also run under AWS's own emulator, in tests/e2e.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from typing import Any

from tests.extension.serving import WAIT_S
from tests.extension.wire_servers import Request, Server, answer, read_request

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:pay"
IDENTIFIER = "3f1c9a52-6d3b-4f06-9f0e-2a8f6a7b1c11"
CUT = b""
"""As an answer: the connection is closed instead."""


def fault(status: int, error_type: str) -> bytes:
    """Return an error as Lambda words it."""
    return answer(status, {"errorMessage": "no", "errorType": error_type})


class LambdaStandIn(Server):
    """Answers as Lambda does; the next answers of a call can be set beforehand, see `register_answers` and the others."""

    def __init__(self) -> None:
        super().__init__(self._converse)
        self.requests: list[Request] = []
        self.register_answers: list[bytes] = []
        self.telemetry_answers: list[bytes] = []
        self.events: queue.Queue[bytes] = queue.Queue()
        self.invocations: queue.Queue[bytes] = queue.Queue()
        self.asked = threading.Semaphore(0)
        self.asked_at: list[float] = []
        self.posted: list[tuple[str, bytes]] = []

    def __enter__(self) -> LambdaStandIn:
        super().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        for _ in range(64):
            self.events.put(CUT)
            self.invocations.put(CUT)
        super().__exit__(*details)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def called(self, path: str) -> list[Request]:
        """Return the requests whose path ends so."""
        return [request for request in self.requests if request.target.endswith(path)]

    def wait_for_next(self) -> None:
        """Wait until the extension asks for an event once more."""
        assert self.asked.acquire(timeout=WAIT_S), "the extension did not ask for an event"

    def send_event(self, event: dict[str, Any]) -> None:
        self.events.put(answer(200, event, "Lambda-Extension-Event-Identifier: 1"))

    def invoke(self, request_id: str = "id-1", event: bytes = b"{}", limit_s: float = 60.0) -> int:
        """Send INVOKE to the extension and the event to the runtime; returns the deadline in ms."""
        deadline_ms = int((time.time() + limit_s) * 1000)
        self.invocations.put(
            answer(
                200,
                event,
                f"Lambda-Runtime-Aws-Request-Id: {request_id}",
                f"Lambda-Runtime-Deadline-Ms: {deadline_ms}",
                f"Lambda-Runtime-Invoked-Function-Arn: {ARN}",
            )
        )
        self.send_event(
            {
                "eventType": "INVOKE",
                "deadlineMs": deadline_ms,
                "requestId": request_id,
                "invokedFunctionArn": ARN,
                "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"},
            }
        )
        return deadline_ms

    def shut_down(self, reason: str = "spindown", limit_s: float = 2.0) -> None:
        self.send_event(
            {"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": int((time.time() + limit_s) * 1000)}
        )

    def _converse(self, sock: socket.socket) -> None:
        while (request := read_request(sock)) is not None:
            self.requests.append(request)
            response = self._respond(request, sock)
            if response == CUT:
                return
            sock.sendall(response)

    def _respond(self, request: Request, sock: socket.socket) -> bytes:
        call = (request.method, request.target)
        if call == ("POST", "/2020-01-01/extension/register"):
            return self.register_answers.pop(0) if self.register_answers else self._registered()
        if call == ("GET", "/2020-01-01/extension/event/next"):
            return self._next_event(request, sock)
        if call == ("PUT", "/2022-07-01/telemetry"):
            return self.telemetry_answers.pop(0) if self.telemetry_answers else answer(200, b'"OK"')
        if call == ("GET", "/2018-06-01/runtime/invocation/next"):
            return take(self.invocations, sock)
        if request.method == "POST" and request.target.startswith("/2018-06-01/runtime/"):
            self.posted.append((request.target.removeprefix("/2018-06-01/runtime/"), request.body))
            return answer(202, {"status": "OK"})
        return fault(404, "NotFound")

    def _registered(self) -> bytes:
        about = {"functionName": "pay", "functionVersion": "$LATEST", "handler": "index.handler"}
        return answer(200, about, f"Lambda-Extension-Identifier: {IDENTIFIER}")

    def _next_event(self, request: Request, sock: socket.socket) -> bytes:
        if request.headers.get("lambda-extension-identifier") != IDENTIFIER:
            return fault(403, "Extension.UnknownExtensionIdentifier")
        self.asked_at.append(time.monotonic())
        self.asked.release()
        return take(self.events, sock)


def take(answers: queue.Queue[bytes], sock: socket.socket) -> bytes:
    """Wait for the next answer; one that has died takes none with it."""
    while True:
        try:
            return answers.get(timeout=0.02)
        except queue.Empty:
            try:
                if not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return CUT
            except BlockingIOError:
                continue
            except OSError:
                return CUT


def body_of(request: Request) -> dict[str, Any]:
    """Read a request's JSON body."""
    fields = json.loads(request.body)
    assert isinstance(fields, dict)
    return fields
