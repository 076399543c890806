"""The form in which an event goes into its record: to the letter, without what must not be stored, or why it is not there."""

from __future__ import annotations

from extension import fastjson, payload
from extension.event_source import event_source, retry_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from extension.inflight import Invocation
    from extension.payload import Payload
    from extension.settings import Settings
    from extension.soft_failures import Part

_PARSED_BYTES = 1_048_576
_MAX_PATHS = 1_000


class StoredEvent:
    """An event as JSON text, what the record says of it, and the values that were cut out of it."""

    __slots__ = ("notes", "secrets", "text")

    def __init__(self, text: bytes, notes: dict[str, Any], secrets: set[str] | None = None) -> None:
        self.text = text
        self.notes = notes
        self.secrets = secrets or set()


def absent(why: str, notes: dict[str, Any] | None = None) -> StoredEvent:
    """Return the form of an event that is not stored."""
    return StoredEvent(b"null", {**(notes or {}), "payloadAbsent": why})


def stored_event(
    invocation: Invocation, kept: Payload | None, settings: Settings, part: Part | None = None
) -> StoredEvent:
    """Return an event's form in its record. `part` is a piece of a batch that stands for the whole event."""
    if kept is None:
        return absent(_why_not_kept(invocation, settings))
    raw = kept.raw()
    notes: dict[str, Any] = {}
    if part is not None:
        raw = part.event.encode()
        notes["batch"] = part.notes()
    if kept.whole:
        notes["payloadSha256"], notes["payloadBytes"] = (
            (kept.sha256(), kept.seen) if part is None else (payload.sha256_hex(raw), len(raw))
        )
    is_whole = part is not None or (kept.whole and not kept.cut)
    if not is_whole:  # over MEMORY_BYTES; or the runtime, or Lambda, went away while it passed
        if settings.redact:
            return absent("BACKSTOP_REDACT cannot be applied to a part of an event", notes)
        return StoredEvent(payload.to_base64(raw), {**notes, "payloadEncoding": "base64", "payloadTruncated": True})
    secrets: set[str] = set()
    if settings.redact:
        from extension.redact import redact

        try:
            done = redact(raw.decode(), settings.redact)
        except ValueError as error:
            return absent(f"BACKSTOP_REDACT cannot be applied: {error}", notes)
        if done.paths:
            raw, secrets = done.text.encode(), done.secrets
            notes["redacted"] = done.paths[:_MAX_PATHS]
    # One that is too long for the queue will be cut: to parse it would cost time and memory for nothing.
    if len(raw) > _PARSED_BYTES or not payload.spliceable(raw):
        return StoredEvent(payload.to_base64(raw), {**notes, "payloadEncoding": "base64"}, secrets)
    notes["eventSource"] = source = event_source(fastjson.loads_loose(raw.decode()))
    notes["retryOwner"] = retry_owner(source)
    return StoredEvent(raw, notes, secrets)


def _why_not_kept(invocation: Invocation, settings: Settings) -> str:
    if invocation.request_id is None:
        return "initialization"
    if settings.capture == "metadata":
        return "BACKSTOP_CAPTURE=metadata"
    if invocation.observed.is_set:
        return "let go for later events before it could be written"
    return "not seen: the runtime does not use the proxy"
