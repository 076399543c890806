"""HTTP/1.1 on the wire, without any I/O: bytes in, heads and body parts out (RFC 9112).

Strict where a lenient reader would let a second request be smuggled: one framing only, CRLF only, tokens only, bounded lines.
The proxy sends on the very bytes that it received, so nothing here ever writes a message again.
"""

from __future__ import annotations

MAX_HEAD = 65_536
MAX_CHUNK_LINE = 4_096
MAX_TRAILERS = 262_144
MAX_HEADERS = 256
_MAX_LENGTH_DIGITS = 15
_MAX_CHUNK_DIGITS = 12

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HEX = b"0123456789abcdefABCDEF"
_DIGITS = b"0123456789"
_TARGET = bytes(range(0x21, 0x7F))
_VALUE = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

Headers = list[tuple[bytes, bytes]]


class Malformed(ValueError):
    """A message that breaks RFC 9112 or a limit. `status` is the answer that a server would give."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class _Head:
    __slots__ = ("headers", "raw", "version")

    def __init__(self, version: bytes, headers: Headers, raw: bytes) -> None:
        self.version = version
        self.headers = headers
        self.raw = raw

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header (name in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def text(self, name: bytes) -> str | None:
        """Return the first value of a header as text, or None. Bytes outside UTF-8 are kept as Latin-1."""
        value = self.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def all(self, name: bytes) -> list[bytes]:
        """Return every value of a header, in order."""
        return [value for key, value in self.headers if key == name]

    def lists(self, name: bytes) -> list[bytes]:
        """Return the lower-case members of a comma-separated header."""
        members = b",".join(self.all(name)).lower().split(b",")
        return [stripped for member in members if (stripped := member.strip(b" \t"))]

    @property
    def keep_alive(self) -> bool:
        """Whether the sender will use the connection again (RFC 9112, section 9.3)."""
        options = self.lists(b"connection")
        if b"close" in options:
            return False
        return self.version == b"HTTP/1.1" or b"keep-alive" in options


class RequestHead(_Head):
    """A request line and its header fields; names in lower case, `raw` as received."""

    __slots__ = ("method", "target")

    def __init__(self, method: bytes, target: bytes, version: bytes, headers: Headers, raw: bytes) -> None:
        super().__init__(version, headers, raw)
        self.method = method
        self.target = target


class ResponseHead(_Head):
    """A status line and its header fields; names in lower case, `raw` as received."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: bytes, version: bytes, headers: Headers, raw: bytes) -> None:
        super().__init__(version, headers, raw)
        self.status = status
        self.reason = reason


def split_head(buffer: bytes | bytearray, limit: int = MAX_HEAD) -> int:
    """Return the length of the head at the start of `buffer`, its blank line included, or -1 if more bytes are needed.

    Raises Malformed (431) over `limit` bytes.
    """
    end = buffer.find(b"\r\n\r\n")
    if (len(buffer) if end < 0 else end + 4) > limit:
        raise Malformed(f"the head is over {limit} bytes", 431)
    return end + 4 if end >= 0 else -1


def _only(text: bytes, allowed: bytes) -> bool:
    return not text.translate(None, allowed)


def _fields(lines: list[bytes]) -> Headers:
    if len(lines) > MAX_HEADERS:
        raise Malformed(f"more than {MAX_HEADERS} header fields", 431)
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _only(name, _TOKEN):
            raise Malformed("a header field is not `name: value` (RFC 9112, section 5)")
        value = value.strip(b" \t")
        if not _only(value, _VALUE):
            raise Malformed("a header value holds a control character")
        headers.append((name.lower(), value))
    return headers


