"""The Runtime API proxy on real sockets: what it passes is unchanged to the byte, and what it notes never stands in the way."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from extension import http1, net, proxy, say
from extension.inflight import Invocation, Table
from extension.outcome import CRASH, HANDLED_ERROR, INIT_ERROR, STREAM_ERROR
from extension.proxy import Proxy
from tests.extension.serving import WAIT_S, connect, read_exactly, read_to_end, serving, until
from tests.extension.wire_servers import Server

REPOSITORY = Path(__file__).parents[2]
API = "/2018-06-01/runtime"
ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'
RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:9001", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def next_request() -> bytes:
    return request("GET", f"{API}/invocation/next")


def event_answer(request_id: str, event: bytes = b'{"a":1.00}') -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {int(time.time() * 1000) + 60_000}\r\nContent-Length: {len(event)}\r\n\r\n"
    ).encode() + event


class Lambda(Server):
    """The Runtime API of a test: reads as many bytes as the test sends, answers what the test says, notes what came."""

    def __init__(self) -> None:
        super().__init__(self._serve_exchange)
        self.script: Callable[[socket.socket], None] = until_head_then(ACCEPTED)

    def __enter__(self) -> Lambda:
        super().__enter__()
        return self

    def _serve_exchange(self, sock: socket.socket) -> None:
        self.script(sock)


def expecting(
    size: int, answer: bytes, seen: list[bytes], pieces: int | None = None
) -> Callable[[socket.socket], None]:
    """Read `size` bytes, answer, and see that nothing more comes before the proxy hangs up."""

    def serve(sock: socket.socket) -> None:
        came = read_exactly(sock, size)
        send_in_pieces(sock, answer, pieces)
        seen.append(came + read_to_end(sock))

    return serve


def until_head_then(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)

    return serve


def read_head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65_536)
        if not part:
            break
        data += part
    return data


def send_in_pieces(sock: socket.socket, data: bytes, size: int | None) -> None:
    for index in range(0, len(data), size or len(data) or 1):
        sock.sendall(data[index : index + (size or len(data))])


class Place:
    """A proxy between a client of the test and a Lambda of the test."""

    def __init__(self, upstream: Lambda, memory: int = 64 << 20) -> None:
        self.upstream = upstream
        self.table = Table(memory, 20, keep_payloads=True, concurrent=True)
        self.failures: list[Invocation] = []
        self.table.on_failure = self.failures.append
        self.pings = 0
        self.watched = True
        listener, self.port = net.listen("127.0.0.1", 0)
        self.proxy = Proxy(listener, ("127.0.0.1", upstream.port), self.table, self._ping, lambda: self.watched)
        self.listener = listener

    def _ping(self) -> None:
        self.pings += 1

    def serving(self) -> contextlib.AbstractContextManager[None]:
        return serving(self.proxy.serve, self.listener, self.port)

    def connect(self) -> socket.socket:
        return connect(self.port)

    def ask(self, raw: bytes, size: int | None = None) -> bytes:
        """Send a request on a connection of its own and read `size` bytes, or to the end."""
        with self.connect() as sock:
            sock.sendall(raw)
            return read_to_end(sock) if size is None else read_exactly(sock, size)

    def conditions(self) -> list[str]:
        return [one.outcome.condition for one in self.failures if one.outcome is not None]

    def idle(self) -> bool:
        """Wait until no connection is open."""
        until(lambda: self.proxy._open == 0)
        return True


@pytest.fixture(autouse=True)
def _fresh_voice() -> None:
    say.forget()


@pytest.fixture
def place() -> Iterator[Place]:
    with Lambda() as upstream:
        made = Place(upstream)
        with made.serving():
            yield made
            assert made.idle(), "a connection is still open"


# Unchanged, both ways, to the byte

CHUNKED = "Transfer-Encoding: chunked"
EXCHANGES = [
    pytest.param(next_request(), event_answer("a"), id="GET next"),
    pytest.param(
        next_request(),
        b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'4;x=y\r\n{"a"\r\n6\r\n:1.00}\r\n0\r\nX-Trailer: 1\r\n\r\n',
        id="a chunked event",
    ),
    pytest.param(request("POST", f"{API}/invocation/a/response", b'{"ok":1.00}'), ACCEPTED, id="a response"),
    pytest.param(request("POST", f"{API}/invocation/a/response", b""), ACCEPTED, id="a response without a body"),
    pytest.param(
        request("POST", f"{API}/invocation/a/response", b"", "Content-Length: 0"), ACCEPTED, id="an empty response"
    ),
    pytest.param(
        request("POST", f"{API}/invocation/a/error", b'{"errorMessage":"x"}', "Lambda-Runtime-Function-Error-Type: E"),
        ACCEPTED,
        id="an error",
    ),
    pytest.param(
        request("POST", f"{API}/invocation/a/response", b"", CHUNKED, "Trailer: X-T")
        + b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        ACCEPTED,
        id="a chunked response with trailers",
    ),
    pytest.param(request("POST", f"{API}/init/error", b"{}"), ACCEPTED, id="an error in initialization"),
    pytest.param(
        request("GET", f"{API}/restore/next"), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="SnapStart"
    ),
    pytest.param(
        request("GET", "/2021-04-23/credentials?a=b&c=%20%2F#", b"", "Authorization: t"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        id="another path, with a query",
    ),
    pytest.param(request("PUT", "/x?", b"body"), ACCEPTED, id="PUT"),
    pytest.param(request("DELETE", "//x/../y"), b"HTTP/1.1 204 No Content\r\n\r\n", id="DELETE, 204"),
    pytest.param(request("OPTIONS", "*"), b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n", id="OPTIONS *"),
    pytest.param(request("X-ANY", "/"), ACCEPTED, id="any method"),
    pytest.param(request("GET", "http://h/x"), ACCEPTED, id="absolute form"),
    pytest.param(
        request("HEAD", "/"), b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", id="HEAD has a length and no body"
    ),
    pytest.param(request("HEAD", "/"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="HEAD, chunked"),
    pytest.param(request("GET", "/"), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", id="304"),
    pytest.param(request("GET", "/"), b"HTTP/1.1 301 \r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", id="301"),
    pytest.param(next_request(), b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}", id="403 to GET next"),
    pytest.param(
        request("POST", f"{API}/invocation/a/response", b"x"),
        b"HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\n{}",
        id="410 Gone",
    ),
    pytest.param(next_request(), b"HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n", id="500 to GET next"),
    pytest.param(
        request("GET", "/"), b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ACCEPTED, id="an interim answer first"
    ),
    pytest.param(request("GET", "/"), b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", id="no reason phrase"),
    pytest.param(
        b"GET /  HTTP/1.1\r\n".replace(b"  ", b" ") + b"hOST:a\r\nX-A:\t1 \r\nx-a: 2\r\nX-B: caf\xe9\r\nX-C:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nset-cookie: a\r\nSet-Cookie:b\r\nCONTENT-LENGTH:\t 2 \r\nX: \xff\r\n\r\nok",
        id="header names, blanks and bytes as they are",
    ),
    pytest.param(
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        id="HTTP/1.0",
    ),
]


@pytest.mark.parametrize("size", [None, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("asked", "answered"), EXCHANGES)
def test_an_exchange_passes_unchanged(asked: bytes, answered: bytes, size: int | None, place: Place) -> None:
    seen: list[bytes] = []
    place.upstream.script = expecting(len(asked), answered, seen, size)
    with place.connect() as sock:
        for _ in range(2):  # the connection can be used again
            send_in_pieces(sock, asked, size)
            assert read_exactly(sock, len(answered)) == answered
    assert place.idle()
    comes(seen, [asked, asked])
    assert place.upstream.connections == 2  # a fresh one for each request


@pytest.mark.parametrize(
    "answered",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", id="without framing"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", id="Connection: close"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", id="cut in its body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", id="cut in a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", id="cut in its head"),
        pytest.param(b"", id="no answer"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\nmore\r\n", id="not HTTP"),
        pytest.param(b"\x00\xff" * 500, id="binary"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 2\r\n\r\nok", id="NUL in a value"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            id="both framings",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="another coding"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello", id="a broken chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", id="more than its length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", id="a head over our limit"),
    ],
)
@pytest.mark.parametrize(
    "asked", [next_request(), request("POST", f"{API}/invocation/a/response", b"x")], ids=["next", "response"]
)
def test_an_answer_that_ends_the_connection_or_is_no_answer_passes_as_it_is(
    asked: bytes, answered: bytes, place: Place
) -> None:
    def serve(sock: socket.socket) -> None:
        assert read_exactly(sock, len(asked)) == asked
        sock.sendall(answered)

    place.upstream.script = serve
    assert place.ask(asked) == answered
    assert place.upstream.connections == 1  # nothing was sent again
    assert place.failures == []


@pytest.mark.parametrize("option", ["Connection: close", "Connection: Close"])
def test_a_client_that_wants_one_exchange_gets_one(option: str, place: Place) -> None:
    asked = request("GET", "/", b"", option)
    assert place.ask(asked) == ACCEPTED


LINES = st.lists(
    st.tuples(
        st.sampled_from(["X-A", "x-b", "Lambda-Runtime-Trace-Id", "Accept"]),
        st.text(alphabet='abc 019-_=;,"/é', max_size=20).map(str.strip),
    ),
    max_size=4,
)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH"]),
    path=st.text(alphabet="abc/?&=%20.-_~:@!$'()*+,;", max_size=20),
    lines=LINES,
    body=st.none() | st.binary(max_size=200),
    chunks=st.none() | st.lists(st.binary(min_size=1, max_size=50), max_size=3),
    data=st.data(),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_request_reaches_lambda_as_it_was_sent(
    method: str,
    path: str,
    lines: list[tuple[str, str]],
    body: bytes | None,
    chunks: list[bytes] | None,
    data: st.DataObject,
    place: Place,
) -> None:
    head = f"{method} /{path} HTTP/1.1\r\nHost: a\r\n".encode()
    head += b"".join(f"{name}: {value}\r\n".encode() for name, value in lines)
    if chunks is not None:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        asked = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    elif body is not None:
        asked = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        asked = head + b"\r\n"
    seen: list[bytes] = []
    place.upstream.script = expecting(len(asked), ACCEPTED, seen)
    places = sorted(data.draw(st.lists(st.integers(0, len(asked)), max_size=4)))
    with place.connect() as sock:
        for start, end in zip([0, *places], [*places, len(asked)], strict=True):
            sock.sendall(asked[start:end])
        assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
    assert place.idle()
    comes(seen, [asked])


# What is refused before Lambda hears of it


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        pytest.param(b"GET /\r\n\r\n", 400, id="no version"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, id="TLS"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, id="HTTP/2"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            id="both framings",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, id="another coding"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, id="a broken first chunk"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 431, id="a head over the limit"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, id="CONNECT"),
    ],
)
def test_a_malformed_request_is_refused_here(asked: bytes, status: int, place: Place) -> None:
    seen: list[bytes] = []
    place.upstream.script = lambda sock: seen.append(read_to_end(sock))
    answer = place.ask(asked)
    head = http1.parse_response_head(answer[: http1.split_head(answer)])
    assert head.status == status
    assert head.get(b"connection") == b"close"
    assert b"Backstop.BadRequest" in answer
    assert place.idle()
    until(lambda: len(seen) == place.upstream.connections)
    assert not any(seen)
    assert place.proxy.counters["malformed"] == 1


def test_a_request_that_breaks_off_in_its_head_is_refused(place: Place) -> None:
    with place.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHo")
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")
    assert place.upstream.connections == 0


def test_chunks_that_break_later_cut_the_request_off(place: Place) -> None:
    seen: list[bytes] = []
    place.upstream.script = lambda sock: seen.append(read_to_end(sock))
    asked = request("POST", f"{API}/invocation/a/response", b"", CHUNKED) + b"3\r\nabc\r\n"
    with place.connect() as sock:
        sock.sendall(asked)
        until(lambda: place.upstream.connections == 1)
        sock.sendall(b"xyz\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")
    assert place.idle()
    comes(seen, [asked])


def test_a_refusal_never_follows_an_answer(place: Place) -> None:
    """Lambda has answered already: a second answer would be read as that to the next request."""
    place.upstream.script = until_head_then(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    with place.connect() as sock:
        sock.sendall(request("POST", f"{API}/invocation/a/response", b"", CHUNKED))
        answer = read_exactly(sock, 46)
        with contextlib.suppress(OSError):
            sock.sendall(b"xyz\r\n")
            answer += read_to_end(sock)
    assert answer == b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"


def comes(seen: list[bytes], expected: list[bytes]) -> None:
    """Wait for the test's Lambda to have noted as much as expected, and see that it is that."""
    until(lambda: len(seen) >= len(expected))
    assert seen == expected


