"""The function's credentials: keys from the environment, or, under SnapStart, from Lambda's endpoint on the loopback.

Sources: Lambda Developer Guide, "Improving startup performance with Lambda SnapStart"; AWS SDKs and Tools Reference
Guide, "Container credential provider".
"""

from __future__ import annotations

import time

from extension import dates, fastjson, http1, net
from extension.https import Connection, Endpoint
from extension.sigv4 import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FETCH_LIMIT_S = 1.0
_RENEW_BEFORE_S = 300
# Where a token may be sent in clear: this machine, and the link-local addresses of ECS and EKS agents.
_CLEAR_HOSTS = ("localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")


class NoCredentials(Exception):
    """There are no credentials, or their endpoint does not give any. The message says why."""


class Source:
    """Gives the credentials of the moment. `environ` is read at each call: SnapStart changes what holds."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._environ = environ
        self._clock = clock
        self._fetched: Credentials | None = None
        self._expires: float = 0
        self._stale_key: str | None = None

    def current(self, deadline: float) -> Credentials:
        """Return the credentials, fetched before `deadline` (on `time.monotonic()`) if need be.

        Raises NoCredentials, and OSError where the endpoint fails.
        """
        environ = self._environ
        key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        uri = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        if key and secret and (not uri or secret != self._stale_key):
            return Credentials(key, secret, environ.get("AWS_SESSION_TOKEN") or None)
        if not uri:
            raise NoCredentials("neither AWS_ACCESS_KEY_ID nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
        left_s = self._expires - self._clock()
        if self._fetched is None or left_s < _RENEW_BEFORE_S:
            try:
                self._fetch(uri, deadline)
            except (NoCredentials, OSError):
                if self._fetched is None or left_s <= 0:
                    raise
        assert self._fetched is not None
        return self._fetched

    def refuse(self, credentials: Credentials) -> None:
        """AWS called these credentials expired: do not hand them out again if there are others."""
        self._fetched = None
        self._stale_key = credentials.secret_access_key

    def _fetch(self, uri: str, deadline: float) -> None:
        try:
            scheme, _, rest = uri.partition("://")
            authority, _, path = rest.partition("/")
            endpoint = Endpoint(f"{scheme}://{authority}")
        except ValueError as error:
            raise NoCredentials(f"AWS_CONTAINER_CREDENTIALS_FULL_URI: {error}") from error
        loopback = endpoint.host.startswith("127.") and net.literal(endpoint.host, endpoint.port) is not None
        if endpoint.scheme != "http" or not (loopback or endpoint.host in _CLEAR_HOSTS):
            raise NoCredentials(f"AWS_CONTAINER_CREDENTIALS_FULL_URI: {endpoint.host} is not on this machine")
        headers = [("Host", endpoint.authority), ("Connection", "close")]
        token = self._environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if token:
            headers.append(("Authorization", token))
        connection = Connection(endpoint, None, 65_536)
        limit = min(deadline, time.monotonic() + _FETCH_LIMIT_S)
        try:
            answer = connection.exchange("GET", "/" + path, headers, b"", limit)
        except http1.Malformed as error:
            raise ConnectionError(f"the credentials endpoint: {error}") from error
        finally:
            connection.close()
        if answer.head.status >= 500:
            raise ConnectionError(f"the credentials endpoint answered {answer.head.status}")
        if answer.head.status != 200:
            raise NoCredentials(f"the credentials endpoint answered {answer.head.status}")
        self._fetched, self._expires = parse(answer.body)


def parse(body: bytes) -> tuple[Credentials, float]:
    """Read the endpoint's answer: the credentials and when they expire, in seconds since 1970. Raises NoCredentials."""
    try:
        fields = fastjson.loads(body.decode())
        key, secret, token = (fields[name] for name in ("AccessKeyId", "SecretAccessKey", "Token"))
        expires = dates.parse_iso8601(fields["Expiration"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCredentials(f"the credentials endpoint's answer cannot be read: {type(error).__name__}") from error
    if not all(isinstance(text, str) and text for text in (key, secret, token)):
        raise NoCredentials("the credentials endpoint's answer lacks a key")
    return Credentials(key, secret, token), expires
