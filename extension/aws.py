"""A signed call to an AWS service, with the two corrections a caller cannot make: expired keys and a wrong clock."""

from __future__ import annotations

import time

from extension import dates
from extension.aws_error import failure_of
from extension.https import Answer, Connection, Endpoint
from extension.sigv4 import Headers, Signer, sha256_hex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from extension.credentials import Source
    from extension.tls import Context

_EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "InvalidClientTokenId", "UnrecognizedClient")
_SKEWED = ("RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture", "InvalidSignature", "SignatureDoesNotMatch")
_SKEW_THAT_MATTERS_S = 60


class Client:
    """Calls one service at one endpoint. The connection is kept between calls until `close`."""

    def __init__(
        self,
        endpoint: Endpoint,
        signer: Signer,
        credentials: Source,
        tls: Context | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._signer = signer
        self._credentials = credentials
        self._clock = clock
        self._skew_s = 0.0
        self._connection = Connection(endpoint, tls)

    def close(self) -> None:
        """Close the connection: after a freeze it would be dead, and nobody would know."""
        self._connection.close()

    def call(self, method: str, path: str, headers: Headers, body: bytes, deadline: float) -> Answer:
        """Send a signed request, and once more each with renewed keys or a corrected clock if AWS's answer asks for it.

        `path` is percent-encoded; `deadline` is on `time.monotonic()`. Raises what `Connection.exchange` and
        `credentials.Source.current` raise.
        """
        renewed = corrected = False
        digest = sha256_hex(body)
        path = self._endpoint.base + path
        while True:
            keys = self._credentials.current(deadline)
            now = self._clock() + self._skew_s
            sent = [("Host", self._endpoint.authority), *headers]
            sent += self._signer.sign(keys, method, path, "", sent, digest, now)
            answer = self._connection.exchange(method, path, sent, body, deadline)
            failure = failure_of(answer)
            if failure is None or failure.status >= 500:
                return answer
            if failure.code in _EXPIRED and not renewed:
                renewed = True
                self._credentials.refuse(keys)
                if self._credentials.current(deadline).secret_access_key != keys.secret_access_key:
                    continue
            elif failure.code in _SKEWED and not corrected and self._correct(answer, now):
                corrected = True
                continue
            return answer

    def _correct(self, answer: Answer, now: float) -> bool:
        """Take AWS's clock where ours is off by more than a minute. Returns whether it was."""
        try:
            theirs = dates.parse_http_date(answer.head.text(b"date") or "")
        except ValueError:
            return False
        if abs(theirs - now) < _SKEW_THAT_MATTERS_S:
            return False
        self._skew_s += theirs - now
        return True
