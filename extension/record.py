"""The failure record, version 1: the shape of an AWS on-failure destination record plus a `backstop` object (record.schema.json).

The event is spliced in byte for byte; everything else is written as ASCII JSON, so that SQS can refuse none of it.
"""

from __future__ import annotations

import time

from extension import __version__, fastjson, outcome, payload
from extension.fingerprint import fingerprint
from extension.stored_event import StoredEvent, stored_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from extension.inflight import Invocation
    from extension.outcome import ErrorSummary, Outcome
    from extension.payload import Payload
    from extension.settings import Settings
    from extension.soft_failures import Part

QUEUE_LIMIT = 1_048_576
_ATTRIBUTE_ROOM = 2_048
_ERROR_ROOM = 65_536
_TYPE_ROOM = 2_048
_MESSAGE_ROOM = 16_384
_STACK_ROOM = 49_152
_STACK_FRAMES = 32
_LOG_ROOM = 196_608
_NAMESPACE = bytes.fromhex("3c0b5b1e0f5c5d0e9c8f6f1d2a4b7e60")


class Record:
    """One failure record as it goes to the queue.

    `marks` are places in `body`: where the event begins and ends, and where the `backstop` object begins. `large_event` is
    there where the event goes to the bucket: then `body` names its place, as `payloadRef`.
    """

    __slots__ = ("body", "condition", "fingerprint", "function", "id", "large_event", "marks")

    def __init__(
        self,
        record_id: str,
        function: str,
        condition: str,
        fingerprint: str,
        body: bytes,
        marks: tuple[int, int, int],
        large_event: bytes | None = None,
    ) -> None:
        self.id = record_id
        self.function = function
        self.condition = condition
        self.fingerprint = fingerprint
        self.body = body
        self.marks = marks
        self.large_event = large_event

    def encode(self) -> bytes:
        """Return the form in the spool: a header line, the body, and the large event if there is one."""
        header = [self.id, self.function, self.condition, self.fingerprint, *self.marks]
        if self.large_event is None:
            return fastjson.dumps(header, ascii_only=True).encode() + b"\n" + self.body
        header.append(len(self.body))
        return fastjson.dumps(header, ascii_only=True).encode() + b"\n" + self.body + self.large_event

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Undo `encode`. Raises ValueError."""
        line, newline, body = data.partition(b"\n")
        header = fastjson.loads(line.decode())
        kinds = [type(entry) for entry in header] if newline and isinstance(header, list) else []
        if kinds[:7] != [str] * 4 + [int] * 3 or kinds[7:] not in ([], [int]):
            raise ValueError("not a spooled record")
        record_id, function, condition, mark, *marks = header[:7]
        large_event = None
        if len(header) == 8:
            body, large_event = body[: header[7]], body[header[7] :]
        return cls(record_id, function, condition, mark, body, (marks[0], marks[1], marks[2]), large_event)


def record_id(function_arn: str, request_id: str, attempt: str, part: str = "") -> str:
    """Return the record's id: a UUID, version 5 (RFC 9562), of what makes an attempt unique.

    `attempt` is the Invocation-Id, or else the deadline in ms: an asynchronous retry keeps the request id and has another deadline.
    `part` is an item key or a report number. The condition is not in it, so that an amended record keeps its id.
    """
    from hashlib import sha1

    name = "\n".join((function_arn, request_id, attempt, part)).encode("utf-8", "surrogatepass")
    digest = bytearray(sha1(_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def iso_time(milliseconds: float) -> str:
    """Return a time (ms since 1970) as ISO 8601 in UTC with milliseconds."""
    seconds, rest = divmod(int(milliseconds), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"


def identify(invocation: Invocation, settings: Settings, environment_nonce: str, part: str = "") -> str:
    """Return the id of an invocation's record; a failed initialization has `environment_nonce` for a request id."""
    attempt = invocation.invocation_id or str(invocation.deadline_ms)
    return record_id(_arn(invocation, settings), invocation.request_id or environment_nonce, attempt, part)


def build_all(
    invocation: Invocation, ended: Outcome, event_kept: Payload | None, settings: Settings, environment_nonce: str
) -> list[Record]:
    """Make the records of a failure: one, but for a batch of which several items failed. See `build`."""
    if ended.condition != outcome.PARTIAL_BATCH or event_kept is None or not event_kept.whole or event_kept.cut:
        return [build(invocation, ended, event_kept, settings, environment_nonce)]
    from extension.soft_failures import failed_parts

    parts = failed_parts(event_kept.raw().decode("utf-8", "replace"), list(ended.items))
    return [build(invocation, ended, event_kept, settings, environment_nonce, part) for part in parts]


