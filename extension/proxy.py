"""The Runtime API proxy: every request goes on as it came, on a fresh connection; what the table needs is noted in passing.

A fault in the noting turns the noting off and never stops the forwarding (DESIGN, rule 1). A POST is never sent twice: where a
connection breaks, both sides are closed, as if there had been no proxy.
"""

from __future__ import annotations

import _socket
import _thread
import select
import time

from extension import http1, net, routes, say
from extension.http1 import Body, Malformed, RequestHead, ResponseHead
from extension.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from extension.inflight import Invocation, Table
    from extension.net import Socket
    from extension.watch import Judge

_SHUT_WR = _socket.SHUT_WR
_READ = 65_536  # fits the caches; measured against larger ones
_MAX_CONNECTIONS = 1_024
_HANG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL | select.POLLRDHUP
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_LINGER_S = 5.0
_PONG = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


class _Link:
    """One runtime connection: its socket, what was read beyond the current message, and the invocation it carried last."""

    __slots__ = ("answered", "buffer", "last", "sock")

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.answered = False  # of the current exchange, something has been passed on
        self.last: Invocation | None = None


class Proxy:
    """Serves the runtime on `listener` and forwards to `upstream` (host, port).

    `on_ping` is called when the wrapper asks whether the proxy lives; `is_watched` tells whether the runtime's process is watched.
    """

    def __init__(
        self,
        listener: Socket,
        upstream: tuple[str, int],
        table: Table,
        on_ping: Callable[[], None],
        is_watched: Callable[[], bool],
        judge: Judge | None = None,
    ) -> None:
        self._listener = listener
        self._upstream = upstream
        self._table = table
        self._on_ping = on_ping
        self._is_watched = is_watched
        self._judge = judge
        self._open = 0
        self.counters = {"connections": 0, "exchanges": 0, "broken": 0, "malformed": 0, "refused": 0}

    def serve(self) -> None:
        """Accept connections for ever, a thread each."""
        while True:
            try:
                sock = net.accept(self._listener)
            except OSError as error:
                say.fault("proxy: accept", error)
                select.poll().poll(50)  # out of descriptors: wait for some to be closed
                continue
            if self._open >= _MAX_CONNECTIONS:
                self.counters["refused"] += 1
                sock.close()
                continue
            self._open += 1
            self.counters["connections"] += 1
            try:
                _thread.start_new_thread(self._serve_connection, (sock,))
            except RuntimeError as error:
                say.fault("proxy: thread", error)
                self._serve_connection(sock)

    def _serve_connection(self, sock: Socket) -> None:
        link = _Link(sock)
        try:
            while self._serve_request(link):
                pass
        except Malformed as error:
            self.counters["malformed"] += 1
            if not link.answered:
                _refuse(sock, error)
                _linger(sock)
        except OSError:
            self.counters["broken"] += 1
        except (
            BaseException
        ) as error:  # the guard of this thread: the runtime sees a closed connection, nothing else stops
            say.fault("proxy: connection", error)
        finally:
            self._open -= 1
            sock.close()
            self._lost(link)

    def _lost(self, link: _Link) -> None:
        """The connection ended. With its invocation unanswered and the process out of sight, stop holding for it."""
        try:
            if link.last is not None and not link.last.ended and not self._is_watched() and link.last.request_id:
                self._table.suspect(link.last.request_id)
        except BaseException as error:
            say.fault("proxy: lost connection", error)

    def _serve_request(self, link: _Link) -> bool:
        """Forward one request and its answer. Returns whether the connection goes on."""
        while (end := http1.split_head(link.buffer)) < 0:
            received = link.sock.recv(_READ)
            if not received:
                if link.buffer:
                    raise Malformed("the connection ended inside a head")
                return False
            link.buffer += received
        link.answered = False
        request = http1.parse_request_head(link.buffer[:end])
        body = http1.request_body(request)
        link.buffer = link.buffer[end:]
        self.counters["exchanges"] += 1
        if request.target == routes.PING_TARGET:
            self._on_ping()  # first: the runtime starts with the answer, and may end before anybody watches it
            net.send_all(link.sock, _PONG, None)
            return False
        if request.method == b"CONNECT":
            raise Malformed("CONNECT is not for this server", 405)
        upstream = net.connect(self._upstream[0], self._upstream[1], None)
        try:
            return _Exchange(link, upstream, request, body, _watch(self._table, request, self._judge)).run()
        finally:
            upstream.close()


