"""AWS Signature Version 4, without any I/O: a request in, the headers that authenticate it out.

Source: IAM User Guide, "Create a signed AWS API request". Tests hold it against botocore's SigV4Auth and S3SigV4Auth.
"""

from __future__ import annotations

import time

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ENCODED = [chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)]

Headers = list[tuple[str, str]]


class Credentials:
    """An access key; `session_token` is None for a long-lived one."""

    __slots__ = ("access_key_id", "secret_access_key", "session_token")

    def __init__(self, access_key_id: str, secret_access_key: str, session_token: str | None = None) -> None:
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self.session_token = session_token


def percent_encode(text: str, keep: str = "") -> str:
    """Percent-encode the UTF-8 bytes of `text`, all but the unreserved characters of RFC 3986 and those in `keep`."""
    kept = frozenset(keep.encode())
    return "".join(chr(byte) if byte in kept else _ENCODED[byte] for byte in text.encode())


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def canonical_path(path: str) -> str:
    """Return the path that every service but S3 signs: dot segments removed, then percent-encoded once more."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    if not kept:
        return "/"
    slash = "/" if path.endswith("/") else ""
    return "/" + percent_encode("/".join(kept), keep="/") + slash


def canonical_query(query: str) -> str:
    """Sort the parameters of a query string whose names and values are percent-encoded already."""
    if not query:
        return ""
    pairs = [(name, value) for name, _, value in (parameter.partition("=") for parameter in query.split("&"))]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def canonical_headers(headers: Headers) -> tuple[str, str]:
    """Return the lines of the headers, sorted, and their names joined by `;`. Runs of white space become one space."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.strip().lower(), []).append(" ".join(value.split()))
    names = sorted(values)
    return "".join(f"{name}:{','.join(values[name])}\n" for name in names), ";".join(names)


class Signer:
    """Signs requests to one service in one region. The derived key is kept: it changes with the day and the secret."""

    __slots__ = ("_key", "_key_of", "region", "service")

    def __init__(self, region: str, service: str) -> None:
        self.region = region
        self.service = service
        self._key = b""
        self._key_of: tuple[str, str] | None = None

    def sign(
        self,
        credentials: Credentials,
        method: str,
        path: str,
        query: str,
        headers: Headers,
        payload_sha256: str,
        now: float,
    ) -> Headers:
        """Return the headers to add to a request: X-Amz-Date, the session token where there is one, and Authorization.

        `path` and `query` are as they will be sent (percent-encoded). Every header given is signed, so Host must be
        among them, and headers that a middleman may change must not. `payload_sha256` is the body's, in hexadecimal.
        `now` is in seconds since 1970. For S3 the path is signed as it is, and X-Amz-Content-SHA256 is added.
        """
        import hmac

        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        day = stamp[:8]
        added = [("X-Amz-Date", stamp)]
        if credentials.session_token:
            added.append(("X-Amz-Security-Token", credentials.session_token))
        if self.service == "s3":
            added.append(("X-Amz-Content-SHA256", payload_sha256))
        lines, names = canonical_headers(headers + added)
        signed_path = path if self.service == "s3" else canonical_path(path)
        request = "\n".join((method.upper(), signed_path or "/", canonical_query(query), lines, names, payload_sha256))
        scope = f"{day}/{self.region}/{self.service}/aws4_request"
        to_sign = "\n".join((_ALGORITHM, stamp, scope, sha256_hex(request.encode())))
        key = self._signing_key(credentials.secret_access_key, day)
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"Credential={credentials.access_key_id}/{scope}"
        added.append(("Authorization", f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"))
        return added

    def _signing_key(self, secret: str, day: str) -> bytes:
        import hmac

        if self._key_of != (secret, day):
            key = b"AWS4" + secret.encode()
            for part in (day, self.region, self.service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._key_of = key, (secret, day)
        return self._key
