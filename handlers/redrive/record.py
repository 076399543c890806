"""What a message on the collect queue says: a sidecar's failure record, or one of AWS's own. Pure.

AWS's own tell two things: that retries are used up, and, where no sidecar saw the failure, what failed.
Shapes: AWS Lambda Developer Guide, "Retaining records of asynchronous invocations" and "Retain discarded records";
Amazon EventBridge User Guide, "Using dead-letter queues"; Amazon SNS Developer Guide, "Dead-letter queues".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from handlers.redrive import keys
from handlers.redrive.dates import iso
from handlers.redrive.raw_json import value_text

UNKNOWN_FUNCTION = "unknown"
_FRAMES_IN_FINGERPRINT = 3
_MOST_DIGITS = 4_300
_VARIABLE = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9a-fA-F]{16,}|\d+")


class BadRecord(ValueError):
    """The message is none that can be collected; the text says why, without any of the event."""


@dataclass(frozen=True, slots=True)
class Error:
    """The error in one shape for all languages."""

    type: str
    message: str
    stack: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventRef:
    """Where an event lies in S3, gzipped."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Captured:
    """One failed invocation. `event` is None where it is in S3 (`event_ref`) or was not kept (mark `absent`)."""

    id: str
    by: Literal["sidecar", "aws"]
    function: str
    function_arn: str
    condition: str
    fingerprint: str
    request_id: str
    timestamp: str
    event: bytes | None
    event_ref: EventRef | None
    event_bytes: int | None
    # of the bytes that are kept, which may be fewer than came
    event_sha256: str | None
    marks: frozenset[str]
    retry_owner: str
    event_source: str | None
    error: Error
    logs: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    response: str | None = None
    client_context: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Exhausted:
    """AWS retries this request no more."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a message said. AWS's own records may say both."""

    captured: Captured | None
    exhausted: Exhausted | None


@dataclass(frozen=True, slots=True)
class Message:
    """An SQS message as it came: `attributes` are the message attributes' string values."""

    id: str
    body: str
    attributes: Mapping[str, str]
    queue_arn: str
    sent_ms: int


# --- the models: what must be there. Within version 1 fields are only ever added, so more is no fault. --------------------

