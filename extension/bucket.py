"""Puts objects into an S3 bucket (Amazon S3 API Reference, PutObject), signed by ourselves, within a deadline."""

from __future__ import annotations

import time

from extension.aws import Client
from extension.aws_error import failure_of
from extension.credentials import NoCredentials, Source
from extension.http1 import Malformed
from extension.https import Answer, Endpoint
from extension.sigv4 import Signer, percent_encode
from extension.tls import Context, NoStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from extension.settings import Settings
    from extension.sigv4 import Headers

_ELSEWHERE = (
    *("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"),
    *("HTTP 301", "HTTP 307", "HTTP 400"),
)
_LATER = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted", "Throttling")


class NotNow(Exception):
    """The bucket cannot be reached, or not for the moment."""


class Closed(Exception):
    """The bucket is closed to us: permission, name, key."""


class Bucket:
    """One bucket. One thread at a time. The connection stays open until `close`."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        environ: Mapping[str, str],
        tls: Context | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`environ` is where credentials are read, each time. Raises ValueError where an endpoint cannot be used."""
        self._name = name
        self._settings = settings
        self._tls = tls or Context()
        self._credentials = Source(environ, clock)
        self._clock = clock
        self._region = settings.own_region or settings.region or "us-east-1"
        self._client = self._open()

    def close(self) -> None:
        """Close the connection; the next `put` opens a fresh one."""
        self._client.close()

    def put(self, key: str, body: bytes, headers: Headers, deadline: float) -> None:
        """Store an object before `deadline` (on `time.monotonic()`). Raises NotNow or Closed."""
        if self._settings.bucket_kms_key_id:
            headers = [
                *headers,
                ("x-amz-server-side-encryption", "aws:kms"),
                ("x-amz-server-side-encryption-aws-kms-key-id", self._settings.bucket_kms_key_id),
            ]
        answer = self._call(key, headers, body, deadline)
        failure = failure_of(answer)
        if failure is not None and failure.code in _ELSEWHERE and self._moved(answer):
            failure = failure_of(self._call(key, headers, body, deadline))
        if failure is None:
            return
        reason = f"{failure.code}: {failure.message}" if failure.message else failure.code
        if failure.status >= 500 or failure.status == 429 or failure.code in _LATER:
            raise NotNow(reason)
        raise Closed(f"bucket {self._name}: {reason}")

    def _call(self, key: str, headers: Headers, body: bytes, deadline: float) -> Answer:
        try:
            return self._client.call("PUT", "/" + percent_encode(key, "/"), headers, body, deadline)
        except Malformed as error:
            raise NotNow(f"no HTTP answer: {error}") from error
        except OSError as error:
            raise NotNow(f"{type(error).__name__}: {error.strerror or error}") from error
        except (NoStore, NoCredentials, ValueError) as error:
            raise Closed(f"{type(error).__name__}: {error}") from error

    def _moved(self, answer: Answer) -> bool:
        """The bucket is in another region, and S3 says in which."""
        region = answer.head.text(b"x-amz-bucket-region")
        if not region or region == self._region or not region.replace("-", "").isalnum():
            return False
        self._region = region
        self._client.close()
        self._client = self._open()
        return True

    def _open(self) -> Client:
        endpoint = Endpoint(self._url())
        return Client(endpoint, Signer(self._region, "s3"), self._credentials, self._tls, self._clock)

    def _url(self) -> str:
        if self._settings.endpoint_url_s3:
            return f"{self._settings.endpoint_url_s3}/{self._name}"
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        if "." in self._name:  # no certificate covers a bucket's dots
            return f"https://s3.{self._region}.{domain}/{self._name}"
        return f"https://{self._name}.s3.{self._region}.{domain}"