def build(
    invocation: Invocation,
    ended: Outcome,
    event_kept: Payload | None,
    settings: Settings,
    environment_nonce: str,
    part: Part | None = None,
) -> Record:
    """Make the record of a failed invocation, or of a failed initialization (`environment_nonce` makes its id).

    The outcome and the event are given apart: both can change hands while this runs. `part` is a piece of the event, a batch.
    The record fits QUEUE_LIMIT: an event that does not goes to the bucket, or is cut and marked where there is none.
    """
    event = stored_event(invocation, event_kept, settings, part)
    notes = event.notes
    ended = _without_secrets(ended, event, settings)
    summary = outcome.summarise(ended)
    arn = _arn(invocation, settings)
    identifier = identify(invocation, settings, environment_nonce, part.key if part is not None else "")
    mark = fingerprint(settings.function_name, ended.condition, summary)
    details: dict[str, Any] = {
        "schema": 1,
        "id": identifier,
        "fingerprint": mark,
        "eventSource": notes.pop("eventSource", None),
        "retryOwner": notes.pop("retryOwner", "unknown"),
        "payloadSha256": None,
        "payloadBytes": None,
        "redacted": [],
        **notes,
        "traceId": invocation.trace_id,
        "tenantId": invocation.tenant_id,
        "clientContext": invocation.client_context,
        "durationMs": _duration(invocation),
        "deadline": iso_time(invocation.deadline_ms) if 0 < invocation.deadline_ms < 253_402_300_799_000 else None,
        "error": {
            "type": _clip(summary.type, _TYPE_ROOM),
            "message": _clip(summary.message, _MESSAGE_ROOM),
            "stack": _stack(summary),
        },
        "logs": _fitting(_scrubbed(list(invocation.log_lines), event)),
        "tags": settings.tags,
        "payloadRef": None,
        "sidecar": __version__,
    }
    if not invocation.logs_done.is_set:
        details["logsIncomplete"] = True
    if invocation.suppressed_before:
        details["suppressedBefore"] = invocation.suppressed_before
    if ended.error_cut:
        details["errorTruncated"] = True
    context = {
        "requestId": invocation.request_id or "",
        "functionArn": arn,
        "condition": ended.condition,
        "approximateInvokeCount": None,
    }
    prefix = (
        f'{{"version":"1.0","timestamp":"{iso_time(time.time() * 1000)}",'
        f'"requestContext":{fastjson.dumps(context, ascii_only=True)},"requestPayload":'
    ).encode()
    response = {
        "statusCode": 200,
        "executedVersion": settings.function_version,
        "functionError": "Unhandled",
    }
    suffix = (
        b',"responseContext":'
        + fastjson.dumps(response, ascii_only=True).encode()
        + b',"responsePayload":'
        + _response_payload(ended, summary)
        + b',"backstop":'
    )
    base = Record(identifier, settings.function_name, ended.condition, mark, b"", (0, 0, 0))
    if settings.bucket is not None:
        whole = _join(base, (prefix, event.text, suffix), details)
        return whole if fits(whole, QUEUE_LIMIT) else check_in(whole, settings.bucket, invocation.received_ms)
    return _assemble(base, (prefix, event.text, suffix), details, QUEUE_LIMIT)


def fits(record: Record, limit: int) -> bool:
    """Tell whether a record and its attributes fit a message of `limit` bytes."""
    return len(record.body) + _ATTRIBUTE_ROOM <= limit


def check_in(record: Record, bucket: str, received_ms: float | None = None) -> Record:
    """Return the record with its event taken out, to be put in the bucket; `payloadRef` says where.

    A record without an event, or whose event is out already, is returned as it is.
    """
    prefix, event, suffix, details = _pieces(record)
    if record.large_event is not None or "payloadAbsent" in details:
        return record
    raw = payload.from_base64(event) if details.pop("payloadEncoding", None) == "base64" else event
    day = iso_time(time.time() * 1000 if received_ms is None else received_ms)[:10].replace("-", "/")
    details["payloadRef"] = {
        "bucket": bucket,
        "key": f"failures/{record.function}/{day}/{record.id}.json.gz",
        "bytes": len(raw),
        "sha256": payload.sha256_hex(raw),
        "truncated": details.pop("payloadTruncated", False),
    }
    out = _join(record, (prefix, b"null", suffix), details)
    out.large_event = raw
    return out


def take_back(record: Record, limit: int) -> Record | None:
    """Undo `check_in`, for a bucket that is closed to us: the event goes into the message after all, cut to fit and marked."""
    if record.large_event is None:
        return record
    prefix, _, suffix, details = _pieces(record)
    if details["payloadRef"]["truncated"]:
        details["payloadTruncated"] = True
    details.update(payloadRef=None, payloadEncoding="base64")
    back = _join(record, (prefix, payload.to_base64(record.large_event), suffix), details)
    back.large_event = None
    return shrink(back, limit)


def place(record: Record) -> tuple[str, str]:
    """Return bucket and key of a record's large event."""
    reference = _pieces(record)[3]["payloadRef"]
    return reference["bucket"], reference["key"]


