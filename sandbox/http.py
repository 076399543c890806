"""A strict HTTP/1.1 server: h11 for the protocol, asyncio for the sockets, a task for each request.

Stricter than h11 alone where two readers could disagree about where a request ends: a request with both Content-Length and
Transfer-Encoding is refused (RFC 9112, section 6.3, calls it an attack), and so is a head whose lines do not end with CRLF.
A client that goes away cancels the handler of its request, so that no event is given to a connection that is gone.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote

import h11

from sandbox.answers import SERVER_ERROR, Answer

# As Go's server, which AWS's own is: a head may have 1 MiB (Lambda-Runtime-Function-XRay-Error-Cause is long).
MAX_HEAD = 1_048_576
_BUFFERED_BODY = 1_048_576
_HEAD_LIMIT_S = 10.0


class BodyTooLarge(Exception):
    """The body is over what the handler takes."""


class BodyCut(Exception):
    """The client went away in the middle of its body."""


class Body:
    """A request's body as it comes in. `trailers` are there, with lower-case names, once it is complete."""

    def __init__(self, resume: Callable[[], None]) -> None:
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._resume = resume
        self._cut = False
        self.complete = False
        self.trailers: dict[str, str] = {}

    def feed(self, part: bytes) -> bool:
        """Take a piece; returns whether the sender should pause."""
        self._parts.append(part)
        self._waiting += len(part)
        self._arrived.set()
        return self._waiting > _BUFFERED_BODY

    def end(self, trailers: dict[str, str]) -> None:
        self.trailers = trailers
        self.complete = True
        self._arrived.set()

    def cut(self) -> None:
        if not self.complete:
            self._cut = True
            self._arrived.set()

    async def parts(self) -> AsyncIterator[bytes]:
        """The pieces, as they come. Raises BodyCut."""
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._waiting -= len(part)
                if self._waiting <= _BUFFERED_BODY:
                    self._resume()
                yield part
            if self.complete:
                return
            if self._cut:
                raise BodyCut("the body ended too early")
            self._arrived.clear()
            await self._arrived.wait()

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes. Raises BodyTooLarge or BodyCut."""
        whole = bytearray()
        async for part in self.parts():
            whole += part
            if len(whole) > limit:
                raise BodyTooLarge(f"the body is over {limit} bytes")
        return bytes(whole)


@dataclass(slots=True)
class Request:
    """One request. `headers` have lower-case names; of repeated ones the last counts. `path` is decoded, without its query."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Body
    respond: Respond


