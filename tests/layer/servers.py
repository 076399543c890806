"""Small real servers for the tests: one that answers the wrapper's ping in a chosen way, and Lambda's Extensions API."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

PATIENCE_S = 20.0


class TcpServer:
    """Accepts connections one after the other, each handled to its end, until it is closed."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE_S)
                try:
                    self._handle(connection)
                except OSError:
                    pass  # the peer went away


def read_request(connection: socket.socket) -> bytes:
    """One request, whole, with a body of Content-Length bytes; b"" if the peer said nothing."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return data
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


class Ping(TcpServer):
    """Stands where the proxy would be. `answer` is sent to each request, byte by byte if `slowly`; then it waits for the peer.

    requests holds what came, waited_s for how long the peer stayed afterwards.
    """

    def __init__(self, answer: bytes, before_answer: Callable[[], None] = lambda: None) -> None:
        super().__init__(self._ping)
        self._answer = answer
        self._before_answer = before_answer
        self.requests: list[bytes] = []
        self.waited_s: queue.Queue[float] = queue.Queue()

    def _ping(self, connection: socket.socket) -> None:
        started = time.monotonic()
        self.requests.append(read_request(connection))
        self._before_answer()
        try:
            if self._answer:
                connection.sendall(self._answer)
            while connection.recv(4096):
                pass
        finally:
            self.waited_s.put(time.monotonic() - started)


Answer = tuple[int, dict[str, str], bytes]


class ExtensionsApi(TcpServer):
    """Lambda's Extensions API, as far as an idle extension sees it: the test says what each request is answered with.

    A request without an answer at hand waits, as /next does when there is no event.
    """

    def __init__(self) -> None:
        super().__init__(self._api)
        self.requests: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[bytes] = queue.Queue()

    def _api(self, connection: socket.socket) -> None:
        self.requests.put(read_request(connection))
        connection.sendall(self._answers.get(timeout=PATIENCE_S))

    def request(self) -> tuple[str, dict[str, str], bytes]:
        """The next request: its first line without the version, headers in lower case, body."""
        head, _, body = self.requests.get(timeout=PATIENCE_S).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return first.removesuffix(" HTTP/1.1"), headers, body

    def answer(self, status: int, body: bytes = b"{}", *, chunked: bool = False, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Said By The Test", "Content-Type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            half = len(body) // 2
            pieces = (body[:half], body[half:])
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
        else:
            lines.append(f"Content-Length: {len(body)}")
        self._answers.put("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def answer_registered(self, identifier: str) -> None:
        body = json.dumps({"functionName": "f", "functionVersion": "$LATEST", "handler": "h"}).encode()
        self.answer(200, body, Lambda_Extension_Identifier=identifier)

    def answer_event(self, kind: str, *, chunked: bool = False) -> None:
        event = {"eventType": kind, "deadlineMs": 1, "requestId": "r", "shutdownReason": "spindown"}
        self.answer(200, json.dumps(event).encode(), chunked=chunked, Lambda_Extension_Event_Identifier="e")