def _watch(table: Table, request: RequestHead, judge: Judge | None) -> Watch | None:
    try:
        return Watch(table, request, judge)
    except BaseException as error:
        say.fault("proxy: watch", error)
        return None


def _refuse(sock: Socket, error: Malformed) -> None:
    text = f'{{"errorType":"Backstop.BadRequest","errorMessage":"{error}"}}'.encode()
    head = f"HTTP/1.1 {error.status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    try:
        sock.sendall(head.encode() + b"Connection: close\r\n\r\n" + text)
    except OSError:
        return


def _linger(sock: Socket) -> None:
    """Read what the runtime still sends, for a while: to close before would reset the connection, and the answer might be lost
    before it was read (RFC 9112, section 9.6).
    """
    deadline = time.monotonic() + _LINGER_S
    try:
        sock.shutdown(_SHUT_WR)
        while net.recv(sock, _READ, deadline):
            pass
    except OSError:
        return


class _Exchange:
    """One request and its answer, both ways at once: an answer may begin before the request has ended."""

    __slots__ = (
        "_answer",
        "_answer_body",
        "_body",
        "_buffer",
        "_link",
        "_poll",
        "_raw",
        "_request",
        "_runtime_gone",
        "_to_lambda",
        "_upstream",
        "_watch",
    )

    def __init__(self, link: _Link, upstream: Socket, request: RequestHead, body: Body, watch: Watch | None) -> None:
        self._link = link
        self._upstream = upstream
        self._request = request
        self._body = body
        self._watch = watch
        self._answer: ResponseHead | None = None
        self._answer_body: Body | None = None
        self._buffer = b""
        self._raw = False
        self._to_lambda = True
        self._runtime_gone = False
        self._poll = select.poll()

    def run(self) -> bool:
        """Forward until both messages are whole. Returns whether the runtime's connection can carry another request."""
        watch = self._watch
        try:
            whole = self._pump()
        finally:
            answered = self._answer is not None and self._answer_body is not None and self._answer_body.complete
            if answered and not self._raw:
                self._note_done()
            if watch is not None:
                watch.over()
        if answered and not self._body.complete and not self._runtime_gone:
            _linger(self._link.sock)  # Lambda answered before it had read everything: a 413
            return False
        return (
            whole
            and self._answer is not None
            and not self._raw
            and not self._runtime_gone
            and self._body.complete
            and self._request.keep_alive
            and self._answer.keep_alive
            and self._answer_body is not None
            and not self._answer_body.until_close
        )

    def _pump(self) -> bool:
        """Move bytes both ways until the exchange is whole; False where it broke off."""
        link, upstream = self._link, self._upstream
        used, parts = self._body.feed(link.buffer)
        upstream.sendall(self._request.raw + link.buffer[:used])
        link.buffer = link.buffer[used:]
        self._note_request(parts)
        runtime_fd, lambda_fd = link.sock.fileno(), upstream.fileno()
        self._poll.register(runtime_fd, select.POLLIN | select.POLLRDHUP)
        self._poll.register(lambda_fd, select.POLLIN)
        while not self._whole():
            for descriptor, events in self._poll.poll():
                if descriptor == lambda_fd:
                    if not self._from_lambda():
                        return False
                elif self._body.complete and events & _HANG_UP:
                    if self._watch is None or self._watch.waits_for_event:
                        return False  # the upstream connection closes, as the runtime's own would have
                    # What it posted counts: wait for Lambda's answer. It may have closed its sending side only.
                    self._runtime_gone = bool(events & _GONE)
                    self._poll.unregister(runtime_fd)
                else:
                    if not self._from_runtime():
                        return False
                    if self._body.complete and link.buffer:
                        self._poll.modify(runtime_fd, select.POLLRDHUP)  # the next request waits its turn, pipelined
        return True

    def _whole(self) -> bool:
        if self._answer_body is None or not self._answer_body.complete:
            return False
        return self._body.complete or not self._to_lambda

    def _from_runtime(self) -> bool:
        """Move a piece of the request. Returns False when the runtime is gone."""
        received = self._link.sock.recv(_READ)
        if not received:
            return False
        if self._body.complete:
            self._link.buffer += received
            return True
        used, parts = self._body.feed(received)
        if self._to_lambda:
            try:
                self._upstream.sendall(received if used == len(received) else received[:used])
            except OSError:
                self._to_lambda = False  # Lambda answered early and closed; its answer may still be on the way
        self._link.buffer = received[used:]
        self._note_request(parts)
        return True

    def _from_lambda(self) -> bool:
        """Move a piece of the answer. Returns False when it can go no further."""
        try:
            received = self._upstream.recv(_READ)
        except OSError:
            received = b""
        if not received:
            return self._lambda_closed()
        if not self._raw:
            try:
                self._understand(received)
            except Malformed as error:
                # Not for us to judge: from here on it passes unread, until Lambda closes.
                say.warn_once("proxy", f"an answer of the Runtime API could not be read: {error}")
                self._raw = True
        if not self._runtime_gone:
            self._link.answered = True
            try:
                self._link.sock.sendall(received)
            except OSError:
                if self._watch is None or self._watch.waits_for_event:
                    raise
                self._runtime_gone = True
        return True

    def _lambda_closed(self) -> bool:
        if self._answer_body is not None and self._answer_body.until_close and not self._raw:
            self._answer_body.eof()
            return True
        return False

    def _understand(self, received: bytes) -> None:
        while received:
            if self._answer is None or self._answer_body is None:
                self._buffer += received
                end = http1.split_head(self._buffer)
                if end < 0:
                    return
                head = http1.parse_response_head(self._buffer[:end])
                received, self._buffer = self._buffer[end:], b""
                if head.status < 200:
                    continue  # 100 Continue has been passed on; the answer follows
                self._answer = head
                self._answer_body = http1.response_body(head, self._request.method)
                self._note_head(head)
            used, parts = self._answer_body.feed(received)
            self._note_answer(self._answer, parts)
            if used < len(received):
                raise Malformed("bytes after the answer's end")
            return

    # -- notes: a fault here turns the noting off, and the forwarding goes on -------------------------------------

    def _guard(self, error: BaseException) -> None:
        say.fault("proxy: watch", error)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.give_up()

    def _note_request(self, parts: list[bytes]) -> None:
        if self._watch is not None:
            try:
                for part in parts:
                    self._watch.request_part(part)
            except BaseException as error:
                self._guard(error)

    def _note_head(self, head: ResponseHead) -> None:
        if self._watch is not None:
            try:
                self._watch.response_head(head)
                self._link.last = self._watch.invocation or self._link.last
            except BaseException as error:
                self._guard(error)

    def _note_answer(self, head: ResponseHead, parts: list[bytes]) -> None:
        if self._watch is not None:
            try:
                for part in parts:
                    self._watch.response_part(head, part)
                if self._answer_body is not None and self._answer_body.complete:
                    self._watch.response_whole()
            except BaseException as error:
                self._guard(error)

    def _note_done(self) -> None:
        if self._watch is not None and self._answer is not None:
            try:
                self._watch.done(self._answer, self._body)
            except BaseException as error:
                self._guard(error)