class Respond:
    """For answers that are streamed: `start`, then `write` any number of times, then `end`. Others are returned by the handler."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.started = False

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.started = True
        self._connection.send(h11.Response(status_code=status, headers=_encoded(headers), reason=_reason(status)))

    async def write(self, part: bytes) -> None:
        if part:
            self._connection.send(h11.Data(data=part))
            await self._connection.drained()

    def end(self, trailers: dict[str, str] | None = None) -> None:
        self._connection.send(h11.EndOfMessage(headers=_encoded(trailers or {})))


Handler = Callable[[Request], Awaitable[Answer | None]]


class Connection(asyncio.Protocol):
    """One connection of one client; its requests one after the other."""

    def __init__(self, handler: Handler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._body: Body | None = None
        self._task: asyncio.Task[None] | None = None
        self._in_head = True
        self._last = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()

    # -- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_head_timer()
        self._can_write.set()
        if self._body is not None:
            self._body.cut()
        elif self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._in_head and self._head_timer is None and self._task is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(_HEAD_LIMIT_S, self.refuse, 408, "the request's head takes too long")
        if self._in_head and self._is_lax(data):
            self.refuse(400, "a line of the head does not end with CRLF, or is folded")
            return
        self._h11.receive_data(data)
        self._pump()

    def eof_received(self) -> bool:
        self._h11.receive_data(b"")
        self._pump()
        if self._body is None and self._task is not None:
            # Half-closed by a client that only waits for its answer, or gone: a /next must not take an event then.
            self._task.cancel()
        return False

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # -- requests --------------------------------------------------------------------------------------------------

    def _is_lax(self, data: bytes) -> bool:
        """Whether a line of the head ends without its carriage return, or is a folded header (RFC 9112, sections 2.2 and 5.2).

        `data` may begin inside a line, and may hold a body's start.
        """
        if self._last[-1:] == b"\n" and data[:1] in (b" ", b"\t"):
            return True
        text = self._last + data
        position = len(self._last)
        end = text.find(b"\r\n\r\n")
        limit = len(text) if end < 0 else end + 4
        self._last = text[-3:]
        while (position := text.find(b"\n", position, limit)) >= 0:
            if position == 0 or text[position - 1 : position] != b"\r":
                return True
            position += 1
            if text[position : position + 1] in (b" ", b"\t") and position < limit:
                return True
        return False

    def _pump(self) -> None:
        try:
            while self._task is None or self._body is not None:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    if self._body is not None and self._h11.they_are_waiting_for_100_continue:
                        self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                    return
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data) and self._body is not None:
                    if self._body.feed(bytes(event.data)) and self._transport is not None:
                        self._transport.pause_reading()
                elif isinstance(event, h11.EndOfMessage) and self._body is not None:
                    self._body.end({_text(name): _text(value) for name, value in event.headers})
                    self._body = None
                elif isinstance(event, h11.ConnectionClosed):
                    self._close()
                    return
        except h11.RemoteProtocolError as problem:
            if self._body is not None:
                self._body.cut()
                self._body = None
            self.refuse(problem.error_status_hint if problem.error_status_hint < 500 else 400, str(problem))

    def _begin(self, event: h11.Request) -> None:
        self._stop_head_timer()
        self._in_head = False
        self._last = b""
        names = [_text(name) for name, _ in event.headers]
        if event.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("the version is not 1.0 or 1.1")
        if "transfer-encoding" in names and ("content-length" in names or event.http_version == b"1.0"):
            raise h11.RemoteProtocolError("Transfer-Encoding with Content-Length, or in HTTP/1.0")
        target = _text(event.target)
        if target.lower().startswith("http://"):
            # The absolute form, which every server has to take (RFC 9112, section 3.2.2).
            target = "/" + target[len("http://") :].partition("/")[2]
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            raise h11.RemoteProtocolError("the target is not a path")
        self._body = Body(self._resume_reading)
        request = Request(
            _text(event.method),
            unquote(path),
            query,
            {_text(name): _text(value) for name, value in event.headers},
            self._body,
            Respond(self),
        )
        self._task = asyncio.get_running_loop().create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            answer = await self._handler(request)
        except BodyTooLarge as problem:
            self.refuse(413, str(problem))
            return
        except (BodyCut, ConnectionError, h11.LocalProtocolError):
            self._close()
            return
        except asyncio.CancelledError:
            self._close()
            raise
        except Exception as problem:  # the guard at the task's top: the client sees 500, the sandbox reports it
            asyncio.get_running_loop().call_exception_handler({"message": "a handler failed", "exception": problem})
            answer = SERVER_ERROR
        try:
            if answer is not None:
                self._send_answer(answer)
            self._next_cycle(close=answer is not None and answer.close)
        except h11.LocalProtocolError:
            self._close()

    def _send_answer(self, answer: Answer) -> None:
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        if answer.close:
            headers["Connection"] = "close"
        self.send(h11.Response(status_code=answer.status, headers=_encoded(headers), reason=_reason(answer.status)))
        if answer.body:
            self.send(h11.Data(data=answer.body))
        self.send(h11.EndOfMessage())

    def _next_cycle(self, *, close: bool) -> None:
        self._task = None
        if close or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._close()
            return
        self._h11.start_next_cycle()
        self._in_head = True
        self._last = b""
        trailing, _ = self._h11.trailing_data
        if trailing and self._is_lax(trailing):
            self.refuse(400, "a line of the head does not end with CRLF, or is folded")
            return
        self._pump()

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, event: h11.Event) -> None:
        """Raises ConnectionError where the client is gone, h11.LocalProtocolError where the event does not fit."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the client is gone")
        data = self._h11.send(event)
        if data:
            self._transport.write(data)

    async def drained(self) -> None:
        await self._can_write.wait()

    def refuse(self, status: int, why: str) -> None:
        """Say why, if that can still be said, and close."""
        try:
            if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._send_answer(Answer(status, f"{why}\n".encode(), {"Content-Type": "text/plain"}, close=True))
        except (h11.LocalProtocolError, ConnectionError):
            pass
        self._close()

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        self._stop_head_timer()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


class Server:
    """Listens on one address. Use `start`, then `port`; `close` ends every connection."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int = 0) -> None:
        """`port` 0 takes a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._handler, self._connections), host, port, backlog=128
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def drop_connections(self) -> None:
        """End every connection, idle or not."""
        for connection in list(self._connections):
            connection.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self.drop_connections()
            await self._server.wait_closed()


def _text(value: bytes | bytearray) -> str:
    return bytes(value).decode("latin-1")


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
