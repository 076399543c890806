"""The archive of a sift: every touched message before it is touched, and a mark once it was sent. In a folder, or in S3.

JSON lines: `intents-*` hold the messages whole, `sent-*` the ids that were sent. A later sift with the same archive
reads the marks.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

INTENTS = "intents"
SENT = "sent"


class Archive(Protocol):
    """Keeps lines; what `put` took is there after a crash of this process."""

    def put(self, kind: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep lines of a kind. Raises OSError, or what botocore raises: then nothing must be touched."""
        ...

    def read(self, kind: str) -> Iterable[dict[str, Any]]:
        """Yield the lines of a kind, of this sift and of former ones."""
        ...


class Folder:
    """A folder of this machine, one file per process and kind."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._name = uuid.uuid4().hex[:12]

    def put(self, kind: str, lines: Iterable[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with (self._path / f"{kind}-{self._name}.jsonl").open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, kind: str) -> Iterable[dict[str, Any]]:
        for path in sorted(self._path.glob(f"{kind}-*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    continue  # cut off by a crash in the middle of a write: as if it had not been written


class Bucket:
    """A bucket, one object per batch."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    def _key(self, kind: str) -> str:
        return f"{self._prefix}/{kind}-" if self._prefix else f"{kind}-"

    def put(self, kind: str, lines: Iterable[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        key = f"{self._key(kind)}{uuid.uuid4().hex}.jsonl"
        self._client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentType="application/x-ndjson")

    def read(self, kind: str) -> Iterable[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key(kind))
        for page in pages:
            for found in page.get("Contents", []):
                data = self._client.get_object(Bucket=self._bucket, Key=found["Key"])["Body"].read()
                yield from map(json.loads, data.splitlines())


def open_archive(place: str, client_of_s3: Any) -> Archive:
    """Return the archive at `s3://bucket/prefix` or in a folder. `client_of_s3` is called only for the former."""
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        return Bucket(client_of_s3(), bucket, prefix)
    return Folder(Path(place))
