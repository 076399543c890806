"""The server's strictness, byte by byte: a 4xx or a closed connection, never a crash, never a second request smuggled in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.answers import Answer
from sandbox.http import Request, Server
from tests.sandbox.corpus import MALFORMED, OK, SMUGGLED, SMUGGLING


class Recorder:
    """A server that keeps every request that it understood, and echoes its body."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.faults: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.faults.append(str(context)))
        self.server = Server(self._handle)
        self.loop.run_until_complete(self.server.start("127.0.0.1"))

    async def _handle(self, request: Request) -> Answer:
        body = await request.body.read(100_000)
        self.requests.append((request.method, request.path, body))
        return Answer(200, body)

    def exchange(self, *pieces: bytes) -> bytes:
        """Send the pieces, one write each, then end the sending side; returns all that came back."""
        return self.loop.run_until_complete(self._exchange(pieces))

    async def _exchange(self, pieces: tuple[bytes, ...]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        received = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            # The answers to whole requests come before the end is told: a half-closed client counts as gone.
            while True:
                try:
                    async with asyncio.timeout(0.05):
                        part = await reader.read(65_536)
                except TimeoutError:
                    if not writer.can_write_eof() or writer.transport.is_closing():
                        break
                    writer.write_eof()
                    part = await reader.read(65_536)
                if not part:
                    break
                received += part
        except ConnectionError:
            pass
        finally:
            writer.close()
        return received

    def close(self) -> None:
        self.loop.run_until_complete(self.server.close())
        self.loop.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()
    assert recorder.faults == []


@pytest.fixture
def recorder(shared: Recorder) -> Recorder:
    shared.requests.clear()
    return shared


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_are_refused(recorder: Recorder, case: str) -> None:
    answer = recorder.exchange(MALFORMED[case])
    assert recorder.requests == []
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    # At most one answer: nothing behind the malformed part was taken for a request.
    assert answer.count(b"HTTP/1.1 ") <= 1


def test_targets(recorder: Recorder) -> None:
    assert recorder.exchange(b"GET a HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    # The absolute form is for every server to take.
    recorder.exchange(b"GET http://x/a%20b?c HTTP/1.1\r\nHost: x\r\n\r\n")
    assert recorder.requests == [("GET", "/a b", b"")]


@pytest.mark.parametrize("case", SMUGGLING)
def test_no_request_is_smuggled_in(recorder: Recorder, case: str) -> None:
    recorder.exchange(SMUGGLING[case])
    assert SMUGGLED not in [path for _, path, _ in recorder.requests]


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\na\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Content-Le",
    ],
)
def test_a_client_that_goes_away_in_the_middle(recorder: Recorder, sent: bytes) -> None:
    answer = recorder.exchange(sent)
    assert recorder.requests == []
    assert not answer.startswith(b"HTTP/1.1 2")


def test_a_request_that_trickles_in(recorder: Recorder) -> None:
    whole = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"
    answer = recorder.exchange(*(whole[at : at + 1] for at in range(len(whole))))
    assert recorder.requests == [("POST", "/a", b"abc")]
    assert answer.endswith(b"\r\n\r\nabc")


def test_pipelined_requests_are_answered_in_order(recorder: Recorder) -> None:
    answer = recorder.exchange(b"".join(OK + b"Content-Length: 1\r\n\r\n%d" % number for number in range(5)))
    assert [body for _, _, body in recorder.requests] == [b"0", b"1", b"2", b"3", b"4"]
    assert answer.count(b"HTTP/1.1 200") == 5


def test_expect_100_continue(recorder: Recorder) -> None:
    async def expect() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", recorder.server.port)
        writer.write(OK + b"Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        interim = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"abc")
        final = await reader.read()
        writer.close()
        return interim + final

    answer = recorder.loop.run_until_complete(expect())
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"\r\n\r\nabc")
    assert recorder.requests == [("POST", "/a", b"abc")]


def test_too_long_a_body_is_refused(recorder: Recorder) -> None:
    answer = recorder.exchange(OK + b"Content-Length: 100001\r\n\r\n" + b"x" * 100_001)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_slow_head_times_out(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.http._HEAD_LIMIT_S", 0.02)

    async def trickle() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", recorder.server.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        received = await reader.read()
        writer.close()
        return received

    assert recorder.loop.run_until_complete(trickle()).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_hangs_up_cancels_its_handler() -> None:
    cancelled = asyncio.Event()

    async def wait_for_ever(request: Request) -> Answer:
        del request
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("unreachable")

    async def run() -> None:
        server = Server(wait_for_ever)
        await server.start("127.0.0.1")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await cancelled.wait()
        await server.close()

    asyncio.run(run())


def oracle(data: bytes) -> tuple[list[tuple[str, bytes]], bool]:
    """What h11 makes of the bytes: the requests it understood, and whether all of them were well formed."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    found: list[tuple[str, bytes]] = []
    body = b""
    method = ""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method.decode(), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, body))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found, True
                connection.start_next_cycle()
            else:
                return found, True
    except h11.RemoteProtocolError:
        return found, False


TOKENS = st.sampled_from(
    [
        b"GET",
        b"POST",
        b" ",
        b"/",
        b"/a",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: x",
        b"Content-Length: ",
    ]
    + [b"Transfer-Encoding: chunked", b"Connection: close", b"Expect: 100-continue", b"0", b"3", b"5", b"abc", b"abcde"]
    + [b":", b"\x00", b"\xff", b"A: b", b"0\r\n\r\n", b"3\r\nabc\r\n", b"\r\n\r\n"]
)
WELL_FORMED = st.builds(
    lambda method, body, chunked: (
        method
        + b" /a HTTP/1.1\r\nHost: x\r\n"
        + (
            b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"%x\r\n%s\r\n" % (len(body), body) if body else b"")
            + b"0\r\n\r\n"
            if chunked
            else b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
    ),
    st.sampled_from([b"GET", b"POST", b"PUT"]),
    st.binary(max_size=40),
    st.booleans(),
)


@given(st.lists(st.one_of(WELL_FORMED, TOKENS), max_size=12).map(b"".join))
def test_nothing_is_understood_that_h11_would_not(shared: Recorder, data: bytes) -> None:
    """What the server took for requests is what h11 takes for them, or, where the server is stricter, the first ones of those."""
    shared.requests.clear()
    shared.exchange(data)
    seen = [(method, body) for method, _, body in shared.requests]
    known, _ = oracle(data)
    assert seen == known[: len(seen)]


@given(st.lists(WELL_FORMED, min_size=1, max_size=4))
def test_whatever_is_well_formed_is_served(shared: Recorder, requests: list[bytes]) -> None:
    shared.requests.clear()
    answer = shared.exchange(b"".join(requests))
    assert len(shared.requests) == len(requests)
    assert answer.count(b"HTTP/1.1 200") == len(requests)
