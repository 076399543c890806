"""Messages as they come to the collect queue: the sidecar's (checked against its own schema) and AWS's own shapes."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from handlers.redrive.record import Message

SCHEMA = Path(__file__).parents[2] / "extension" / "record.schema.json"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:failures"
ORDERS = "arn:aws:lambda:eu-central-1:123456789012:function:orders"


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text()))


def record_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def sidecar_record(
    name: str = "one",
    event: bytes | None = b'{"order":1}',
    *,
    request_id: str | None = None,
    arn: str = ORDERS,
    condition: str = "HandledError",
    fingerprint: str = "00000000000000aa",
    timestamp: str = "2026-11-24T16:08:00.123Z",
    owner: str = "caller",
    encoded: bool = False,
    **details: Any,
) -> str:
    """The text of a sidecar's record; `name` makes the id. An event of None is absent."""
    context = {
        "requestId": f"request-{name}" if request_id is None else request_id,
        "functionArn": arn,
        "condition": condition,
        "approximateInvokeCount": None,
    }
    backstop: dict[str, Any] = {
        "schema": 1,
        "id": record_id(name),
        "fingerprint": fingerprint,
        "eventSource": None,
        "retryOwner": owner,
        "payloadSha256": hashlib.sha256(event).hexdigest() if event is not None else None,
        "payloadBytes": len(event) if event is not None else None,
        "traceId": None,
        "tenantId": None,
        "clientContext": None,
        "durationMs": 12.3,
        "deadline": "2026-11-24T16:08:03.000Z",
        "error": {"type": "ValueError", "message": "no stock", "stack": ["main.py:1"]},
        "logs": ["a line"],
        "tags": {"team": "payments"},
        "payloadRef": None,
        "redacted": [],
        "sidecar": "0.1.0",
        **details,
    }
    if event is None:
        backstop.setdefault("payloadAbsent", "BACKSTOP_CAPTURE=metadata")
        spliced = "null"
    elif encoded:
        backstop["payloadEncoding"] = "base64"
        spliced = json.dumps(base64.b64encode(event).decode())
    else:
        spliced = event.decode()
    text = (
        f'{{"version":"1.0","timestamp":"{timestamp}","requestContext":{json.dumps(context)},'
        f'"requestPayload":{spliced},"responseContext":{{"statusCode":200,"executedVersion":"$LATEST",'
        f'"functionError":"Unhandled"}},"responsePayload":{{"errorType":"ValueError","errorMessage":"no stock"}},'
        f'"backstop":{json.dumps(backstop)}}}'
    )
    _validator().validate(json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 4_300 else digits))
    return text


def message(body: str, queue_arn: str = QUEUE, sent_ms: int = 1_795_536_480_123, **attributes: str) -> Message:
    return Message("message-1", body, attributes, queue_arn, sent_ms)


def destination_record(request_id: str = "request-one", event: bytes | None = b'{"order":1}', arn: str = ORDERS) -> str:
    """AWS's on-failure destination record of an asynchronous invocation."""
    payload = "" if event is None else f'"requestPayload":{event.decode()},'
    return (
        '{"version":"1.0","timestamp":"2026-11-24T16:10:00.456Z",'
        f'"requestContext":{{"requestId":"{request_id}","functionArn":"{arn}:$LATEST",'
        f'"condition":"RetriesExhausted","approximateInvokeCount":3}},{payload}'
        '"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},'
        '"responsePayload":{"errorType":"ValueError","errorMessage":"no stock 17","stackTrace":["main.py:1"]}}'
    )


def by_sns(text: str, attributes: dict[str, str] | None = None) -> str:
    """A message as SQS gets it from a topic without raw delivery."""
    note: dict[str, Any] = {
        "Type": "Notification",
        "MessageId": "note-1",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:failed",
        "Message": text,
        "Timestamp": "2026-11-24T16:10:01.000Z",
    }
    if attributes:
        note["MessageAttributes"] = {name: {"Type": "String", "Value": value} for name, value in attributes.items()}
    return json.dumps(note)


def by_event_bridge(text: str) -> str:
    """A destination record as a rule hands it to SQS."""
    return (
        '{"version":"0","id":"event-1","detail-type":"Lambda Function Invocation Result - Failure","source":"lambda",'
        f'"account":"123456789012","time":"2026-11-24T16:10:01Z","region":"eu-central-1","resources":[],"detail":{text}}}'
    )


def stream_record(request_id: str = "request-one") -> str:
    """AWS's on-failure record of a stream's batch: no event, a range."""
    return json.dumps(
        {
            "requestContext": {
                "requestId": request_id,
                "functionArn": ORDERS,
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 3,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "version": "1.0",
            "timestamp": "2026-11-24T16:10:00.456Z",
            "DDBStreamBatchInfo": {"shardId": "shard-1", "startSequenceNumber": "1", "endSequenceNumber": "9"},
        }
    )
