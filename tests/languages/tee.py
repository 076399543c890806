"""A TCP relay that keeps what passes: every connection's bytes, both ways, as they came."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Recorded:
    """One connection: what the client sent, what it got, and when each piece of its requests came (of all the tee's, which one)."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.got = bytearray()
        # (how much had been sent before it, its number among all pieces of all connections)
        self.pieces: list[tuple[int, int]] = []


class Tee:
    """Listens on a port of its own and relays to the port that `upstream` gives at each connection."""

    def __init__(self, upstream: Callable[[], int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._recording = True
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Recorded] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sock in [self._listener, *self._open]:
            # A thread may sit in accept() or recv(): shutdown wakes it, close alone does not.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def freeze(self) -> None:
        """From now on nothing is recorded: when an environment ends, a client may try its last call again."""
        with self._lock:
            self._recording = False

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream()))
            except OSError:
                return
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(sock)
            recorded = Recorded()
            with self._lock:
                if self._recording:
                    self.connections.append(recorded)
            threading.Thread(target=self._pump, args=(client, server, recorded, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, recorded, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, recorded: Recorded, requests: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    if not self._recording:
                        pass
                    elif requests:
                        recorded.pieces.append((len(recorded.sent), next(self._numbers)))
                        recorded.sent += data
                    else:
                        recorded.got += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
