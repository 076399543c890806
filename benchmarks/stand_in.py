"""A measuring stand-in for Lambda: the Extensions, Telemetry and Runtime APIs over raw sockets, in the measurer's own
thread.

AWS's emulator holds answers for milliseconds and would drown what is measured here. Blocking sockets and no threads:
the time between two steps is then the peer's, not a scheduler's. It knows only what a benchmark needs; tests do not
use it.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import time
from dataclasses import dataclass

PATIENCE_S = 20.0
FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:bench"
REGISTER = "POST /2020-01-01/extension/register"
SUBSCRIBE = "PUT /2022-07-01/telemetry"
EXTENSION_NEXT = "GET /2020-01-01/extension/event/next"
RUNTIME_NEXT = "GET /2018-06-01/runtime/invocation/next"
ACCEPTED = (
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + b'{"status":"OK"}\n'
)


@dataclass(slots=True)
class Request:
    """A request as it came in: `line` is method and path, `arrived` the monotonic time in s when its last byte was
    read.
    """

    line: str
    head: bytes
    body: bytes
    sock: socket.socket
    arrived: float


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def read_message(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read one HTTP message with a Content-Length; returns (head, body). Raises ConnectionError where it ends early."""
    buffer = b""
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        received = sock.recv(262_144)
        if not received:
            raise ConnectionError(f"the peer closed after {buffer[:80]!r}")
        buffer += received
    head, rest = buffer[: end + 4], buffer[end + 4 :]
    length = content_length(head)
    if len(rest) == length:
        return head, rest
    body = bytearray(length)
    body[: len(rest)] = rest
    view, filled = memoryview(body), len(rest)
    while filled < length:
        count = sock.recv_into(view[filled:])
        if not count:
            raise ConnectionError(f"the peer closed after {filled} of {length} bytes")
        filled += count
    return head, bytes(body)


def connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address, timeout=PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Listener:
    """A listening socket that hands out whole requests; those that come before their turn wait."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sock.settimeout(PATIENCE_S)
        self._early: list[Request] = []
        self.address: tuple[str, int] = self._sock.getsockname()

    def expect(self, *starts: str) -> Request:
        """Wait for a request whose method and path begin with one of `starts`. Raises TimeoutError."""
        for index, request in enumerate(self._early):
            if request.line.startswith(starts):
                return self._early.pop(index)
        while True:
            request = self._accept()
            if request.line.startswith(starts):
                return request
            self._early.append(request)

    def _accept(self) -> Request:
        while True:
            sock, _ = self._sock.accept()
            sock.settimeout(PATIENCE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                head, body = read_message(sock)
            except ConnectionError:  # a probe that connects and goes
                sock.close()
                continue
            return Request(head.split(b" HTTP/", 1)[0].decode(), head, body, sock, time.monotonic())

    def close(self) -> None:
        self._sock.close()
        for request in self._early:
            request.sock.close()


def answer(request: Request, body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> None:
    """Answer a request, and close its connection."""
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n" % (
        status,
        len(body),
        headers,
    )
    request.sock.sendall(head + body)
    request.sock.close()


class Lambda:
    """Plays Lambda for one extension: its start, then invocations."""

    def __init__(self, *, telemetry: bool = True) -> None:
        self._telemetry = telemetry
        self.api = Listener()
        self._extension_next: Request | None = None
        self._count = 0

    @property
    def runtime_api(self) -> str:
        return f"127.0.0.1:{self.api.address[1]}"

    def await_ready(self) -> float:
        """Play the init phase; returns the time (monotonic, s) at which the extension's first `/next` was in."""
        request = self.api.expect(REGISTER)
        body = b'{"functionName":"bench","functionVersion":"$LATEST","handler":"index.handler"}'
        answer(request, body, b"Lambda-Extension-Identifier: 3e2f6d0c-9b58-4a0c-9d57-2f6f0c1f9a11\r\n")
        while True:
            request = self.api.expect(SUBSCRIBE, EXTENSION_NEXT)
            if request.line.startswith(EXTENSION_NEXT):
                self._extension_next = request
                return request.arrived
            if self._telemetry:
                answer(request, b'"OK"')
            else:  # what AWS's emulator says in its classic mode
                answer(request, b'{"errorType":"Telemetry.NotSupported"}', status=b"202 Accepted")

    def await_idle(self) -> None:
        """Wait until the extension has called `/next` again."""
        if self._extension_next is None:
            self._extension_next = self.api.expect(EXTENSION_NEXT)

    def invoke_extension(self, request_id: str, deadline_ms: int) -> None:
        """Answer the extension's `/next` with INVOKE."""
        self.await_idle()
        assert self._extension_next is not None
        event = {
            "eventType": "INVOKE",
            "deadlineMs": deadline_ms,
            "requestId": request_id,
            "invokedFunctionArn": FUNCTION_ARN,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2"},
        }
        answer(self._extension_next, json.dumps(event).encode())
        self._extension_next = None

    def shut_down_extension(self) -> None:
        """Answer the extension's `/next` with SHUTDOWN, so that it ends by itself."""
        self.await_idle()
        assert self._extension_next is not None
        event = {"eventType": "SHUTDOWN", "shutdownReason": "spindown", "deadlineMs": int(time.time() * 1000) + 2000}
        answer(self._extension_next, json.dumps(event).encode())
        self._extension_next = None

    def new_invocation(self) -> tuple[str, int, bytes]:
        """Return (request id, deadline in ms, head of the Runtime API's answer without Content-Length)."""
        self._count += 1
        request_id = f"8476a536-e9f4-11e8-9739-{self._count:012x}"
        deadline_ms = int(time.time() * 1000) + 30_000
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\nLambda-Runtime-Deadline-Ms: {deadline_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {FUNCTION_ARN}\r\n"
            "Lambda-Runtime-Trace-Id: Root=1-5f35ae12-0c0fec141ab77a00bc047aa2\r\n"
        )
        return request_id, deadline_ms, head.encode()

    def close(self) -> None:
        if self._extension_next is not None:
            self._extension_next.sock.close()
        self.api.close()


