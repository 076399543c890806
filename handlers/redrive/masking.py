"""Masking for views: what a person or a program sees of an event never shows the values of secret keys. What is
stored is not touched."""

from __future__ import annotations

import json
from typing import Any

MASK = "***"
SECRET_WORDS = ("authorization", "cookie", "x-api-key", "xapikey", "apikey", "api-key", "password", "token", "secret")
_MAX_DEPTH = 64


def is_secret(key: str) -> bool:
    """Whether values under this key are masked: the key holds one of SECRET_WORDS, `_` read as `-`, in any case."""
    lowered = key.lower().replace("_", "-")
    return any(word in lowered for word in SECRET_WORDS)


def mask(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with the values of secret keys replaced, also inside strings that hold JSON."""
    if depth > _MAX_DEPTH:
        return MASK
    if isinstance(value, dict):
        return {key: MASK if is_secret(str(key)) else mask(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return _mask_list(value, depth)
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return json.dumps(mask(inner, depth + 1))
    return value


def _mask_list(values: list[Any], depth: int) -> list[Any]:
    # Headers also come as ["name", "value"] pairs and as {"name": …, "value": …}.
    if len(values) == 2 and isinstance(values[0], str) and is_secret(values[0]) and isinstance(values[1], str):
        return [values[0], MASK]
    return [mask(inner, depth + 1) for inner in values]


def mask_bytes(event: bytes) -> Any:
    """Return an event for a view: masked if it is JSON, else only its size (secrets in it cannot be told apart)."""
    try:
        parsed = json.loads(event)
    except (ValueError, RecursionError):
        return {"notShown": f"{len(event)} bytes that are not JSON"}
    return mask(parsed)