def shrink(record: Record, limit: int) -> Record | None:
    """Return the record cut to fit a queue that takes only `limit` bytes a message, or None if even the rest is too large."""
    prefix, event, suffix, details = _pieces(record)
    shrunk = _assemble(record, (prefix, event, suffix), details, limit)
    if fits(shrunk, limit):
        return shrunk
    for key in ("logs", "tags"):
        details[key] = type(details[key])()
        details["logsIncomplete"] = True
    details["error"]["stack"] = []
    shrunk = _assemble(record, (prefix, event, suffix), details, limit)
    return shrunk if fits(shrunk, limit) else None


def _pieces(record: Record) -> tuple[bytes, bytes, bytes, dict[str, Any]]:
    """Take a record apart: what stands before its event, the event, what stands before the details, the details."""
    start, end, details_at = record.marks
    body = record.body
    return body[:start], body[start:end], body[end:details_at], fastjson.loads(body[details_at:-1].decode())


def _join(base: Record, pieces: tuple[bytes, bytes, bytes], details: dict[str, Any]) -> Record:
    prefix, event, suffix = pieces
    event_end = len(prefix) + len(event)
    marks = (len(prefix), event_end, event_end + len(suffix))
    body = b"".join((prefix, event, suffix, fastjson.dumps(details, ascii_only=True).encode(), b"}"))
    return Record(base.id, base.function, base.condition, base.fingerprint, body, marks, base.large_event)


def _assemble(base: Record, pieces: tuple[bytes, bytes, bytes], details: dict[str, Any], limit: int) -> Record:
    """Join the pieces, with the event cut to fit `limit` if need be."""
    prefix, event, suffix = pieces
    tail = suffix + fastjson.dumps(details, ascii_only=True).encode() + b"}"
    room = limit - _ATTRIBUTE_ROOM - len(prefix) - len(tail)
    if len(event) > room:
        raw = payload.from_base64(event) if details.get("payloadEncoding") == "base64" else event
        details = {**details, "payloadEncoding": "base64", "payloadTruncated": True}
        tail = suffix + fastjson.dumps(details, ascii_only=True).encode() + b"}"
        room = limit - _ATTRIBUTE_ROOM - len(prefix) - len(tail) - 2
        event = payload.to_base64(raw[: max(0, room // 4 * 3)])
    return _join(base, (prefix, event, suffix), details)


def _arn(invocation: Invocation, settings: Settings) -> str:
    """Return the function's ARN, as the event named it; an initialization has had no event, so it is put together."""
    if invocation.arn:
        return invocation.arn
    region = settings.own_region or ""
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return f"arn:{partition}:lambda:{region}:{settings.account_id}:function:{settings.function_name}"


def _without_secrets(ended: Outcome, event: StoredEvent, settings: Settings) -> Outcome:
    """Cut what was cut out of the event out of its error, too."""
    if not settings.redact or ended.error is None:
        return ended
    from extension.redact import anywhere, redact, scrub

    text = ended.error.decode("utf-8", "replace")
    try:
        text = redact(text, anywhere(settings.redact)).text
    except ValueError:
        pass  # not JSON: what is known to be secret is cut all the same
    cleaned = scrub(text, event.secrets).encode("utf-8", "replace")
    return outcome.Outcome(ended.condition, cleaned, ended.error_type, error_cut=ended.error_cut, items=ended.items)


def _scrubbed(lines: list[str], event: StoredEvent) -> list[str]:
    if not event.secrets:
        return lines
    from extension.redact import scrub

    return [scrub(line, event.secrets) for line in lines]


def _response_payload(ended: Outcome, summary: ErrorSummary) -> bytes:
    """Return the runtime's error as it gave it, where it is JSON and not too long; else its summary."""
    given = ended.error
    if given is not None and not ended.error_cut and len(given) <= _ERROR_ROOM and payload.spliceable(given):
        return given
    error = {
        "errorType": _clip(summary.type, _TYPE_ROOM),
        "errorMessage": _clip(summary.message, _MESSAGE_ROOM),
        "stackTrace": _stack(summary),
    }
    return fastjson.dumps(error, ascii_only=True).encode()


def _stack(summary: ErrorSummary) -> list[str]:
    return [_clip(frame, _STACK_ROOM // _STACK_FRAMES) for frame in summary.frames[:_STACK_FRAMES]]


def _clip(text: str, room: int) -> str:
    """Return the beginning of a text that takes at most `room` bytes as it will be written: an emoji takes 12."""
    text = text[:room]
    while (size := len(fastjson.quote(text, ascii_only=True))) > room:
        text = text[: max(0, len(text) * room // size - 1)]
    return text


def _duration(invocation: Invocation) -> float | None:
    if invocation.ended_at is None or not invocation.observed.is_set:
        return None
    return round((invocation.ended_at - invocation.opened_at) * 1000, 3)


def _fitting(lines: list[str]) -> list[str]:
    """Return the last lines that fit the room for logs, as they will be written."""
    room = _LOG_ROOM
    kept = 0
    for line in reversed(lines):
        room -= len(fastjson.quote(line, ascii_only=True)) + 1
        if room < 0:
            break
        kept += 1
    return lines[len(lines) - kept :]