_Text = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
_Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
_Condition = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,64}$")]
_LambdaArn = Annotated[
    str, StringConstraints(pattern=r"^arn:[a-z-]+:lambda:[a-z0-9-]*:[0-9]*:function:[A-Za-z0-9_-]{1,140}(:.+)?$")
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Context(_Model):
    requestId: str = Field(max_length=256)
    functionArn: _LambdaArn
    condition: _Condition
    approximateInvokeCount: int | None = None


class _Ref(_Model):
    bucket: _Text
    key: _Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    truncated: bool = False


class _Error(_Model):
    type: str = ""
    message: str = ""
    stack: list[str] = []


class _Backstop(_Model):
    schema_: Literal[1] = Field(alias="schema")
    id: _Uuid
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    eventSource: str | None = None
    retryOwner: Literal["caller", "lambda", "queue", "stream", "unknown"]
    payloadSha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    payloadBytes: int | None = Field(default=None, ge=0)
    payloadEncoding: Literal["base64"] | None = None
    payloadTruncated: bool = False
    payloadAbsent: str | None = None
    payloadRef: _Ref | None = None
    masked: bool = False
    batch: dict[str, Any] | None = None
    tenantId: str | None = None
    clientContext: str | None = None
    error: _Error = _Error()
    logs: list[str] = []
    tags: dict[str, str] = {}
    redacted: list[str] = []


class _FailureRecord(_Model):
    """AWS's shape: an on-failure destination record, with or without our part."""

    version: Literal["1.0"]
    timestamp: str
    requestContext: _Context
    responsePayload: Any = None
    backstop: _Backstop | None = None


class _Notification(_Model):
    """An SNS message as SQS gets it without raw delivery."""

    Type: Literal["Notification"]
    MessageId: str
    TopicArn: str
    Message: str
    MessageAttributes: dict[str, dict[str, str]] = {}


_Checked = TypeVar("_Checked", bound=_Model)


def parse(message: Message, function_of_queue: Mapping[str, str] | None = None) -> Parsed:
    """Return what a message says.

    `function_of_queue` names the function (ARN) behind a Lambda dead-letter queue (queue ARN): such messages do not
    say it themselves.
    Raises BadRecord.
    """
    dlq_function = (function_of_queue or {}).get(message.queue_arn)
    if "RequestID" in message.attributes and "ErrorCode" in message.attributes:
        return _lambda_dlq(message.body, message.attributes, message, dlq_function)
    if "RULE_ARN" in message.attributes and "TARGET_ARN" in message.attributes:
        return _event_bridge_dlq(message)
    value = _object(message.body)
    if value.get("Type") == "Notification" and "TopicArn" in value:
        return _from_sns(value, message, dlq_function)
    if value.get("source") == "lambda" and isinstance(value.get("detail"), dict):
        return _record(value["detail"], message.body, ("detail",))
    return _record(value, message.body, ())


def _whole_number(digits: str) -> int | str:
    """Read a number as far as Python does (4,300 digits): a longer one is somebody's event, which is kept as bytes anyway."""
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"not JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise BadRecord("not a JSON object, and without the attributes of a dead-letter queue's message")
    return value


def _checked(model: type[_Checked], value: Any) -> _Checked:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Where and what, never the value: it may be part of an event.
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise BadRecord("not a failure record: " + "; ".join(faults[:5])) from None


def _from_sns(value: dict[str, Any], message: Message, dlq_function: str | None) -> Parsed:
    note = _checked(_Notification, value)
    attributes = {name: attribute.get("Value", "") for name, attribute in note.MessageAttributes.items()}
    if "RequestID" in attributes and "ErrorCode" in attributes:
        return _lambda_dlq(note.Message, attributes, message, dlq_function)
    try:
        inner = _object(note.Message)
    except BadRecord:
        inner = {}
    if "requestContext" in inner and "version" in inner:
        return _record(inner, note.Message, ())
    if message.attributes.get("ErrorCode") or dlq_function:
        return _sns_dlq(note, value, message, dlq_function)
    raise BadRecord(
        "an SNS message that holds no failure record, from a queue that is not known as a dead-letter queue"
    )


def _record(value: dict[str, Any], text: str, path: tuple[str, ...]) -> Parsed:
    record = _checked(_FailureRecord, value)
    if record.backstop is not None:
        return Parsed(_by_sidecar(record, record.backstop, value, text, path), None)
    return _by_lambda(record, value, text, path)


def _by_sidecar(
    record: _FailureRecord, details: _Backstop, value: dict[str, Any], text: str, path: tuple[str, ...]
) -> Captured:
    marks = {
        name
        for name, there in (
            ("absent", details.payloadAbsent is not None),
            (
                "truncated",
                details.payloadTruncated or (details.payloadRef is not None and details.payloadRef.truncated),
            ),
            ("redacted", bool(details.redacted)),
            ("masked", details.masked),
        )
        if there
    }
    ref = None if details.payloadRef is None else EventRef(details.payloadRef.bucket, details.payloadRef.key)
    event = None
    if "absent" not in marks and ref is None:
        event = _event(value, text, path, encoded=details.payloadEncoding is not None)
        # What was cut, redacted or is a piece of a batch is not what the record's hash is of.
        whole = not marks and details.batch is None
        if whole and details.payloadSha256 not in (None, hashlib.sha256(event).hexdigest()):
            raise BadRecord("the event does not have the hash that the record gives")
    return Captured(
        id=details.id,
        by="sidecar",
        function=function_name(record.requestContext.functionArn),
        function_arn=record.requestContext.functionArn,
        condition=record.requestContext.condition,
        fingerprint=details.fingerprint,
        request_id=record.requestContext.requestId,
        timestamp=normal_time(record.timestamp),
        event=event,
        event_ref=ref,
        event_bytes=details.payloadBytes,
        event_sha256=_kept_hash(event, details),
        marks=frozenset(marks),
        retry_owner=details.retryOwner,
        event_source=details.eventSource,
        error=Error(clean(details.error.type), clean(details.error.message), tuple(map(clean, details.error.stack))),
        logs=tuple(map(clean, details.logs)),
        tags={clean(name): clean(tag) for name, tag in details.tags.items()},
        response=_response(text, path),
        client_context=details.clientContext,
        tenant_id=details.tenantId,
    )


def _kept_hash(event: bytes | None, details: _Backstop) -> str | None:
    """The hash of the bytes that are kept, so that a replay can check them."""
    if event is not None:
        return hashlib.sha256(event).hexdigest()
    return None if details.payloadRef is None else details.payloadRef.sha256


def _event(value: dict[str, Any], text: str, path: tuple[str, ...], *, encoded: bool) -> bytes:
    if encoded:
        try:
            return base64.b64decode(value.get("requestPayload") or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise BadRecord("requestPayload is not base64, as the record says it is") from None
    verbatim = value_text(text, *path, "requestPayload")
    if verbatim is None:
        raise BadRecord("no requestPayload, and the record does not say why")
    return _encode(verbatim)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadRecord("the event holds characters that are not UTF-8") from None


def _response(text: str, path: tuple[str, ...]) -> str | None:
    verbatim = value_text(text, *path, "responsePayload")
    return None if verbatim in (None, "null") else clean(verbatim or "")


def _by_lambda(record: _FailureRecord, value: dict[str, Any], text: str, path: tuple[str, ...]) -> Parsed:
    context = record.requestContext
    reason = f"AWS: {context.condition}"
    if "KinesisBatchInfo" in value or "DDBStreamBatchInfo" in value or "payload" in value:
        # A stream's record names a range of sequence numbers; the event itself stays on the stream.
        if not context.requestId:
            raise BadRecord("a stream's on-failure record without a request id")
        return Parsed(None, Exhausted(context.requestId, reason))
    verbatim = value_text(text, *path, "requestPayload")
    event = None if verbatim is None else _encode(verbatim)
    answer = record.responsePayload if isinstance(record.responsePayload, dict) else {}
    error = Error(
        clean(str(answer.get("errorType") or context.condition)),
        clean(str(answer.get("errorMessage") or "")),
        tuple(clean(str(frame)) for frame in answer.get("stackTrace") or answer.get("trace") or ()),
    )
    captured = _by_aws(
        ("lambda", context.functionArn, context.requestId),
        arn=context.functionArn,
        condition=context.condition,
        request_id=context.requestId,
        timestamp=normal_time(record.timestamp),
        event=event,
        error=error,
        source=None,
        response=_response(text, path),
    )
    return Parsed(captured, Exhausted(context.requestId, reason) if context.requestId else None)


def _lambda_dlq(event: str, attributes: Mapping[str, str], message: Message, function_arn: str | None) -> Parsed:
    """A message of a function's dead-letter queue or topic: the event as it was, the rest in attributes."""
    request_id = attributes["RequestID"]
    if not request_id:
        raise BadRecord("a dead-letter message with an empty RequestID")
    captured = _by_aws(
        ("lambda", function_arn or message.queue_arn, request_id),
        arn=function_arn,
        condition="RetriesExhausted",
        request_id=request_id,
        timestamp=iso(message.sent_ms / 1000),
        event=_encode(event),
        error=Error(f"ErrorCode {attributes['ErrorCode']}", clean(attributes.get("ErrorMessage", ""))),
        source=None,
    )
    return Parsed(captured, Exhausted(request_id, "AWS: a message of the function's dead-letter queue"))


def _event_bridge_dlq(message: Message) -> Parsed:
    """EventBridge could not hand the event to the target: the function never saw it."""
    target = message.attributes["TARGET_ARN"]
    is_function = bool(re.match(r"arn:[a-z-]+:lambda:[^:]*:[^:]*:function:", target))
    event_id = _object(message.body).get("id")
    captured = _by_aws(
        ("events", message.attributes["RULE_ARN"], target, str(event_id or message.id)),
        arn=target if is_function else None,
        condition="Undelivered",
        request_id="",
        timestamp=iso(message.sent_ms / 1000),
        event=_encode(message.body),
        error=Error(message.attributes.get("ERROR_CODE", ""), clean(message.attributes.get("ERROR_MESSAGE", ""))),
        source="aws:events",
    )
    return Parsed(captured, None)


def _sns_dlq(note: _Notification, value: dict[str, Any], message: Message, function_arn: str | None) -> Parsed:
    """SNS could not hand the message to the function. The event the function would have got is rebuilt, and marked so."""
    event = {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "EventSubscriptionArn": message.attributes.get("SubscriptionArn", note.TopicArn),
                "Sns": value,
            }
        ]
    }
    captured = _by_aws(
        ("sns", note.TopicArn, function_arn or message.queue_arn, note.MessageId),
        arn=function_arn,
        condition="Undelivered",
        request_id="",
        timestamp=iso(message.sent_ms / 1000),
        event=_encode(json.dumps(event, separators=(",", ":"))),
        error=Error(message.attributes.get("ErrorCode", ""), clean(message.attributes.get("ErrorMessage", ""))),
        source="aws:sns",
        marks=frozenset({"rebuilt"}),
    )
    return Parsed(captured, None)


