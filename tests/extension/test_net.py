"""Sockets with deadlines: no peer, name server or address makes a call last longer than it may."""

from __future__ import annotations

import _socket
import _thread
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import net

SOON_S = 0.15
"""A deadline that passes, and how long it may take to be noticed."""
NOTICED_S = 2.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def pair() -> Iterator[tuple[net.Socket, socket.socket]]:
    """Two ends of a TCP connection: ours, and a peer that does nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = net.connect("127.0.0.1", server.getsockname()[1], time.monotonic() + 5)
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs
        ours.close()


def in_time(started: float) -> bool:
    return time.monotonic() - started < NOTICED_S


# Deadlines


@pytest.mark.parametrize("ago", [0.0, 5.0])
def test_a_deadline_that_has_passed_is_a_timeout_at_once(listener: socket.socket, ago: float) -> None:
    past = time.monotonic() - ago
    with pytest.raises(TimeoutError):
        net.left(past)
    with pytest.raises(TimeoutError):
        net.connect("127.0.0.1", listener.getsockname()[1], past)


def test_no_deadline_is_no_limit() -> None:
    assert net.left(None) is None
    left = net.left(time.monotonic() + 60)
    assert left is not None
    assert 59 < left <= 60


def test_connecting_to_a_peer_that_never_accepts_ends_at_the_deadline() -> None:
    """A full backlog drops the connection's first packet, as a host that is not there does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(address)
            waiting.append(sock)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            net.connect("127.0.0.1", address[1], started + SOON_S)
        assert in_time(started)
        for sock in waiting:
            sock.close()


def test_receiving_from_a_silent_peer_ends_at_the_deadline(pair: tuple[net.Socket, socket.socket]) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        net.recv(pair[0], 10, started + SOON_S)
    assert in_time(started)


def test_sending_to_a_peer_that_does_not_read_ends_at_the_deadline(pair: tuple[net.Socket, socket.socket]) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        net.send_all(pair[0], b"x" * (64 << 20), started + SOON_S)
    assert in_time(started)


def test_a_peer_that_reads_a_little_now_and_then_does_not_stretch_the_deadline(
    pair: tuple[net.Socket, socket.socket],
) -> None:
    stop = threading.Event()

    def sip() -> None:
        while not stop.wait(0.01):
            pair[1].recv(1 << 16)

    reader = threading.Thread(target=sip)
    reader.start()
    started = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            net.send_all(pair[0], b"x" * (256 << 20), started + 2 * SOON_S)
        assert in_time(started)
    finally:
        stop.set()
        pair[0].close()  # the reader may wait for more
        reader.join()


def test_a_socket_waits_for_ever_again_after_a_call_with_a_deadline(pair: tuple[net.Socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        net.recv(pair[0], 10, time.monotonic() + 0.01)
    pair[1].sendall(b"late")
    assert net.recv(pair[0], 10, None) == b"late"
    assert pair[0].gettimeout() is None


def test_bytes_arrive_whole_and_the_end_of_the_stream_is_empty(pair: tuple[net.Socket, socket.socket]) -> None:
    net.send_all(pair[0], memoryview(b"one two"), time.monotonic() + 5)
    assert pair[1].recv(100) == b"one two"
    pair[1].close()
    assert net.recv(pair[0], 10, time.monotonic() + 5) == b""


def test_a_refused_connection_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(ConnectionRefusedError):
        net.connect("127.0.0.1", address[1], time.monotonic() + 5)


# Sockets as they should be


def test_connections_are_prompt_and_not_inherited(listener: socket.socket) -> None:
    ours = net.connect("127.0.0.1", listener.getsockname()[1], None)
    accepted, _ = listener.accept()
    with accepted:
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not os.get_inheritable(ours.fileno())
        assert ours.gettimeout() is None
    ours.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_listening_takes_a_free_port_and_serves_it(host: str) -> None:
    server, port = net.listen(host, 0)
    assert port > 0
    client = net.connect(host, port, time.monotonic() + 5)
    served = net.accept(server)
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not os.get_inheritable(served.fileno())
    assert served.gettimeout() is None
    net.send_all(client, b"hello", None)
    assert net.recv(served, 10, time.monotonic() + 5) == b"hello"
    for sock in (client, served, server):
        sock.close()


def test_a_port_that_is_taken_is_an_os_error_and_leaves_no_socket_open(listener: socket.socket) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="in use") as caught:
        net.listen("127.0.0.1", listener.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE
    del caught
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_port_is_free_again_at_once_for_the_next_life() -> None:
    """Connections of the last life linger in TIME_WAIT; the port must be there for the new one."""
    server, port = net.listen("127.0.0.1", 0)
    client = net.connect("127.0.0.1", port, None)
    served = net.accept(server)
    served.close()
    client.close()
    server.close()
    again, same = net.listen("127.0.0.1", port)
    assert same == port
    again.close()


# Names


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("127.0.0.1", socket.AF_INET),
        ("0.0.0.0", socket.AF_INET),
        ("::1", socket.AF_INET6),
        ("2001:db8::9", socket.AF_INET6),
    ],
)
def test_a_literal_needs_no_look_up(host: str, family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_socket, "getaddrinfo", None)
    assert net.resolve(host, 80, 0.0) == [(family, (host, 80))]
    assert net.literal(host, 80) == (family, (host, 80))


