"""Bytes that no HTTP listener may take for a request, or for two: a corpus for the sandbox's listener and for the sidecar's."""

from __future__ import annotations

OK = b"POST /a HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = "/smuggled"
_SECOND = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

MALFORMED = {
    "no version": b"GET /\r\n\r\n",
    "unknown version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "control character in a value": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n : y\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "one bare line feed": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": OK + b"Content-Length: 3, 4\r\n\r\nabcd",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "hexadecimal length": OK + b"Content-Length: 0x3\r\n\r\nabc",
    "length with a space": OK + b"Content-Length: 1 1\r\n\r\nabcabcabcab",
    "unknown coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "hidden coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunk size no number": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "chunk size too long": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    "negative chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk longer than its size": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
    "huge head": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_100_000,
}

# Pairs that two readers may cut differently: what one takes for a body, the other takes for a second request.
SMUGGLING = {
    "length before chunks": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SECOND,
    "chunks before length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(_SECOND) + _SECOND,
    "two lengths": OK + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(_SECOND) + _SECOND,
    "coding with a tab": OK + b"Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _SECOND,
    "coding hidden by a folded line": OK
    + b"A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"
    + _SECOND,
    "coding behind a space": OK + b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + _SECOND,
    "coding in quotes": OK + b'Transfer-Encoding: "chunked"\r\nContent-Length: 0\r\n\r\n' + _SECOND,
    "bare line feed ends the head": OK + b"Content-Length: %d\n\n" % len(_SECOND) + _SECOND,
    "bare carriage return": OK + b"A: b\rContent-Length: 0\r\n\r\n" + _SECOND,
    "chunk size with an extension that ends early": OK + b"Transfer-Encoding: chunked\r\n\r\n0;a=b\n\r\n\r\n" + _SECOND,
    "chunk size wraps around": OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000000000000000000\r\n" + _SECOND,
    "chunk without its end": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + _SECOND,
    "HTTP/1.0 with chunks": b"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SECOND,
    "NUL in a name": OK + b"Content-Length\x00: 0\r\n\r\n" + _SECOND,
}