# Connections


def test_requests_on_one_connection_go_out_on_one_each(place: Place) -> None:
    with place.connect() as sock:
        for _ in range(5):
            sock.sendall(request("GET", "/"))
            assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
    assert place.upstream.connections == 5
    assert place.proxy.counters["connections"] == 1


@pytest.mark.parametrize("size", [None, 7])
def test_pipelined_requests_are_answered_in_order_and_kept_apart(size: int | None, place: Place) -> None:
    asked = [
        request("POST", f"{API}/invocation/a/response", b"first"),
        request("GET", "/second"),
        request("POST", "/third", b"", CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n",
        request("GET", "/fourth", b"", "Connection: close"),
    ]
    answers = [f"HTTP/1.1 20{n} OK\r\nContent-Length: 1\r\n\r\n{n}".encode() for n in range(4)]
    seen: list[list[bytes]] = [[], [], [], []]
    numbers = iter(range(4))

    def serve(sock: socket.socket) -> None:
        number = next(numbers)
        expecting(len(asked[number]), answers[number], seen[number])(sock)

    place.upstream.script = serve
    with place.connect() as sock:
        send_in_pieces(sock, b"".join(asked), size)
        assert read_to_end(sock) == b"".join(answers)
    for came, expected in zip(seen, asked, strict=True):
        comes(came, [expected])


def test_a_flood_of_pipelined_requests_waits_outside(place: Place) -> None:
    """What has not got its turn stays in the sockets' own buffers."""
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        go.wait(WAIT_S)
        sock.sendall(ACCEPTED)

    place.upstream.script = serve
    many = request("GET", "/x" * 500) * 20_000
    with place.connect() as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.sendall(many)
        assert place.upstream.connections == 1
    go.set()


@pytest.mark.parametrize("kind", ["response", "error"])
def test_a_client_that_closes_its_sending_side_gets_the_answer_to_its_post(kind: str, place: Place) -> None:
    """As `nc -N` does. Lambda's own server answers it too."""
    asked = request("POST", f"{API}/invocation/a/{kind}", b"{}")
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_exactly(sock, len(asked))
        go.wait(WAIT_S)
        sock.sendall(ACCEPTED)

    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(asked)
        sock.shutdown(socket.SHUT_WR)
        until(lambda: place.upstream.connections == 1)
        threading.Timer(0.05, go.set).start()  # the proxy has seen the half-close by then
        assert read_to_end(sock) == ACCEPTED


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_dies_waiting_for_an_event_takes_no_event_with_it(how: str, place: Place) -> None:
    """The connection to Lambda closes, as the runtime's own would have: nobody may take an event in its place."""
    gone = threading.Event()
    waiting = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        waiting.set()
        assert read_to_end(sock) == b""
        gone.set()

    place.upstream.script = serve
    sock = place.connect()
    sock.sendall(next_request())
    assert waiting.wait(WAIT_S)
    assert not gone.is_set()
    if how == "resets":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()
    assert gone.wait(WAIT_S)
    assert place.idle()


def test_waiting_for_an_event_has_no_time_limit(place: Place) -> None:
    """Both sockets wait without a limit; a proof that takes for ever is not asked for."""
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        go.wait(WAIT_S)
        sock.sendall(event_answer("a"))

    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(next_request())
        sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(WAIT_S)
        go.set()
        assert sock.recv(1) == b"H"


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("when", ["before reading", "after reading"])
def test_a_post_is_never_sent_again(when: str, how: str, place: Place) -> None:
    asked = request("POST", f"{API}/invocation/a/response", b"x" * 100)

    def serve(sock: socket.socket) -> None:
        if when == "after reading":
            read_exactly(sock, len(asked))
        if how == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()

    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(asked)
        try:
            assert read_to_end(sock) == b""
        except ConnectionResetError:
            pass
    assert place.idle()
    assert place.upstream.connections == 1


def test_where_lambda_refuses_the_connection_the_client_is_cut_off() -> None:
    with Lambda() as upstream:
        place = Place(upstream)
    with place.serving():
        with contextlib.suppress(ConnectionResetError):
            assert place.ask(next_request()) == b""
        assert place.idle()


def test_over_the_bound_connections_are_closed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_MAX_CONNECTIONS", 2)
    with place.connect() as first, place.connect() as second:
        until(lambda: place.proxy._open == 2)
        with contextlib.suppress(ConnectionResetError):
            assert place.ask(request("GET", "/")) == b""
        assert place.proxy.counters["refused"] == 1
        for sock in (first, second):
            sock.sendall(request("GET", "/"))
            assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
    assert place.idle()
    with place.connect() as third:
        third.sendall(request("GET", "/"))
        assert read_exactly(third, len(ACCEPTED)) == ACCEPTED


@pytest.mark.parametrize("watched", [True, False])
def test_a_lost_connection_ends_the_hold_only_where_the_process_is_not_watched(watched: bool, place: Place) -> None:
    place.watched = watched
    answer = event_answer("a")
    place.upstream.script = until_head_then(answer)
    assert place.ask(next_request(), len(answer)) == answer
    assert place.idle()
    invocation = place.table._by_id["a"]
    assert invocation.released.is_set is not watched
    assert not invocation.ended


# Ping


def test_the_wrappers_ping_is_answered_here(place: Place) -> None:
    answer = place.ask(b"GET /.backstop/ping HTTP/1.1\r\nHost: backstop\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert place.pings == 1
    assert place.upstream.connections == 0


# Answers that come early


def test_expect_100_continue_passes_both_ways(place: Place) -> None:
    head = request("POST", f"{API}/invocation/a/response", b"", "Expect: 100-continue", "Content-Length: 5")
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        seen.append(read_exactly(sock, len(head)))
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        expecting(5, ACCEPTED, seen)(sock)

    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(head)
        assert read_exactly(sock, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
    assert place.idle()
    comes(seen, [head, b"hello"])


TOO_LARGE = b"HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


def test_a_refusal_in_place_of_100_continue_reaches_the_client(place: Place) -> None:
    place.upstream.script = until_head_then(TOO_LARGE)
    asked = request("POST", f"{API}/invocation/a/response", b"", "Expect: 100-continue", "Content-Length: 5")
    assert place.ask(asked) == TOO_LARGE


@pytest.mark.parametrize("how", ["closes", "resets", "reads on"])
def test_an_early_413_reaches_a_client_that_is_still_sending(how: str, place: Place) -> None:
    """The client writes all of its 8 MB before it reads: the answer must not be lost to a reset."""
    body = b"x" * (8 << 20)
    asked = request("POST", f"{API}/invocation/a/response", body)

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(TOO_LARGE)
        if how == "closes":
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
        elif how == "resets":
            sock.close()
        else:
            read_exactly(sock, len(body))

    place.table.open(http1.parse_response_head(event_answer("a")[: http1.split_head(event_answer("a"))]))
    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(asked)
        assert read_to_end(sock) == TOO_LARGE
    assert place.idle()
    assert place.conditions() == [HANDLED_ERROR]
    assert place.failures[0].outcome is not None
    assert place.failures[0].outcome.error == b"{}"


# What is noted


def test_an_event_and_its_error_are_noted(place: Place) -> None:
    event = b'{"amount":1.00,"amount":2}'
    answer = event_answer("a", event)
    place.upstream.script = until_head_then(answer)
    with place.connect() as sock:
        sock.sendall(next_request())
        assert read_exactly(sock, len(answer)) == answer
        invocation = place.table._by_id["a"]  # there before the runtime can answer
        assert invocation.payload is not None
        assert (invocation.payload.raw(), invocation.payload.whole) == (event, True)
        place.upstream.script = until_head_then(ACCEPTED)
        error = b'{"errorType":"E","errorMessage":"boom"}'
        sock.sendall(request("POST", f"{API}/invocation/a/error", error, "Lambda-Runtime-Function-Error-Type: F.E"))
        assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
    assert place.idle()
    assert place.conditions() == [HANDLED_ERROR]
    outcome = place.failures[0].outcome
    assert outcome is not None
    assert (outcome.error, outcome.error_type) == (error, "F.E")


def opened(place: Place, request_id: str = "a") -> None:
    raw = event_answer(request_id)
    place.table.open(http1.parse_response_head(raw[: http1.split_head(raw)]))


@pytest.mark.parametrize(
    ("asked", "answer", "condition"),
    [
        pytest.param(request("POST", f"{API}/invocation/a/response", b"{}"), ACCEPTED, None, id="a response"),
        pytest.param(
            request("POST", f"{API}/invocation/a/response", b"", CHUNKED) + b"2\r\n{}\r\n0\r\n\r\n",
            ACCEPTED,
            None,
            id="a streamed response",
        ),
        pytest.param(
            request("POST", f"{API}/invocation/a/response", b"", CHUNKED)
            + b"2\r\n{}\r\n0\r\nLambda-Runtime-Function-Error-Type: F.E\r\nLambda-Runtime-Function-Error-Body: "
            + base64.b64encode(b'{"errorMessage":"broke"}')
            + b"\r\n\r\n",
            ACCEPTED,
            STREAM_ERROR,
            id="a stream that broke",
        ),
        pytest.param(request("POST", f"{API}/invocation/a/error", b"{}"), ACCEPTED, HANDLED_ERROR, id="an error"),
        pytest.param(request("POST", f"{API}/init/error", b"{}"), ACCEPTED, INIT_ERROR, id="an error at the start"),
        pytest.param(
            request("POST", f"{API}/invocation/a/response", b"{}"),
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
            HANDLED_ERROR,
            id="a response that is too large",
        ),
    ],
)
def test_how_an_invocation_ended_is_noted(asked: bytes, answer: bytes, condition: str | None, place: Place) -> None:
    opened(place)
    place.upstream.script = expecting(len(asked), answer, [])
    assert place.ask(asked, len(answer)) == answer
    assert place.idle()
    assert place.conditions() == ([] if condition is None else [condition])
    assert place.table._by_id["a"].ended is (condition != INIT_ERROR)
    if condition == STREAM_ERROR:
        outcome = place.failures[0].outcome
        assert outcome is not None
        assert (outcome.error_type, outcome.error) == ("F.E", b'{"errorMessage":"broke"}')


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request("POST", f"{API}/invocation/a/response", b"{}"), b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"),
        (request("POST", f"{API}/invocation/a/error", b"{}"), b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
        (request("POST", f"{API}/invocation/b/response", b"{}"), ACCEPTED),
        (request("GET", f"{API}/invocation/a/response"), ACCEPTED),
        (request("POST", f"{API}/init/error", b"{}"), b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_what_lambda_did_not_take_ended_nothing(asked: bytes, answer: bytes, place: Place) -> None:
    opened(place)
    place.upstream.script = expecting(len(asked), answer, [])
    assert place.ask(asked, len(answer)) == answer
    assert place.idle()
    assert place.failures == []
    assert not place.table._by_id["a"].ended


def test_an_answer_that_broke_off_is_no_outcome(place: Place) -> None:
    """The runtime died in the middle of its response; its end tells what that means."""
    opened(place)

    def serve(sock: socket.socket) -> None:
        read_to_end(sock)
        sock.sendall(ACCEPTED)

    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(request("POST", f"{API}/invocation/a/response", b"x" * 100)[:-50])
        until(lambda: place.upstream.connections == 1)
    assert place.idle()
    assert place.failures == []
    assert not place.table._by_id["a"].ended
    place.table.asked_next()
    place.table.runtime_exited()
    assert place.conditions() == [CRASH]


def test_an_answer_that_was_posted_whole_counts_though_its_runtime_is_gone(place: Place) -> None:
    opened(place)
    asked = request("POST", f"{API}/invocation/a/response", b"{}")
    gone = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_exactly(sock, len(asked))
        gone.wait(WAIT_S)
        sock.sendall(ACCEPTED)

    place.upstream.script = serve
    sock = place.connect()
    sock.sendall(asked)
    until(lambda: place.upstream.connections == 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()
    place.table.asked_next()
    exit_seen = threading.Thread(target=place.table.runtime_exited)
    exit_seen.start()
    gone.set()
    exit_seen.join(WAIT_S)
    assert place.idle()
    assert place.failures == []
    assert place.table._by_id["a"].ended


def test_the_event_of_a_runtime_that_died_receiving_it_is_marked_as_cut(place: Place) -> None:
    event = b"x" * (4 << 20)
    answer = event_answer("a", event)

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer[: len(answer) // 2])
        read_to_end(sock)

    place.upstream.script = serve
    with place.connect() as sock:
        sock.sendall(next_request())
        read_exactly(sock, 100_000)
    assert place.idle()
    payload = place.table._by_id["a"].payload
    assert payload is not None
    assert not payload.whole
    assert payload.seen < len(event)


def test_lambda_s_answer_is_passed_on_before_a_failure_is_filed(place: Place) -> None:
    opened(place)
    filing, go = threading.Event(), threading.Event()

    def slow(invocation: Invocation) -> None:
        filing.set()
        go.wait(WAIT_S)

    place.table.on_failure = slow
    asked = request("POST", f"{API}/invocation/a/error", b"{}")
    place.upstream.script = expecting(len(asked), ACCEPTED, [])
    with place.connect() as sock:
        sock.sendall(asked)
        assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
        assert filing.wait(WAIT_S)
        go.set()


@pytest.mark.parametrize(
    "call", ["asked_next", "open", "keep", "whole", "answer_begins", "posted", "end", "init_error"]
)
def test_a_fault_in_the_table_disturbs_no_forwarding(
    call: str, place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = 0

    def broken(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(place.table, call, broken)
    answer = event_answer("a", b"x" * 300_000)
    with place.connect() as sock:
        for _ in range(2):
            for asked, answered in (
                (next_request(), answer),
                (request("POST", f"{API}/invocation/a/error", b"y" * 300_000), ACCEPTED),
                (request("POST", f"{API}/init/error", b"{}"), ACCEPTED),
            ):
                seen: list[bytes] = []
                place.upstream.script = expecting(len(asked), answered, seen)
                sock.sendall(asked)
                assert read_exactly(sock, len(answered)) == answered
                comes(seen, [asked])
    assert place.idle()
    assert calls > 0
    assert capfd.readouterr().out.count("a bug of ours") >= 1


@pytest.mark.parametrize("call", ["keep", "whole", "posted"])
def test_a_fault_in_the_noting_ends_the_hold(call: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(place.table, call, broken)
    invocation = place.table.expect("a", 0, "arn")
    with place.connect() as sock:
        for asked, answered in (
            (next_request(), event_answer("a")),
            (request("POST", f"{API}/invocation/a/response", b"{}"), ACCEPTED),
        ):
            place.upstream.script = expecting(len(asked), answered, [])
            sock.sendall(asked)
            assert read_exactly(sock, len(answered)) == answered
    assert invocation.released.wait(WAIT_S)


# Many at once


def test_sixty_four_workers_at_once_get_their_own_events_and_outcomes(place: Place) -> None:
    count = 64
    all_waiting = threading.Barrier(count, timeout=WAIT_S)
    numbers = iter(range(count))
    lock = threading.Lock()

    def serve(sock: socket.socket) -> None:
        head = read_head(sock)
        if b"/invocation/next" in head:
            with lock:
                number = next(numbers)
            all_waiting.wait()
            event = f'{{"number":{number}}}'.encode() + b" " * number * 100
            sock.sendall(event_answer(f"id-{number}", event))
        else:
            sock.sendall(ACCEPTED)

    place.upstream.script = serve
    results: dict[str, bytes] = {}

    def work() -> None:
        with place.connect() as sock:
            sock.sendall(next_request())
            raw = b""
            while (end := http1.split_head(raw)) < 0:
                raw += sock.recv(65_536)
            head = http1.parse_response_head(raw[:end])
            size = int(head.get(b"content-length") or b"")
            event = raw[end:] + read_exactly(sock, size - (len(raw) - end))
            request_id = head.text(b"lambda-runtime-aws-request-id")
            assert request_id is not None
            results[request_id] = event
            kind = "error" if int(request_id[3:]) % 2 else "response"
            sock.sendall(request("POST", f"{API}/invocation/{request_id}/{kind}", request_id.encode()))
            assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert place.idle()
    assert len(results) == count
    assert sorted(one.request_id or "" for one in place.failures) == sorted(f"id-{n}" for n in range(1, count, 2))
    for invocation in place.failures:
        assert invocation.request_id is not None
        assert invocation.payload is not None
        assert invocation.payload.raw() == results[invocation.request_id]
        assert invocation.outcome is not None
        assert invocation.outcome.error == invocation.request_id.encode()
    assert place.table.counters["succeeded"] == count // 2


# Size and memory

CHILD = """
import _thread, sys, time
from extension import net
from extension.inflight import Table
from extension.proxy import Proxy
table = Table(4 << 20, 20, keep_payloads=True, concurrent=True)
listener, port = net.listen("127.0.0.1", 0)
proxy = Proxy(listener, ("127.0.0.1", int(sys.argv[1])), table, lambda: None, lambda: True)
_thread.start_new_thread(proxy.serve, ())
print(port, flush=True)
sys.stdin.read()
"""


def peak_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


@pytest.fixture
def apart(request: pytest.FixtureRequest) -> Iterator[tuple[Lambda, int, int]]:
    """A proxy in a process of its own, whose memory can be measured: its Lambda, its port, its pid."""
    with Lambda() as upstream:
        child = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{CHILD}",
                str(upstream.port),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdin is not None
        yield upstream, int(child.stdout.readline()), child.pid
        child.stdin.close()
        child.stdout.close()
        assert child.wait(WAIT_S) == 0


def test_six_megabytes_pass_both_ways_unchanged(place: Place) -> None:
    event, response = os.urandom(6 << 20), os.urandom(6 << 20)
    answer = event_answer("a", event)
    place.upstream.script = until_head_then(answer)
    assert place.ask(next_request(), len(answer)) == answer
    asked = request("POST", f"{API}/invocation/a/response", response)
    seen: list[bytes] = []
    place.upstream.script = expecting(len(asked), ACCEPTED, seen)
    assert place.ask(asked, len(ACCEPTED)) == ACCEPTED
    assert place.idle()
    comes(seen, [asked])


STREAMS = [pytest.param(20, id="20 MB"), pytest.param(200, id="200 MB", marks=pytest.mark.all)]


@pytest.mark.parametrize("megabytes", STREAMS)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_stream_passes_in_bounded_memory(direction: str, megabytes: int, apart: tuple[Lambda, int, int]) -> None:
    upstream, port, pid = apart
    piece = os.urandom(1 << 20)
    framed = b"100000\r\n" + piece + b"\r\n"
    end = b"0\r\n\r\n"
    received: list[bool] = []

    def check(sock: socket.socket) -> None:
        received.extend(read_exactly(sock, len(framed)) == framed for _ in range(megabytes))
        received.append(read_exactly(sock, len(end)) == end)

    head = request("POST", f"{API}/invocation/a/response", b"", CHUNKED)
    answer = b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    def serve(sock: socket.socket) -> None:
        if direction == "up":
            read_exactly(sock, len(head))
            check(sock)
            sock.sendall(ACCEPTED)
        else:
            read_head(sock)
            sock.sendall(answer)
            for _ in range(megabytes):
                sock.sendall(framed)
            sock.sendall(end)

    upstream.script = serve
    before = peak_kb(pid)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        if direction == "up":
            sock.sendall(head)
            for _ in range(megabytes):
                sock.sendall(framed)
            sock.sendall(end)
            assert read_exactly(sock, len(ACCEPTED)) == ACCEPTED
        else:
            sock.sendall(next_request())
            assert read_exactly(sock, len(answer)) == answer
            check(sock)
    assert received == [True] * (megabytes + 1)
    kept_kb = 4 << 10 if direction == "down" else 0  # MEMORY_BYTES of the event
    assert peak_kb(pid) - before < kept_kb + 6_000


def test_a_slow_reader_makes_the_sender_wait_not_the_memory_grow(apart: tuple[Lambda, int, int]) -> None:
    upstream, port, pid = apart
    head = request("POST", f"{API}/invocation/a/response", b"x" * (64 << 20))
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        go.wait(WAIT_S)
        read_exactly(sock, len(head))
        sock.sendall(ACCEPTED)

    upstream.script = serve
    before = peak_kb(pid)
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as sock:
        with pytest.raises(TimeoutError):
            sock.sendall(head)
        assert peak_kb(pid) - before < 6_000
    go.set()
