"""Servers on real sockets for the tests of the way to the queue: one that behaves, and ones that do not.

The stand-in for SQS is not believed by itself: test_sqs.py holds its answers against moto's, through botocore's parser.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

Handler = Callable[[socket.socket], None]


class Server:
    """Listens on a free port of 127.0.0.1 and runs `handle` for each connection, in a thread of its own."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        for sock in self._open:
            sock.close()
        if error is None and self.failures:
            raise self.failures[0]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            self._handle(sock)
        except OSError:
            pass  # the client went away, which many of these tests are about
        except BaseException as error:
            self.failures.append(error)
        finally:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Request:
    """A request as a server saw it: the header names in lower case."""

    def __init__(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.method = method
        self.target = target
        self.header_list = headers
        self.headers = dict(headers)
        self.body = body

    @property
    def json(self) -> dict[str, Any]:
        fields = json.loads(self.body)
        assert isinstance(fields, dict)
        return fields


def read_request(sock: socket.socket) -> Request | None:
    """Read one request with a Content-Length; None at the end of the stream."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65_536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in lines]
    parts, left = [body], int(dict(headers).get("content-length", 0)) - len(body)
    while left > 0:
        part = sock.recv(1 << 20)
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return Request(method, target, headers, b"".join(parts))


def answer(status: int, body: object, *headers: str) -> bytes:
    """Return a whole response with a JSON body, as SQS words it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (
        f"HTTP/1.1 {status} Whatever",
        "x-amzn-RequestId: 0",
        "Content-Type: application/x-amz-json-1.0",
        f"Content-Length: {len(raw)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + raw


def error(status: int, code: str, message: str, *headers: str) -> bytes:
    """Return an error as SQS words it."""
    return answer(status, {"__type": f"com.amazonaws.sqs#{code}", "message": message}, *headers)


def accept_messages(request: Request) -> bytes:
    """Answer SendMessage and SendMessageBatch with success."""
    fields = request.json
    if request.headers["x-amz-target"] == "AmazonSQS.SendMessage":
        return answer(200, {"MD5OfMessageBody": "0" * 32, "MessageId": "0-0"})
    sent = [{"Id": entry["Id"], "MessageId": "0-0", "MD5OfMessageBody": "0" * 32} for entry in fields["Entries"]]
    return answer(200, {"Successful": sent, "Failed": []})


class StandIn(Server):
    """Speaks SQS. `respond` may be exchanged while it runs; `requests` is what came, in order."""

    def __init__(self, respond: Callable[[Request], bytes] = accept_messages) -> None:
        super().__init__(self._converse)
        self.respond = respond
        self.requests: list[Request] = []
        self.at: list[float] = []
        self._lock = threading.Lock()

    def __enter__(self) -> StandIn:
        super().__enter__()
        return self

    def _converse(self, sock: socket.socket) -> None:
        while (request := read_request(sock)) is not None:
            with self._lock:
                self.requests.append(request)
                response = self.respond(request)
            sock.sendall(response)
            self.at.append(time.perf_counter())
            if b"\r\nConnection: close\r\n" in response:
                return

    @property
    def bodies(self) -> list[str]:
        """The bodies of all messages that came, in order, whether accepted or not."""
        found: list[str] = []
        for request in self.requests:
            fields = request.json
            found += [entry["MessageBody"] for entry in fields.get("Entries", [fields])]
        return found


def in_turn(*responses: bytes | Callable[[Request], bytes]) -> Callable[[Request], bytes]:
    """Give these responses one after the other, and the last one from then on."""
    left = list(responses)

    def respond(request: Request) -> bytes:
        response = left.pop(0) if len(left) > 1 else left[0]
        return response if isinstance(response, bytes) else response(request)

    return respond


# Servers that break something. Each is a handler for one connection.


def until_closed(sock: socket.socket) -> None:
    while sock.recv(65_536):
        pass


def hang_before_reading(sock: socket.socket) -> None:
    """Accept, and never read: a large request does not even go out."""
    threading.Event().wait(0.01)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
    _wait_for_hang_up(sock)


def _wait_for_hang_up(sock: socket.socket) -> None:
    import select

    poller = select.poll()
    poller.register(sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    poller.poll(10_000)


def hang_after_request(sock: socket.socket) -> None:
    read_request(sock)
    until_closed(sock)


def cut_before_answer(sock: socket.socket) -> None:
    read_request(sock)


def reset_before_answer(sock: socket.socket) -> None:
    read_request(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def cut_in_head(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")


def cut_in_body(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(answer(200, {"MessageId": "0-0"})[:-5])


def trickle(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        sock.sendall(b"z")
        time.sleep(0.02)


def endless_head(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"X-More: " + b"z" * 1_000 + b"\r\n")


def endless_body(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        sock.sendall(b"1000\r\n" + b"z" * 4_096 + b"\r\n")


def not_http(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def a_middlemans_page(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>")


@contextmanager
def full_backlog() -> Iterator[str]:
    """A port whose queue of connections is full, so that a further connect hangs. Yields its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def nobody_listens() -> Iterator[str]:
    """A port that refuses connections. Yields its URL."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
