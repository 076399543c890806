"""Plays the matrix's rows in execution environments, and pairs each with the records that arrived for it."""

from __future__ import annotations

import gzip
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from tests.e2e.harness.cgroups import memory_limit
from tests.e2e.harness.functions import attached
from tests.e2e.harness.sandbox import Answer, Sandbox
from tests.e2e.harness.sqs import REGION, Arrived, Moto, Queue
from tests.languages.cells import ROWS, Row, expected
from tests.languages.clients import Client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_WAIT_S = 15.0
_MEMORY_MIB = 256


@dataclass(frozen=True, slots=True)
class Played:
    """What an invocation's caller got, the messages that came for it in order, and what the environment said.

    `event` is the last record's: from the message, or from the bucket if it names a place there; None where it has none.
    """

    answer: Answer
    records: list[Arrived]
    event: bytes | None
    output: str


def play(client: Client, group: str, layer: Path, moto: Moto, folder: Path) -> dict[str, Played]:
    """Plays one group's rows, in a fresh environment. Returns what became of each, by the row's name.

    Raises NotBuilt where the language's function is not built, and NoMemoryCgroup where this machine limits nobody's memory.
    """
    rows = [row for row in ROWS if row.group == group]
    queue = moto.queue()
    bucket = _Bucket(moto)
    settings = {"LOG_WAIT_MS": "2000"} if group == "managed" else {}
    environment = attached(queue.url, moto.url, BUCKET=bucket.name, **settings)
    environment["AWS_ENDPOINT_URL_S3"] = moto.url
    if group == "init":
        environment["FAIL_INIT"] = "1"
    function = client.function(layer, environment, concurrency=1 if group == "managed" else None)
    if group in ("starved", "managed"):
        with memory_limit(_MEMORY_MIB) as cgroup, Sandbox(function, folder, cgroup=cgroup) as sandbox:
            return _play(rows, client, sandbox, queue, bucket)
    with Sandbox(function, folder) as sandbox:
        return _play(rows, client, sandbox, queue, bucket)


class _Bucket:
    """A bucket on moto for the events that no message holds."""

    def __init__(self, moto: Moto) -> None:
        self.name = f"events-{uuid.uuid4().hex[:8]}"
        self._client: S3Client = boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=moto.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self._client.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def event(self, record: Arrived) -> bytes | None:
        """A record's event, wherever it is."""
        place = record.backstop["payloadRef"]
        if place is None:
            return record.payload()
        assert place["truncated"] is False
        assert record.record["requestPayload"] is None
        stored = self._client.get_object(Bucket=place["bucket"], Key=place["key"])
        return gzip.decompress(stored["Body"].read())


def _play(rows: Iterable[Row], client: Client, sandbox: Sandbox, queue: Queue, bucket: _Bucket) -> dict[str, Played]:
    answers: dict[str, Answer] = {}
    records: dict[str, list[Arrived]] = {}
    for row in rows:
        answers[row.name] = sandbox.invoke(row.event)
        records[row.name] = _collect(queue, expected(row, client.language).condition)
    output = sandbox.output()
    sandbox.stop()
    # A record that is sent again, or amended, comes with the id it had.
    for late in queue.take():
        known = [name for name, came in records.items() if came and came[0].backstop["id"] == late.backstop["id"]]
        records[known[0] if known else next(reversed(records))].append(late)
    return {
        name: Played(answers[name], came, bucket.event(came[-1]) if came else None, output)
        for name, came in records.items()
    }


def _collect(queue: Queue, condition: str | None) -> list[Arrived]:
    """What comes until there is a record of `condition`; what it may be amended to comes later."""
    records: list[Arrived] = []
    deadline = time.monotonic() + _WAIT_S
    while condition is not None and condition not in [record.condition for record in records]:
        if time.monotonic() > deadline:
            break
        records += queue.collect(1, 0.5)
    return records