@pytest.mark.parametrize("name", ["localhost", "127.1", "1.2.3", "::g", "", "127.0.0.1 ", "[::1]"])
def test_what_is_no_literal(name: str) -> None:
    assert net.literal(name, 80) is None


def test_a_name_is_looked_up() -> None:
    family, address = net.resolve("localhost", 80, 5.0)[0]
    assert family in (socket.AF_INET, socket.AF_INET6)
    assert address[0] in ("127.0.0.1", "::1")
    assert address[1] == 80


def test_a_host_whose_first_addresses_take_no_connection_is_reached_at_its_last(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener.getsockname()[1]
    with socket.create_server(("127.0.0.2", 0), backlog=0) as silent:
        at = silent.getsockname()
        crowd = [socket.socket() for _ in range(4)]
        for sock in crowd:  # fills the queue: one more connection waits without an answer
            sock.setblocking(False)
            sock.connect_ex(at)
        refused = (socket.AF_INET, ("127.0.0.3", 1))
        found = [refused, (socket.AF_INET, at), (socket.AF_INET, ("127.0.0.1", port))]
        monkeypatch.setattr(net, "resolve", lambda *_: found)
        started = time.monotonic()
        sock_there = net.connect("sqs.example", 443, started + 1.0)
        assert in_time(started)
        assert sock_there.getpeername() == ("127.0.0.1", port)
        sock_there.close()
        for sock in crowd:
            sock.close()


def test_a_connection_to_the_first_of_several_addresses_has_no_limit_of_its_own(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy waits on it for the next event, for hours."""
    there = (socket.AF_INET, listener.getsockname())
    monkeypatch.setattr(net, "resolve", lambda *_: [there, there])
    sock = net.connect("upstream.example", 9001, None)
    assert sock.gettimeout() is None
    sock.close()


def test_a_look_up_that_hangs_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(_socket, "getaddrinfo", lambda *_: [answer.wait()][:0])
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"sqs\.example"):
        net.resolve("sqs.example", 443, SOON_S)
    with pytest.raises(TimeoutError):
        net.connect("sqs.example", 443, time.monotonic() + SOON_S)
    assert in_time(started)
    answer.set()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(OSError(-2, "Name or service not known"), OSError, id="unknown"),
        pytest.param([], OSError, id="no address"),
    ],
)
def test_a_look_up_that_fails_is_an_os_error(
    answer: Exception | list[object], expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: object) -> list[object]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(_socket, "getaddrinfo", look_up)
    with pytest.raises(expected):
        net.resolve("sqs.example", 443, 5.0)


@pytest.mark.parametrize("name", ["bücher.example", "a" * 64 + ".example", "a\0b", "\udcff", "a..b", ".", " "])
def test_a_name_that_is_none_is_an_os_error(name: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - which one is the C library's business
        net.resolve(name, 443, 5.0)


def test_without_a_thread_for_the_look_up_it_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(OSError, match="thread"):
        net.resolve("localhost", 443, 5.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9001", ("127.0.0.1", 9001)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65_535)),
    ],
)
def test_an_address_is_split(text: str, expected: tuple[str, int]) -> None:
    assert net.split_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:+1", "a:1_0", "a:٣", "a: 1", "[]:1"]
)
def test_what_is_no_address_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        net.split_address(text)


@given(text=st.text(max_size=20) | st.from_regex(r"\A[a-z:\[\]]{0,6}:[0-9]{0,7}\Z"))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = net.split_address(text)
    except ValueError:
        return
    assert host
    assert 0 < port < 65_536
