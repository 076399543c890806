"""A TCP relay that answers late: for a queue that works, slowly."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self


class Slow:
    """Relays a port of its own to `upstream_port`; what comes back from there is passed on `delay_s` seconds late."""

    def __init__(self, upstream_port: int, delay_s: float) -> None:
        self._upstream_port = upstream_port
        self._delay_s = delay_s
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sock in [self._listener, *self._open]:
            # A thread may sit in accept() or recv(): shutdown wakes it, close alone does not.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self._upstream_port))
            self._open += [client, upstream]
            threading.Thread(target=_pump, args=(client, upstream, 0.0), daemon=True).start()
            threading.Thread(target=_pump, args=(upstream, client, self._delay_s), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            # A pause, not a wait for something: the relay's whole purpose.
            time.sleep(delay_s)
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
