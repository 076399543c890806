"""Failures inside an answer that Lambda calls a success: an HTTP status of 500 and more, items of a batch that failed. Pure.

Sources: AWS, "Set up Lambda proxy integrations in API Gateway"; "Handling errors for an SQS event source in Lambda"
(ReportBatchItemFailures); "Configuring partial batch response with Kinesis Data Streams and Lambda".
"""

from __future__ import annotations

from extension import fastjson, members, outcome
from extension.event_source import event_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PRELUDE_END = b"\0" * 8
_SERVER_ERROR = 500
_HTTP_SOURCES = ("aws:apigateway", "aws:elb", "aws:lambda-url")
_STREAM_SOURCES = ("aws:kinesis", "aws:dynamodb")


def http_status(answer: bytes) -> int | None:
    """Return the status in a proxy-integration response, which may be streamed (a JSON prelude and 8 NUL bytes), or None.

    Only the start of a long answer is needed, as far as `statusCode`.
    """
    prelude, _, _ = answer.partition(_PRELUDE_END)
    text = prelude.decode("utf-8", "replace")
    try:
        for name, start, end in members.object_members(text):
            if name == "statusCode":
                digits = text[start:end].strip('"')
                return int(digits) if len(digits) == 3 and digits.isascii() and digits.isdigit() else None
    except ValueError:
        pass  # cut, or not JSON: no status was found as far as it goes
    return None


def judge(event: bytes | None, answer: bytes, *, batches: bool, http: bool) -> outcome.Outcome | None:
    """Look into an answer that Lambda took as a success. Returns the failure in it, if it is of a kind that is asked for.

    `event` is None where it was not kept; then an HTTP status cannot be told from any other number of that name.
    """
    if batches:
        items = failed_items(answer)
        if items is not None:
            return outcome.Outcome(outcome.PARTIAL_BATCH, answer, items=tuple(items))
    if http and event is not None and b"statusCode" in answer:
        status = http_status(answer)
        if status is not None and status >= _SERVER_ERROR and _source(event) in _HTTP_SOURCES:
            return outcome.Outcome(outcome.HTTP_ERROR, answer, f"Http.{status}")
    return None


def _source(event: bytes) -> str | None:
    try:
        return event_source(fastjson.loads_loose(event.decode()))
    except ValueError:
        return None


class Part:
    """A piece of a batch that failed: `event` is an event of the same shape with only the failed records, to the letter.

    `key` tells pieces of one batch apart; `checkpoint` and `range` are there for streams.
    """

    __slots__ = ("checkpoint", "event", "key", "range")

    def __init__(
        self, key: str, event: str, checkpoint: str | None = None, between: tuple[str, str] | None = None
    ) -> None:
        self.key = key
        self.event = event
        self.checkpoint = checkpoint
        self.range = between

    def notes(self) -> dict[str, Any]:
        """Return what the record says of this piece."""
        return {
            "key": self.key,
            "checkpoint": self.checkpoint,
            "range": None if self.range is None else list(self.range),
        }


def failed_items(answer: bytes) -> list[str | None] | None:
    """Return the identifiers in `batchItemFailures` (None for a null, empty or missing one), or None where there is no list."""
    if b"batchItemFailures" not in answer:
        return None
    try:
        parsed = fastjson.loads(answer.decode())
    except ValueError:
        return None
    listed = parsed.get("batchItemFailures") if isinstance(parsed, dict) else None
    if not isinstance(listed, list) or not listed:
        return None
    found: list[str | None] = []
    for item in listed:
        identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
        found.append(identifier if isinstance(identifier, str) and identifier else None)
    return found


def failed_parts(event: str, identifiers: list[str | None]) -> list[Part]:
    """Return what of a batch Lambda will retry, for the identifiers that the function reported.

    SQS: each failed message. Kinesis and DynamoDB: everything from the lowest listed sequence number. An identifier that is null,
    empty or not in the batch means the whole batch, and so does an event of another shape.
    """
    records = _records(event)
    whole = [Part("*", event)]
    if not records:
        return whole
    source = records[0].source
    if source == "aws:sqs":
        by_id = {record.identifier: record for record in records}
        wanted = [by_id.get(identifier or "") for identifier in dict.fromkeys(identifiers)]
        if None in wanted:
            return whole
        return [Part(found.identifier, _batch([found])) for found in wanted if found is not None]
    if source in _STREAM_SOURCES:
        places = [
            min((at for at, record in enumerate(records) if record.identifier == identifier), default=None)
            for identifier in identifiers
        ]
        lowest = None if None in places else min(place for place in places if place is not None)
        rest = records if lowest is None else records[lowest:]
        first, last = rest[0].identifier, rest[-1].identifier
        return [Part(first, _batch(rest) if lowest else event, first, (first, last))]
    return whole


class _Record:
    __slots__ = ("identifier", "source", "text")

    def __init__(self, identifier: str, source: str, text: str) -> None:
        self.identifier = identifier
        self.source = source
        self.text = text


def _records(event: str) -> list[_Record]:
    try:
        places = [(start, end) for name, start, end in members.object_members(event) if name == "Records"]
        if not places:
            return []
        texts = [event[start:end] for start, end in members.array_items(event, places[-1][0])]
        return [_read(text) for text in texts]
    except ValueError:
        return []


def _read(text: str) -> _Record:
    parsed: Any = fastjson.loads_loose(text)
    if not isinstance(parsed, dict):
        raise ValueError("a record that is not an object")
    source = parsed.get("eventSource")
    if source == "aws:sqs":
        identifier = parsed.get("messageId")
    elif source == "aws:kinesis":
        identifier = _inner(parsed, "kinesis", "sequenceNumber")
    else:
        identifier = _inner(parsed, "dynamodb", "SequenceNumber")
    if not isinstance(source, str) or not isinstance(identifier, str):
        raise ValueError("a record without its identifier")
    return _Record(identifier, source, text)


def _inner(parsed: dict[str, Any], part: str, name: str) -> object:
    inner = parsed.get(part)
    return inner.get(name) if isinstance(inner, dict) else None


def _batch(records: list[_Record]) -> str:
    return '{"Records":[' + ",".join(record.text for record in records) + "]}"
