"""The HTTP listener that Lambda delivers telemetry to (AWS, "Lambda Telemetry API reference").

Every whole request is answered 200, even where its content is no use: a retry would bring the same bytes again.
"""

from __future__ import annotations

import _thread
import select
import time

from extension import http1, net, say
from extension.http1 import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from extension.net import Socket

_MAX_BATCH = 4_194_304  # twice the largest maxBytes, and room for the metadata
_MAX_CONNECTIONS = 32
_REQUEST_LIMIT_S = 10.0
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_HOSTS = "/etc/hosts"
SANDBOX_HOST = "sandbox.localdomain"
_LOOK_UP_S = 0.02


def sandbox_address(hosts_file: str = _HOSTS) -> str:
    """Return the address that Lambda delivers to: that of `sandbox.localdomain`, else 127.0.0.1.

    The hosts file is read first: a look-up of a name that is not there may wait for a name server for seconds.
    """
    try:
        with open(hosts_file, "rb") as file:
            for line in file.read(65_536).splitlines():
                words = line.partition(b"#")[0].split()
                if SANDBOX_HOST.encode() in words[1:]:
                    return words[0].decode("ascii")
        address: str = net.resolve(SANDBOX_HOST, 0, _LOOK_UP_S)[0][1][0]
    except (OSError, UnicodeDecodeError):
        return "127.0.0.1"
    return address


class Listener:
    """Takes batches of telemetry on `listener` and hands each one's bytes to `take`."""

    def __init__(self, listener: Socket, take: Callable[[bytes], None]) -> None:
        self._listener = listener
        self._take = take
        self._open = 0
        self.counters = {"batches": 0, "bytes": 0, "malformed": 0, "faults": 0}

    def serve(self) -> None:
        """Accept connections for ever, a thread each."""
        while True:
            try:
                sock = net.accept(self._listener)
                if self._open >= _MAX_CONNECTIONS:
                    sock.close()
                    continue
            except OSError as error:
                say.fault("telemetry: accept", error)
                select.poll().poll(50)
                continue
            self._open += 1
            try:
                _thread.start_new_thread(self._serve_connection, (sock,))
            except RuntimeError as error:
                say.fault("telemetry: thread", error)
                self._open -= 1
                sock.close()

    def _serve_connection(self, sock: Socket) -> None:
        rest: bytes | None = b""
        try:
            while rest is not None:
                rest = self._serve_request(sock, rest)
        except Malformed as error:
            self.counters["malformed"] += 1
            _refuse(sock, error.status)
        except OSError:
            pass  # the platform sends again what it was not told to be received
        except BaseException as error:
            self.counters["faults"] += 1
            say.fault("telemetry: connection", error)
        finally:
            self._open -= 1
            sock.close()

    def _serve_request(self, sock: Socket, buffer: bytes) -> bytes | None:
        """Serve one request; returns what was read beyond it, or None when the connection is over."""
        deadline: float | None = None  # an idle connection may wait for ever, a begun request may not
        while (end := http1.split_head(buffer)) < 0:
            received = net.recv(sock, 65_536, deadline)
            if not received:
                return None
            buffer += received
            deadline = deadline or time.monotonic() + _REQUEST_LIMIT_S
        deadline = time.monotonic() + _REQUEST_LIMIT_S
        head = http1.parse_request_head(buffer[:end])
        body = http1.request_body(head)
        used, parts = body.feed(buffer[end:])
        rest = buffer[end + used :]
        size = sum(map(len, parts))
        while not body.complete:
            received = net.recv(sock, 262_144, deadline)
            if not received:
                return None
            used, more = body.feed(received)
            rest = received[used:]
            parts += more
            size += sum(map(len, more))
            if size > _MAX_BATCH:
                raise Malformed(f"a batch is over {_MAX_BATCH} bytes", 413)
        batch = b"".join(parts)
        self.counters["batches"] += 1
        self.counters["bytes"] += len(batch)
        try:
            self._take(batch)
        except BaseException as error:
            self.counters["faults"] += 1
            say.fault("telemetry: batch", error)
        net.send_all(sock, _OK, deadline)
        return rest if head.keep_alive else None


def _refuse(sock: Socket, status: int) -> None:
    try:
        sock.sendall(f"HTTP/1.1 {status} Refused\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
    except OSError:
        return