class Queue:
    """Plays SQS (AWS JSON 1.0): takes SendMessage and SendMessageBatch, and answers with the digests that clients
    check. With `tls` (a server's context for `localhost`) it speaks https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = Listener(tls)
        self._kept: socket.socket | None = None
        self.endpoint = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{self._listener.address[1]}"

    @property
    def url(self) -> str:
        return f"{self.endpoint}/123456789012/failures"

    def accept(self) -> float:
        """Take one call to SendMessage or SendMessageBatch; returns when it was answered (monotonic, s)."""
        request = self._next_call()
        sent = json.loads(request.body)
        if b"amazonsqs.sendmessagebatch" in request.head.lower():
            answers: dict[str, object] = {
                "Successful": [{"Id": entry["Id"], **self._receipt(entry)} for entry in sent["Entries"]],
                "Failed": [],
            }
        else:
            answers = dict(self._receipt(sent))
        body = json.dumps(answers).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
        request.sock.sendall(head + body)
        answered = time.monotonic()
        self._kept = request.sock
        return answered

    def _next_call(self) -> Request:
        """Read from the connection of the last call if its client keeps it (boto3 does), else from a new one."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            try:
                head, body = read_message(kept)
                return Request(head.split(b" HTTP/", 1)[0].decode(), head, body, kept, time.monotonic())
            except ConnectionError:
                kept.close()
        return self._listener.expect("POST ")

    @staticmethod
    def _receipt(entry: dict[str, object]) -> dict[str, str]:
        digest = hashlib.md5(str(entry["MessageBody"]).encode(), usedforsecurity=False).hexdigest()
        receipt = {"MessageId": "5fea7756-0ea4-451a-a703-a558b933e274", "MD5OfMessageBody": digest}
        attributes = entry.get("MessageAttributes")
        if isinstance(attributes, dict):
            receipt["MD5OfMessageAttributes"] = attributes_digest(attributes)
        return receipt

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._listener.close()


def attributes_digest(attributes: dict[str, dict[str, str]]) -> str:
    """Return SQS's MD5 of string attributes (Amazon SQS Developer Guide, "Calculating the MD5 message digest")."""
    encoded = b""
    for name in sorted(attributes):
        for text in (name, attributes[name]["DataType"]):
            encoded += len(text.encode()).to_bytes(4, "big") + text.encode()
        value = attributes[name]["StringValue"].encode()
        encoded += b"\x01" + len(value).to_bytes(4, "big") + value
    return hashlib.md5(encoded, usedforsecurity=False).hexdigest()
