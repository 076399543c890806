"""The telemetry listener on real sockets: every whole batch is taken and answered 200, and nothing else does harm."""

from __future__ import annotations

import _thread
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from extension import net, say
from extension.telemetry import listener as listening
from extension.telemetry.listener import Listener, sandbox_address
from tests.extension.serving import WAIT_S, connect, read_exactly, read_to_end, serving, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: sandbox.localdomain:9010", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Taken:
    """A listener, and the batches that it handed on."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        sock, self.port = net.listen("127.0.0.1", 0)
        self.listener = Listener(sock, self.take)
        self.sock = sock

    def take(self, batch: bytes) -> None:
        if batch == b"raise":
            raise RuntimeError("a bug of ours")
        self.batches.append(batch)

    def ask(self, raw: bytes) -> bytes:
        """Send a request on a connection of its own, and read to the end of the answer or of the stream."""
        with connect(self.port) as sock:
            sock.sendall(raw)
            return read_exactly(sock, len(OK)) if raw.startswith(b"POST") else read_to_end(sock)


@pytest.fixture
def taken() -> Iterator[Taken]:
    say.forget()
    made = Taken()
    with serving(made.listener.serve, made.sock, made.port):
        yield made
        until(lambda: made.listener._open == 0)


def test_a_batch_is_handed_on_as_it_came_and_answered(taken: Taken) -> None:
    batch = json.dumps([{"time": "t", "type": "function", "record": "é\n"}]).encode()
    assert taken.ask(post(batch)) == OK
    assert taken.batches == [batch]


def test_batches_follow_on_one_connection(taken: Taken) -> None:
    with connect(taken.port) as sock:
        for number in range(5):
            sock.sendall(post(b"%d" % number))
            assert read_exactly(sock, len(OK)) == OK
        sock.sendall(post(b"5") + post(b"6"))  # pipelined
        assert read_exactly(sock, 2 * len(OK)) == OK * 2
    assert taken.batches == [b"%d" % number for number in range(7)]


def test_a_chunked_batch_is_put_together(taken: Taken) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    assert taken.ask(raw) == OK
    assert taken.batches == [b"[1,2]"]


def test_a_batch_may_come_byte_by_byte(taken: Taken) -> None:
    raw = post(b"[1,2,3]")
    with connect(taken.port) as sock:
        for index in range(len(raw)):
            sock.sendall(raw[index : index + 1])
        assert read_exactly(sock, len(OK)) == OK
    assert taken.batches == [b"[1,2,3]"]


@pytest.mark.parametrize("body", [b"", b"not JSON", b"\xff\x00", b"{", b"null", b"[[[[", b"raise"])
def test_junk_is_answered_200_too(body: bytes, taken: Taken) -> None:
    """A retry would bring the same bytes again."""
    assert taken.ask(post(body)) == OK
    assert taken.ask(post(b"[]")) == OK
    assert taken.batches[-1] == b"[]"


def test_a_fault_in_reading_a_batch_is_counted_and_said(taken: Taken, capfd: pytest.CaptureFixture[str]) -> None:
    taken.ask(post(b"raise"))
    until(lambda: taken.listener.counters["faults"] == 1)
    assert "a bug of ours" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n\r\n", 400),
        (b"PUT / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ],
)
def test_a_malformed_request_is_refused_and_the_next_one_served(raw: bytes, status: int, taken: Taken) -> None:
    with connect(taken.port) as sock:
        sock.sendall(raw)
        assert read_to_end(sock).startswith(f"HTTP/1.1 {status} ".encode())
    assert taken.listener.counters["malformed"] == 1
    assert taken.ask(post(b"[]")) == OK


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_huge_batch_is_refused_and_not_kept(framing: str, taken: Taken) -> None:
    size = listening._MAX_BATCH + 1
    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    if framing == "length":
        raw = head + b"Content-Length: %d\r\n\r\n" % (1 << 40) + b"x" * size
    else:
        raw = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (1 << 30) + b"x" * size
    with connect(taken.port) as sock:
        sock.sendall(raw)
        assert read_to_end(sock).startswith(b"HTTP/1.1 413 ")
    assert taken.batches == []


def test_the_largest_batch_that_may_come_is_taken(taken: Taken) -> None:
    """Twice maxBytes and the metadata."""
    batch = b"[" + b" " * (2 * 1_048_576 + 65_536) + b"]"
    assert taken.ask(post(batch)) == OK
    assert taken.batches == [batch]


@pytest.mark.parametrize("part", [b"", b"POST / HTTP/1.1\r\nHo", post(b"[1,2,3]")[:-2]])
def test_a_client_that_goes_away_is_borne(part: bytes, taken: Taken) -> None:
    with connect(taken.port) as sock:
        sock.sendall(part)
    until(lambda: taken.listener._open == 0)
    assert taken.batches == []
    assert taken.ask(post(b"[]")) == OK


@pytest.mark.parametrize("part", [b"POST / HTTP/1.1\r\nHo", post(b"[1,2,3]")[:-2]])
def test_a_request_that_stops_half_way_is_given_up(part: bytes, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_LIMIT_S", 0.1)
    with connect(taken.port) as sock:
        sock.sendall(part)
        assert read_to_end(sock) == b""
    assert taken.batches == []


def test_a_connection_without_a_request_may_wait(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_LIMIT_S", 0.05)
    with connect(taken.port) as sock:
        for _ in range(2):
            sock.settimeout(0.15)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(WAIT_S)
            sock.sendall(post(b"[]"))
            assert read_exactly(sock, len(OK)) == OK


def test_connections_are_bounded(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_MAX_CONNECTIONS", 2)
    with connect(taken.port), connect(taken.port):
        until(lambda: taken.listener._open == 2)
        with connect(taken.port) as third:
            try:
                assert read_to_end(third) == b""
            except ConnectionResetError:
                pass
    until(lambda: taken.listener._open == 0)
    assert taken.ask(post(b"[]")) == OK


def test_where_no_thread_can_be_had_nothing_leaks(
    taken: Taken, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        for _ in range(3):
            with connect(taken.port) as sock:
                assert read_to_end(sock) == b""
    until(lambda: taken.listener._open == 0)
    assert len(os.listdir("/proc/self/fd")) == before
    assert "can't start new thread" in capfd.readouterr().out
    assert taken.ask(post(b"[]")) == OK


@given(raw=st.binary(max_size=200), tail=st.sampled_from([b"", b"\r\n\r\n"]))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_borne(raw: bytes, tail: bytes, taken: Taken) -> None:
    with connect(taken.port) as sock:
        sock.sendall(raw + tail)
        sock.shutdown(socket.SHUT_WR)
        try:
            read_to_end(sock)
        except ConnectionResetError:
            pass
    assert taken.listener.counters["faults"] == 0


def test_many_deliveries_at_once_are_all_taken(taken: Taken) -> None:
    def deliver(number: int) -> None:
        assert taken.ask(post(b"%d" % number + b" " * 100_000)) == OK

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(int(batch) for batch in taken.batches) == list(range(16))


# Where Lambda delivers


@pytest.mark.parametrize(
    ("hosts", "address"),
    [
        (b"127.0.0.1 localhost\n169.254.100.5 sandbox.localdomain sandbox\n", "169.254.100.5"),
        (b"169.254.100.5\tsandbox\tsandbox.localdomain\n", "169.254.100.5"),
        (b"169.254.100.5 a # sandbox.localdomain\n", "127.0.0.1"),
        (b"# 1.2.3.4 sandbox.localdomain\n", "127.0.0.1"),
        (b"1.2.3.4 sandbox.localdomain.example\n", "127.0.0.1"),
        (b"\xff\xfe sandbox.localdomain\n", "127.0.0.1"),
        (b"", "127.0.0.1"),
    ],
)
def test_the_address_in_the_hosts_file(
    hosts: bytes, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> tuple[int, object]:
        raise OSError("unknown")

    monkeypatch.setattr(net, "resolve", unknown)
    file = tmp_path / "hosts"
    file.write_bytes(hosts)
    assert sandbox_address(str(file)) == address


def test_without_a_hosts_file_the_name_is_looked_up_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def resolve(host: str, port: int, timeout_s: float) -> list[tuple[int, tuple[str, int]]]:
        assert host == "sandbox.localdomain"
        asked.append(timeout_s)
        return [(socket.AF_INET, ("169.254.100.5", port))]

    monkeypatch.setattr(net, "resolve", resolve)
    assert sandbox_address(str(tmp_path / "missing")) == "127.0.0.1"
    (tmp_path / "hosts").write_bytes(b"127.0.0.1 localhost\n")
    assert sandbox_address(str(tmp_path / "hosts")) == "169.254.100.5"
    assert asked == [pytest.approx(0.02, abs=0.1)]
