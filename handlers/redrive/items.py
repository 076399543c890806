"""Items of the table made from what was captured. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handlers.redrive import keys
from handlers.redrive.attributes import size
from handlers.redrive.record import Captured
from handlers.redrive.states import Status

INLINE_EVENT_BYTES = 300 * 1024
# DynamoDB's limit is 400 KB with names and all; the rest is left for what is added within version 1.
BODY_BYTES = 380 * 1024
_SHORT_TEXT = 256
_TAGS_BYTES = 1024

# Stronger signals amend weaker ones of the same moment (DESIGN, "Signals").
_STRENGTH = (
    "Reported",
    "PartialBatch",
    "HttpError",
    "HandledError",
    "StreamError",
    "InitError",
    "Crash",
    "OutOfMemory",
    "Timeout",
)
# Records of a part of an invocation, or of one that did not fail as a whole: none stands for another.
_PARTIAL = frozenset({"PartialBatch", "Reported"})


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Where the event's bytes are: in the body item, in S3, or nowhere."""

    inline: bytes | None = None
    bucket: str | None = None
    key: str | None = None


def rank(captured: Captured) -> str:
    """Return text that orders the records of one id: the later amends the earlier, of one time the stronger the weaker."""
    strength = _STRENGTH.index(captured.condition) if captured.condition in _STRENGTH else len(_STRENGTH)
    return f"{captured.timestamp}#{strength:02d}"


def is_whole(captured: Captured) -> bool:
    """Whether the record is of a whole invocation, so that a later attempt of the same request stands for it."""
    return bool(captured.request_id) and captured.condition not in _PARTIAL


def fits_inline(captured: Captured) -> bool:
    """Whether the event's bytes go into the table, beside the logs and the error."""
    event = captured.event
    if event is None:
        return True
    return len(event) <= INLINE_EVENT_BYTES and size(body(captured, StoredEvent(inline=event), 0)) <= BODY_BYTES


def head(captured: Captured, expires_at: int, collected_at: str) -> dict[str, Any]:
    """Return a new Failure item. `expires_at` in seconds since 1970."""
    part = keys.shard(captured.id)
    return {
        **keys.failure(captured.id),
        "itemType": "Failure",
        "failureId": captured.id,
        "status": Status.CAPTURED,
        "statusPart": keys.status_part(Status.CAPTURED, part),
        "attempts": 0,
        "collectedAt": collected_at,
        "expiresAt": expires_at,
        **described(captured),
    }


def described(captured: Captured) -> dict[str, Any]:
    """Return the attributes of a Failure item that a record gives, and an amended record gives anew."""
    part = keys.shard(captured.id)
    return {
        "by": captured.by,
        "function": captured.function,
        "functionArn": captured.function_arn,
        "functionPart": keys.function_part(captured.function, part),
        "condition": captured.condition,
        "fingerprint": captured.fingerprint,
        "groupPart": keys.group_part(captured.fingerprint, part),
        "requestId": captured.request_id or None,
        "timestamp": captured.timestamp,
        "seenKey": keys.seen(captured.timestamp, captured.id),
        "recordRank": rank(captured),
        "retryOwner": captured.retry_owner,
        "eventSource": captured.event_source,
        "marks": sorted(captured.marks) or None,
        "eventBytes": captured.event_bytes,
        "eventSha256": captured.event_sha256,
        "errorType": captured.error.type[:_SHORT_TEXT] or None,
        "errorMessage": captured.error.message[:_SHORT_TEXT] or None,
        "tags": _short_tags(captured),
        "tenantId": captured.tenant_id,
        "whole": is_whole(captured),
    }


def _short_tags(captured: Captured) -> dict[str, str] | None:
    tags: dict[str, str] = {}
    room = _TAGS_BYTES
    for name, value in captured.tags.items():
        room -= len(name.encode()) + len(value.encode())
        if room < 0:
            break
        tags[name] = value
    return tags or None


def body(captured: Captured, stored: StoredEvent, expires_at: int) -> dict[str, Any]:
    """Return the Body item: the event, and what only a person looks at."""
    return {
        **keys.body(captured.id),
        "itemType": "Body",
        "recordRank": rank(captured),
        "event": stored.inline,
        "eventBucket": stored.bucket,
        "eventKey": stored.key,
        "error": {
            "type": captured.error.type,
            "message": captured.error.message,
            "stack": list(captured.error.stack),
        },
        "logs": list(captured.logs) or None,
        "response": captured.response,
        "clientContext": captured.client_context,
        "expiresAt": expires_at,
    }


def sighting(captured: Captured, expires_at: int) -> dict[str, Any]:
    """Return the note under the request id."""
    return {
        **keys.sighting(captured.request_id, captured.id),
        "itemType": "Sighting",
        "failureId": captured.id,
        "timestamp": captured.timestamp,
        "by": captured.by,
        "whole": is_whole(captured),
        "expiresAt": expires_at,
    }
