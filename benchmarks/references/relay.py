"""A plain TCP relay in Python: the least that any proxy in Python costs. Run as `python relay.py UPSTREAM_PORT`;
prints its own port.
"""

from __future__ import annotations

import socket
import sys
import threading

PIECE = 65_536


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(PIECE):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client: socket.socket, upstream_port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", upstream_port)) as upstream:
        for sock in (client, upstream):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upward = threading.Thread(target=pump, args=(client, upstream))
        upward.start()
        pump(upstream, client)
        upward.join()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, int(sys.argv[1])), daemon=True).start()


if __name__ == "__main__":
    main()