def _by_aws(
    identity: tuple[str, ...],
    *,
    arn: str | None,
    condition: str,
    request_id: str,
    timestamp: str,
    event: bytes | None,
    error: Error,
    source: str | None,
    response: str | None = None,
    marks: frozenset[str] = frozenset(),
) -> Captured:
    function = function_name(arn) if arn else UNKNOWN_FUNCTION
    return Captured(
        id=keys.derived_id(*identity),
        by="aws",
        function=function,
        function_arn=arn or "",
        condition=condition,
        fingerprint=fingerprint(function, condition, error),
        request_id=request_id,
        timestamp=timestamp,
        event=event,
        event_ref=None,
        event_bytes=None if event is None else len(event),
        event_sha256=None if event is None else hashlib.sha256(event).hexdigest(),
        marks=marks | ({"absent"} if event is None else set()),
        retry_owner="lambda",
        event_source=source,
        error=error,
        response=response,
    )


def fingerprint(function: str, condition: str, error: Error) -> str:
    """Return 16 hex digits that are equal for failures of one cause; numbers and ids are left out."""
    told = error.stack[:_FRAMES_IN_FINGERPRINT] or (error.message,)
    parts = [function, condition, error.type, *(_VARIABLE.sub("#", part)[:512] for part in told)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def function_name(arn: str) -> str:
    """Return the name in a function's ARN, without version or alias."""
    return arn.split(":function:", 1)[1].split(":")[0]


def clean(text: str) -> str:
    """Return the text with what UTF-8 cannot hold (lone surrogates) replaced by `?`."""
    return text.encode("utf-8", "replace").decode()


def normal_time(text: str) -> str:
    """Return an ISO 8601 time as UTC with milliseconds, so that times compare as text. Raises BadRecord."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRecord("the timestamp is not an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise BadRecord("the timestamp has no time zone")
    return iso(moment.timestamp())
