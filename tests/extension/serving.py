"""Runs one of the sidecar's servers in a test. They serve for ever; here a last connection ends them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from unittest import mock

from extension import net

WAIT_S = 10.0


@contextlib.contextmanager
def serving(serve: Callable[[], None], listener: net.Socket, port: int) -> Iterator[None]:
    """Run `serve`, which accepts on `listener`, in a thread until the context ends."""
    accept = net.accept
    ended = threading.Event()

    def accept_or_end(of: net.Socket) -> net.Socket:
        sock = accept(of)
        if of is listener and ended.is_set():
            sock.close()
            raise SystemExit
        return sock

    def run() -> None:
        with contextlib.suppress(SystemExit):
            serve()

    with mock.patch.object(net, "accept", accept_or_end):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        ended.set()
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
        thread.join(WAIT_S)
        assert not thread.is_alive()
    listener.close()


def connect(port: int) -> socket.socket:
    """Connect to a port of 127.0.0.1, without Nagle's delay and with a time limit."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread of this process, which sets no event, is about to do."""
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes, or fewer where the stream ends before."""
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(1 << 20, size - len(data)))
        if not part:
            break
        data += part
    return bytes(data)


def read_to_end(sock: socket.socket) -> bytes:
    """Read until the stream ends."""
    data = bytearray()
    while part := sock.recv(1 << 20):
        data += part
    return bytes(data)
