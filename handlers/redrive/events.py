"""The events' bytes: small ones beside the failure, others gzipped in S3."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handlers.redrive import items
from handlers.redrive.items import StoredEvent
from handlers.redrive.record import Captured

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PREFIX = "events/"


class EventGone(RuntimeError):
    """The bytes cannot be had, or are not those that were captured; the text says which."""


class EventStore:
    """Keeps and finds events. `bucket` may be None where no event is ever too large."""

    def __init__(self, client: S3Client, bucket: str | None) -> None:
        self._client = client
        self._bucket = bucket

    def keep(self, captured: Captured) -> StoredEvent:
        """Store an event where it belongs; storing it twice is the same as once. Raises EventGone where there is no
        bucket for it."""
        if captured.event_ref is not None:
            return StoredEvent(bucket=captured.event_ref.bucket, key=captured.event_ref.key)
        if captured.event is None:
            return StoredEvent()
        if items.fits_inline(captured):
            return StoredEvent(inline=captured.event)
        if self._bucket is None:
            raise EventGone("an event over 300 KB needs a bucket: set BACKSTOP_BUCKET")
        key = f"{PREFIX}{captured.id}/{hashlib.sha256(captured.event).hexdigest()[:16]}.gz"
        self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=gzip.compress(captured.event, compresslevel=5, mtime=0),
            ContentType="application/octet-stream",
            ContentEncoding="gzip",
        )
        return StoredEvent(bucket=self._bucket, key=key)

    def read(self, body: Mapping[str, Any] | None, sha256: str | None) -> bytes:
        """Return the bytes of the event in a Body item. Raises EventGone."""
        if body is None:
            raise EventGone("the event was purged or has expired")
        event = body.get("event")
        if event is None:
            event = self._fetch(body)
        if sha256 is not None and hashlib.sha256(event).hexdigest() != sha256:
            raise EventGone("the stored event does not have the hash of the captured one")
        return bytes(event)

    def _fetch(self, body: Mapping[str, Any]) -> bytes:
        bucket, key = body.get("eventBucket"), body.get("eventKey")
        if not bucket or not key:
            raise EventGone("no event was kept")
        try:
            data = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            raise EventGone("the event is no longer in the bucket") from None
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else bytes(data)

    def remove(self, body: Mapping[str, Any]) -> None:
        """Delete an event from S3, if it is there. The table's part is the caller's."""
        bucket, key = body.get("eventBucket"), body.get("eventKey")
        if bucket and key:
            self._client.delete_object(Bucket=bucket, Key=key)
