"""One HTTP request and its answer over a connection of our own: bounded in bytes, and in time by a deadline.

Redirects are not followed and nothing is decompressed: AWS's endpoints do neither unasked.
"""

from __future__ import annotations

from extension import http1, net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extension.net import Socket
    from extension.tls import Context, Stream

_HEAD_LIMIT = 16_384
_READ_BYTES = 65_536
_PORTS = {"http": 80, "https": 443}


class Endpoint:
    """Where a service is: `base` is what its URL has before every path, `authority` what goes into Host."""

    __slots__ = ("authority", "base", "host", "port", "scheme")

    def __init__(self, url: str) -> None:
        """Read a URL of scheme, host, and perhaps a port and a path. Raises ValueError."""
        scheme, separator, rest = url.partition("://")
        authority, slash, base = rest.partition("/")
        self.scheme = scheme.lower()
        if not separator or self.scheme not in _PORTS or "?" in rest or "#" in rest:
            raise ValueError(f"{url!r} is not a URL that begins with https:// or http://")
        if (
            not authority
            or "@" in authority
            or not authority.isascii()
            or not authority.isprintable()
            or " " in authority
        ):
            raise ValueError(f"{url!r} has no host, or one with characters that a host name may not have")
        self.authority = authority.lower()
        self.port = _PORTS[self.scheme]
        host = self.authority
        if ":" in host.rpartition("]")[2]:
            host, self.port = net.split_address(host)
            if self.port == _PORTS[self.scheme]:
                self.authority = self.authority.rpartition(":")[0]
        self.host = host.strip("[]")
        self.base = (slash + base).rstrip("/")


class Answer:
    """A response, read to its end."""

    __slots__ = ("body", "head")

    def __init__(self, head: http1.ResponseHead, body: bytes) -> None:
        self.head = head
        self.body = body


class _Plain:
    """A TCP connection with the calls of `tls.Stream`."""

    __slots__ = ("_sock",)

    def __init__(self, sock: Socket) -> None:
        self._sock = sock

    def send_all(self, data: bytes | memoryview, deadline: float) -> None:
        net.send_all(self._sock, data, deadline)

    def recv(self, size: int, deadline: float) -> bytes:
        return net.recv(self._sock, size, deadline)

    def close(self) -> None:
        self._sock.close()


class Connection:
    """A connection that is opened when it is needed and used again until `close`, or until either side ended it."""

    __slots__ = ("_body_limit", "_endpoint", "_stream", "_tls")

    def __init__(self, endpoint: Endpoint, tls: Context | None, body_limit: int = 262_144) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._body_limit = body_limit
        self._stream: _Plain | Stream | None = None

    def close(self) -> None:
        """Close the connection, if it is open."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def exchange(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, deadline: float
    ) -> Answer:
        """Send a request and read its answer, all before `deadline` (on `time.monotonic()`).

        Host must be among the headers, Content-Length is added. Raises OSError where the network fails (TimeoutError
        past the deadline), `http1.Malformed` where the answer breaks HTTP or a bound, `tls.NoStore`, and ValueError
        where the request itself cannot be written.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break inside a header")
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        reused = self._stream is not None
        try:
            return self._attempt(method, head, body, deadline)
        except _NoAnswer as closed:
            self.close()
            if not reused:
                raise
            try:  # the peer had ended the idle connection: nothing was answered, so try once on a fresh one
                return self._attempt(method, head, body, deadline)
            except BaseException as error:
                self.close()
                raise error from closed
        except BaseException:
            self.close()
            raise

    def _attempt(self, method: str, head: bytes, body: bytes, deadline: float) -> Answer:
        if self._stream is None:
            self._stream = self._connect(deadline)
        stream = self._stream
        sent = True
        try:
            stream.send_all(head, deadline)
            if body:
                stream.send_all(body, deadline)
        except TimeoutError:
            raise
        except OSError:
            sent = False  # a server may answer and hang up before it has read everything: its answer says more
        answer, reusable = self._read(stream, method, deadline)
        if not sent or not reusable:
            self.close()
        return answer

    def _connect(self, deadline: float) -> _Plain | Stream:
        endpoint = self._endpoint
        if endpoint.scheme == "https":
            if self._tls is None:
                raise ValueError(f"{endpoint.host} is to be reached by https, but TLS was not set up")
            return self._tls.connect(endpoint.host, endpoint.port, deadline)
        return _Plain(net.connect(endpoint.host, endpoint.port, deadline))

    def _read(self, stream: _Plain | Stream, method: str, deadline: float) -> tuple[Answer, bool]:
        buffer = bytearray()
        while True:
            while (end := http1.split_head(buffer, _HEAD_LIMIT)) < 0:
                data = self._receive(stream, not buffer, deadline)
                if not data:
                    raise http1.Malformed("the connection ended inside the head of an answer")
                buffer += data
            head = http1.parse_response_head(bytes(buffer[:end]))
            del buffer[:end]
            if head.status >= 200:
                break
        body = http1.response_body(head, method.encode())
        parts: list[bytes] = []
        size = 0
        data = bytes(buffer)
        while True:
            used, found = body.feed(data)
            parts += found
            size += sum(map(len, found))
            if size > self._body_limit:
                raise http1.Malformed(f"an answer of over {self._body_limit} bytes")
            if body.complete:
                return Answer(head, b"".join(parts)), head.keep_alive and used == len(data) and not body.until_close
            data = self._receive(stream, False, deadline)
            if not data:
                body.eof()

    def _receive(self, stream: _Plain | Stream, first: bool, deadline: float) -> bytes:
        try:
            data = stream.recv(_READ_BYTES, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            if first:
                raise _NoAnswer(error.errno, error.strerror) from error
            raise
        if first and not data:
            raise _NoAnswer("the connection was closed without an answer")
        return data


class _NoAnswer(ConnectionError):
    """The connection ended before the first byte of an answer."""
