"""The last-resort line: what is printed at SHUTDOWN for a record that could not be sent, so that CloudWatch Logs still has it.

It is the one place where a payload may meet a log, and only with LAST_RESORT=masked (DESIGN, rule 8).
"""

from __future__ import annotations

from extension import fastjson, payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from extension.record import Record

_PAYLOAD_LIMIT = 204_800
_MASK = "***"
_MAX_DEPTH = 64
SECRET_KEYS = frozenset(("authorization", "cookie", "set-cookie", "x-api-key", "password", "token", "secret"))


def _names_a_secret(text: str) -> bool:
    lowered = text.lower().replace("_", "-")
    return any(secret in lowered for secret in SECRET_KEYS) or "apikey" in lowered.replace("-", "")


def mask(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with the values of secret keys replaced, also inside strings that hold JSON."""
    if depth > _MAX_DEPTH:
        return _MASK
    if isinstance(value, dict):
        return {key: _MASK if _names_a_secret(key) else mask(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask(inner, depth + 1) for inner in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        return _mask_text(value, depth)
    return value


def _mask_text(text: str, depth: int) -> str:
    """Mask a string that holds JSON, or looks as if it did: what cannot be read but names a secret is masked as a whole."""
    try:
        inner = fastjson.loads_loose(text)
    except ValueError:
        return _MASK if _names_a_secret(text) else text
    masked = mask(inner, depth + 1)
    return text if masked == inner else fastjson.dumps(masked, ascii_only=True)


def line(record: Record, mode: str, reason: str) -> str:
    """Return the line for an undelivered record: `mode` is `metadata` or `masked`, `reason` is why it was not sent."""
    start, end, details_at = record.marks
    details = mask(fastjson.loads(record.body[details_at:-1].decode()))
    for name in ("logs", "clientContext"):  # what the function and its caller said
        details.pop(name, None)
    context = fastjson.loads(record.body[: start - len(b',"requestPayload":')].decode() + "}")["requestContext"]
    shown: dict[str, Any] = {
        "backstop": "undelivered",
        "why": reason,
        "id": record.id,
        "function": record.function,
        "condition": record.condition,
        "requestContext": context,
        "record": details,
    }
    if mode == "masked":
        shown.update(_masked_payload(record.body[start:end], details))
    return fastjson.dumps(shown, ascii_only=True)


def _masked_payload(event: bytes, details: dict[str, Any]) -> dict[str, Any]:
    if details.get("payloadAbsent"):
        return {}
    if details.get("payloadRef"):  # no event in the body: it was on its way to the bucket
        return {"payloadOmitted": f"over {_PAYLOAD_LIMIT} bytes"}
    raw = payload.from_base64(event) if details.get("payloadEncoding") == "base64" else event
    if len(raw) > _PAYLOAD_LIMIT:
        return {"payloadOmitted": f"over {_PAYLOAD_LIMIT} bytes"}
    for read in (
        fastjson.loads,
        fastjson.loads_loose,
    ):  # loosely where a number is longer than Python reads, or infinite
        try:
            masked = mask(read(raw.decode()))
            fastjson.dumps(masked)
        except ValueError:
            continue
        return {"maskedPayload": masked}
    return {"payloadOmitted": "not JSON, so that secrets in it cannot be told apart"}
