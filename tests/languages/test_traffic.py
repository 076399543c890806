"""The tools of the transparency test: messages are cut where they end, order is kept, and only what is named is left out."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.languages.tee import Recorded, Tee
from tests.languages.traffic import BY_NATURE, Exchange, cut, exchanges, is_whole, without_nature

NEXT = b"GET /next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n"
POST = b"POST /response HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n3;x=y\r\n0\r\n\r\n0\r\n\r\n"
TRAILERS = b"POST /r HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nFailed: yes\r\n\r\n"


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="nothing"),
        pytest.param([NEXT, POST, NEXT], id="with a length, and with no body"),
        pytest.param([CHUNKED, CHUNKED, POST], id="chunks that hold empty lines and zeros"),
        pytest.param([TRAILERS, NEXT], id="trailers"),
        pytest.param([NEXT, POST[:-1]], id="cut off in a body"),
        pytest.param([NEXT, CHUNKED[:-3]], id="cut off between chunks"),
        pytest.param([NEXT, CHUNKED[:60]], id="cut off in a chunk"),
        pytest.param([NEXT, POST[:20]], id="cut off in a head"),
    ],
)
def test_messages_are_cut_where_they_end(messages: list[bytes]) -> None:
    stream = b"".join(messages)
    assert cut(stream) == messages
    assert is_whole(stream) == (not messages or messages[-1] in (NEXT, POST, CHUNKED, TRAILERS))


def test_exchanges_of_several_connections_are_in_the_order_of_their_requests() -> None:
    first, second = Recorded(), Recorded()
    first.sent += NEXT + POST
    first.pieces = [(0, 0), (len(NEXT), 2)]
    first.got += b"HTTP/1.1 202 A\r\n\r\n" + b"HTTP/1.1 202 C\r\n\r\n"
    second.sent += POST + NEXT
    second.pieces = [(0, 1), (len(POST) - 1, 3), (len(POST), 4)]
    second.got += b"HTTP/1.1 202 B\r\n\r\n"

    assert exchanges([first, second]) == [
        Exchange(NEXT, b"HTTP/1.1 202 A\r\n\r\n"),
        Exchange(POST, b"HTTP/1.1 202 B\r\n\r\n"),
        Exchange(POST, b"HTTP/1.1 202 C\r\n\r\n"),
        Exchange(NEXT, b""),
    ]


def test_only_what_is_named_is_left_out() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: %s\r\nDate: Tue, 24 Nov 2026 19:00:00 GMT\r\n"
        b"Lambda-Runtime-Deadline-Ms: %d\r\nLambda-Runtime-Trace-Id: Root=1-%d\r\nContent-Length: 4\r\n\r\nbody"
    )
    request = b"POST /invocation/%s/error HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
    one, other = b"8d2a7f2e-0d6f-4b3a-9e54-0f1a2b3c4d5e", b"ffffffff-0000-4b3a-9e54-0f1a2b3c4d5e"

    assert without_nature(answer % (one, 1, 2)) == without_nature(answer % (other, 30, 40))
    assert without_nature(request % (one, 9001)) == without_nature(request % (other, 40000))
    told = answer % (one, 1, 2)
    for was, changed in (
        (b"200 OK", b"200 Ok"),
        (b"Content-Length", b"content-length"),
        (b"body", b"bodY"),
        (b"1-2", b"1-2\r\nX: y"),
    ):
        assert without_nature(told) != without_nature(told.replace(was, changed))
    assert len({rule.what for rule in BY_NATURE}) == len(BY_NATURE)


def test_a_tee_keeps_what_passes_both_ways_until_it_is_frozen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def shout() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(1000):
                    connection.sendall(data.upper())

        threading.Thread(target=shout, daemon=True).start()
        with Tee(lambda: int(server.getsockname()[1])) as tee:
            with socket.create_connection(("127.0.0.1", tee.port)) as client:
                client.sendall(b"heard")
                assert client.recv(1000) == b"HEARD"
                tee.freeze()
                client.sendall(b"not kept")
                assert client.recv(1000) == b"NOT KEPT"
            (recorded,) = tee.connections
            assert (bytes(recorded.sent), bytes(recorded.got)) == (b"heard", b"HEARD")