def _version(text: bytes) -> bytes:
    if text in (b"HTTP/1.1", b"HTTP/1.0"):
        return text
    if text.startswith(b"HTTP/") and len(text) == 8:
        raise Malformed("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    raise Malformed("no HTTP version in the first line")


def parse_request_head(raw: bytes) -> RequestHead:
    """Read a request's head, as cut by `split_head`. Raises Malformed."""
    lines = raw[:-4].split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3:
        raise Malformed("the request line is not `METHOD target HTTP/1.1`")
    method, target, version = words
    version = _version(version)
    if not method or not _only(method, _TOKEN):
        raise Malformed("the method is not a token")
    if not target or not _only(target, _TARGET):
        raise Malformed("the request target holds a character that it may not")
    head = RequestHead(method, target, version, _fields(lines[1:]), raw)
    if version == b"HTTP/1.1" and len(head.all(b"host")) != 1:
        raise Malformed("an HTTP/1.1 request has exactly one Host (RFC 9112, section 3.2)")
    return head


def parse_response_head(raw: bytes) -> ResponseHead:
    """Read a response's head, as cut by `split_head`. Raises Malformed."""
    lines = raw[:-4].split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    code, _, reason = rest.partition(b" ")
    version = _version(version)
    if len(code) != 3 or not _only(code, _DIGITS) or code < b"100":
        raise Malformed("the status is not three digits")
    if not _only(reason, _VALUE):
        raise Malformed("the reason phrase holds a control character")
    return ResponseHead(int(code), reason, version, _fields(lines[1:]), raw)


_EMPTY, _LENGTH, _UNTIL_CLOSE, _CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILER = range(7)


class Body:
    """Finds where a body ends, and hands out its content without the chunk framing.

    `until_close` is True where only the end of the connection ends it: then call `eof()`.
    `trailers` holds a chunked body's trailer fields once `complete`.
    """

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "_trailer_lines", "complete", "trailers", "until_close")

    def __init__(self, state: int, length: int = 0) -> None:
        self._state = state
        self._left = length
        self._line = bytearray()
        self._trailer_lines: list[bytes] = []
        self._trailer_bytes = 0
        self.complete = state == _EMPTY or (state == _LENGTH and length == 0)
        self.until_close = state == _UNTIL_CLOSE
        self.trailers: Headers = []

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """Take bytes off the wire. Returns how many belong to this body, and the content among them.

        Raises Malformed where chunk framing or trailers are broken.
        """
        if self.complete or not data:
            return 0, []
        if self._state == _UNTIL_CLOSE:
            return len(data), [data]
        if self._state == _LENGTH:
            if len(data) < self._left:
                self._left -= len(data)
                return len(data), [data]
            used, self._left = self._left, 0
            self.complete = True
            return used, [data if used == len(data) else data[:used]]
        return self._feed_chunked(data)

    def eof(self) -> None:
        """The connection ended. Raises Malformed if the body did not."""
        if self.until_close:
            self.complete = True
        if not self.complete:
            raise Malformed("the connection ended inside a body")

    def _feed_chunked(self, data: bytes) -> tuple[int, list[bytes]]:
        parts: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.complete:
            if self._state == _CHUNK_DATA:
                part = data[position : position + self._left]
                parts.append(part)
                position += len(part)
                self._left -= len(part)
                if not self._left:
                    self._state = _CHUNK_END
                continue
            line_end = data.find(b"\n", position) + 1
            piece_end = line_end or size
            self._line += data[position:piece_end]
            position = piece_end
            self._check_line()
            if line_end:
                line = bytes(self._line)
                self._line.clear()
                self._take_line(line)
        return position, parts

    def _check_line(self) -> None:
        if self._state == _CHUNK_END:
            if not b"\r\n".startswith(self._line):
                raise Malformed("a chunk is longer than its size")
        elif self._state == _CHUNK_SIZE:
            if len(self._line) > MAX_CHUNK_LINE:
                raise Malformed(f"a chunk's size line is over {MAX_CHUNK_LINE} bytes")
        elif self._trailer_bytes + len(self._line) > MAX_TRAILERS:
            raise Malformed(f"the trailers are over {MAX_TRAILERS} bytes", 431)

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise Malformed("a line ends without CR (RFC 9112, section 2.2)")
        line = line[:-2]
        if self._state == _CHUNK_END:
            self._state = _CHUNK_SIZE
        elif self._state == _CHUNK_SIZE:
            digits, _, extension = line.partition(b";")
            if not 0 < len(digits) <= _MAX_CHUNK_DIGITS or not _only(digits, _HEX) or not _only(extension, _VALUE):
                raise Malformed("a chunk size is not hexadecimal (RFC 9112, section 7.1)")
            self._left = int(digits, 16)
            self._state = _CHUNK_DATA if self._left else _TRAILER
        elif line:
            self._trailer_bytes += len(line) + 2
            self._trailer_lines.append(line)
        else:
            self.trailers = _fields(self._trailer_lines)
            self.complete = True


def _framing(head: _Head) -> Body | None:
    coding = head.all(b"transfer-encoding")
    lengths = head.all(b"content-length")
    if coding:
        if lengths:
            raise Malformed("both Content-Length and Transfer-Encoding (RFC 9112, section 6.3)")
        if head.version != b"HTTP/1.1" or len(coding) != 1 or coding[0].lower() != b"chunked":
            raise Malformed("the only transfer coding spoken here is `chunked`", 501)
        return Body(_CHUNK_SIZE)
    if not lengths:
        return None
    length = lengths[0]
    if len(lengths) > 1 or not 0 < len(length) <= _MAX_LENGTH_DIGITS or not _only(length, _DIGITS):
        raise Malformed("Content-Length is not one decimal number")
    return Body(_LENGTH, int(length))


def request_body(head: RequestHead) -> Body:
    """Return the body that follows a request's head (RFC 9112, section 6.3). Raises Malformed."""
    return _framing(head) or Body(_EMPTY)


def response_body(head: ResponseHead, request_method: bytes) -> Body:
    """Return the body that follows a response's head (RFC 9112, section 6.3). Raises Malformed."""
    framing = _framing(head)
    if request_method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return Body(_EMPTY)
    return framing or Body(_UNTIL_CLOSE)
