"""A TCP relay that stands between the sidecar and its queue, so that a test can take the queue away and give it back."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Switch:
    """Relays a port of its own to another one. `refuse()` closes the port, `hang()` takes connections and says nothing."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._open: list[socket.socket] = []
        self._hanging = False
        self._listener: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.refuse()

    def refuse(self) -> None:
        """From now on connections are refused; those that are open end."""
        listener, self._listener = self._listener, None
        for sock in [listener, *self._open]:
            if sock is not None:
                # A thread may sit in accept() or recv(): shutdown wakes it, close alone does not.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._open.clear()

    def hang(self) -> None:
        """From now on connections are taken, and nothing is ever answered."""
        self._hanging = True
        self._listen()

    def pass_on(self) -> None:
        """From now on the queue is there."""
        self._hanging = False
        self._listen()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._open.append(client)
            if self._hanging:
                continue
            upstream = socket.create_connection(("127.0.0.1", self._upstream_port))
            self._open.append(upstream)
            for source, target in ((client, upstream), (upstream, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
