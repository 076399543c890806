"""TLS to an AWS endpoint, on the C module `_ssl`: `import ssl` would bring socket, enum and re, all unused here.

The protections are those of `ssl.create_default_context`: TLS 1.2 or newer, a chain to a trusted root, and the host's
name in the certificate. Tests hold each of them against a real server with a certificate that breaks it.
"""

from __future__ import annotations

import _socket
import os

from extension import net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where Amazon Linux 2023 and 2, Debian, Alpine and Fedora keep the roots. Never SSL_CERT_FILE: it is the function's.
STORES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)


class NoStore(Exception):
    """There are no trusted roots in this image, so no server can be believed."""


class _Referable(_socket.socket):
    """What `_ssl` wraps must be weakly referable, which the plain C type is not."""

    __slots__ = ("__weakref__",)


class Stream:
    """A TLS connection with `net`'s calls: a deadline for each, OSError where it fails."""

    __slots__ = ("_sock", "_tls")

    def __init__(self, sock: _Referable, tls: Any) -> None:
        self._sock = sock
        self._tls = tls

    def send_all(self, data: bytes | memoryview, deadline: float) -> None:
        """Send every byte."""
        view = memoryview(data)
        while view:
            self._sock.settimeout(net.left(deadline))
            view = view[self._tls.write(view) :]

    def recv(self, size: int, deadline: float) -> bytes:
        """Receive up to `size` bytes; none at the end of the stream."""
        import _ssl

        self._sock.settimeout(net.left(deadline))
        try:
            data: bytes = self._tls.read(size)
        except _ssl.SSLZeroReturnError:
            return b""  # the peer said goodbye; a connection that is only cut raises SSLEOFError, an OSError
        return data

    def close(self) -> None:
        """Close the connection without ceremony: HTTP's own framing has told where the answer ends."""
        self._sock.close()


class Context:
    """The trusted roots, read once at the first connection (some 20 ms)."""

    def __init__(self, stores: tuple[str, ...] = STORES) -> None:
        self._stores = stores
        self._context: Any = None

    def _load(self) -> Any:
        import _ssl

        store = next((path for path in self._stores if os.path.exists(path)), None)
        if store is None:
            raise NoStore(f"no certificate store: none of {', '.join(self._stores)} exists")
        context: Any = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = True
        context.verify_mode = _ssl.CERT_REQUIRED
        context.minimum_version = _ssl.PROTO_TLSv1_2
        context._host_flags |= _ssl.HOSTFLAG_NEVER_CHECK_SUBJECT
        context.load_verify_locations(store, None, None)
        return context

    def connect(self, host: str, port: int, deadline: float) -> Stream:
        """Open a connection and do the handshake. Raises OSError, and NoStore."""
        if self._context is None:
            self._context = self._load()
        plain = net.connect(host, port, deadline)
        sock = _Referable(plain.family, plain.type, plain.proto, plain.detach())
        try:
            sock.settimeout(net.left(deadline))
            tls = self._context._wrap_socket(sock, False, server_hostname=host)
            tls.do_handshake()
        except BaseException:
            sock.close()
            raise
        return Stream(sock, tls)
