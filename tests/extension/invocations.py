"""Invocations, settings and records as the tests of the failure's way need them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema

from extension import record as records
from extension.inflight import Invocation
from extension.outcome import HANDLED_ERROR, Outcome
from extension.payload import Payload
from extension.record import Record
from extension.settings import Settings

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:pay"
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/failures"
REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
DEADLINE_MS = 1_795_536_480_123
NONCE = "0123456789abcdef0123456789abcdef"
MISSING: Any = object()


def settings(**values: str) -> Settings:
    """Make settings of a function `pay`; keywords are names without the prefix, in lower case."""
    return Settings(
        {
            "AWS_LAMBDA_FUNCTION_NAME": "pay",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": "eu-west-1",
            **{f"BACKSTOP_{name.upper()}": value for name, value in values.items()},
        }
    )


def payload(pieces: Iterable[bytes], room: int = 1 << 30, whole: bool = True) -> Payload:
    """Take an event in pieces, of which `room` bytes may be kept."""
    taken = Payload()
    for piece in pieces:
        room -= taken.add(piece, room)
    taken.whole = whole
    return taken


def failed(
    event: bytes | None = b"{}", outcome: Outcome | None = None, request_id: str | None = REQUEST_ID, **attributes: Any
) -> Invocation:
    """Make an invocation that has ended; `event` None stands for one that did not pass the proxy."""
    invocation = Invocation(request_id, DEADLINE_MS if request_id else 0, ARN if request_id else "", 20)
    if event is not None:
        invocation.payload = payload([event])
        invocation.observed.set()
    invocation.outcome = outcome or Outcome(HANDLED_ERROR, b'{"errorType":"E","errorMessage":"boom"}')
    invocation.ended_at = invocation.opened_at + 0.0123
    for name, value in attributes.items():
        setattr(invocation, name, value)
    return invocation


def build(invocation: Invocation, options: Settings | None = None) -> Record:
    """Make the record of an invocation that has ended."""
    assert invocation.outcome is not None
    return records.build(invocation, invocation.outcome, invocation.payload, options or settings(), NONCE)


@functools.cache
def _validator() -> Any:
    schema = json.loads((Path(records.__file__).parent / "record.schema.json").read_bytes())
    cls = jsonschema.validators.validator_for(schema)
    cls.check_schema(schema)
    return cls(schema)


def read(record: Record) -> dict[str, Any]:
    """Read a record's message as a consumer does, and hold it against the schema and what SQS takes."""
    text = record.body.decode("utf-8")
    refused = [character for character in set(text) if not sqs_takes(ord(character))]
    assert not refused, f"SQS refuses {refused!r}"
    message = json.loads(text, parse_int=_whole_number)
    _validator().validate(message)
    assert isinstance(message, dict)
    return message


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) < 4_000 else digits  # over that Python refuses, by default, to read one


def sqs_takes(code: int) -> bool:
    """Tell whether a character may be in a message (Amazon SQS API Reference, SendMessage, MessageBody)."""
    return code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF
