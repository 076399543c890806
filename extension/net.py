"""Sockets with deadlines, on the C module `_socket`: importing `socket` would double the start (it brings enum and selectors).

Deadlines are seconds on `time.monotonic()`; None means no limit.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Socket = _socket.socket
_LONGEST_LOOK_UP_S = 30.0
_AF_INET, _AF_INET6, _STREAM = _socket.AF_INET, _socket.AF_INET6, _socket.SOCK_STREAM


def left(deadline: float | None) -> float | None:
    """Seconds left until `deadline`; raises TimeoutError when there are none."""
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError(errno.ETIMEDOUT, "the time for this call is used up")
    return seconds


def literal(host: str, port: int) -> tuple[int, Any] | None:
    """Return the address of an IP literal, or None for a name."""
    for family in (_AF_INET, _AF_INET6):
        try:
            _socket.inet_pton(family, host)
        except (OSError, ValueError):  # ValueError: NUL, or a byte of the environment that is not UTF-8
            continue
        return family, (host, port)
    return None


def resolve(host: str, port: int, timeout_s: float) -> list[tuple[int, Any]]:
    """Look up a host name, in at most `timeout_s` seconds: the C library's own limit is tens of seconds.

    Returns families and socket addresses, at least one. Raises OSError where the name is not known or the time is used up.
    """
    known = literal(host, port)
    if known is not None:
        return [known]
    found: list[tuple[int, Any]] = []
    failed: list[OSError] = []
    done = _thread.allocate_lock()
    done.acquire()

    def look_up() -> None:
        try:
            # As bytes: text would go through the idna codec, which imports half the library.
            answer = _socket.getaddrinfo(host.encode("ascii"), port, 0, _STREAM)
            found.extend((family, address) for family, _, _, _, address in answer)
        except (OSError, ValueError) as error:
            failed.append(error if isinstance(error, OSError) else OSError(errno.EINVAL, f"bad host name {host!r}"))
        finally:
            done.release()

    try:
        _thread.start_new_thread(look_up, ())
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"no thread for the look-up of {host}: {error}") from None
    if not done.acquire(True, max(0.0, timeout_s)):
        raise TimeoutError(errno.ETIMEDOUT, f"no answer to the look-up of {host} in {timeout_s:.1f} s")
    if failed:
        raise failed[0]
    if not found:
        raise OSError(errno.ENOENT, f"{host} has no address")
    return found


def connect(host: str, port: int, deadline: float | None) -> Socket:
    """Open a TCP connection, to the first of the host's addresses that takes one.

    An address that never answers gets half of the time that is left, but for the last. Raises OSError (TimeoutError past
    the deadline).
    """
    limit = left(deadline)
    *others, last = resolve(host, port, _LONGEST_LOOK_UP_S if limit is None else limit)
    for address in others:
        limit = left(deadline)
        try:
            sock = _connect(address, time.monotonic() + (_LONGEST_LOOK_UP_S if limit is None else limit / 2))
        except OSError:
            continue
        sock.settimeout(limit)
        return sock
    return _connect(last, deadline)


def _connect(address: tuple[int, Any], deadline: float | None) -> Socket:
    sock = Socket(address[0], _STREAM)
    try:
        sock.settimeout(left(deadline))
        sock.connect(address[1])
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(host: str, port: int, backlog: int = 128) -> tuple[Socket, int]:
    """Listen on an address. Returns the socket and its port (a port of 0 takes a free one). Raises OSError."""
    family, address = resolve(host, port, 1.0)[0]
    sock = Socket(family, _STREAM)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(backlog)
        bound: int = sock.getsockname()[1]
    except BaseException:
        sock.close()
        raise
    return sock, bound


def accept(listener: Socket) -> Socket:
    """Take the next connection, waiting for it without limit. Raises OSError."""
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    try:
        sock = Socket(listener.family, _STREAM, 0, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    sock.settimeout(None)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return sock


def send_all(sock: Socket, data: bytes | memoryview, deadline: float | None) -> None:
    """Send every byte. Raises OSError (TimeoutError past the deadline)."""
    sock.settimeout(left(deadline))
    sock.sendall(data)


def recv(sock: Socket, size: int, deadline: float | None) -> bytes:
    """Receive up to `size` bytes; none at the end of the stream. Raises OSError (TimeoutError past the deadline)."""
    sock.settimeout(left(deadline))
    return sock.recv(size)


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port` (an IPv6 literal in brackets). Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not host:port")
    return host, int(port)
