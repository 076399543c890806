"""PUT /2022-07-01/telemetry: what a subscription may ask for ("Lambda Telemetry API reference"). No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sandbox.answers import Answer, error

# The Logs API, which the Telemetry API supersedes, has the same subscription with schemas of its own.
LOGS_SCHEMAS = ("2020-08-15", "2021-03-18")
SCHEMAS = ("2022-07-01", "2022-12-13", "2025-01-29")
TYPES = ("platform", "function", "extension")
HOSTS = ("sandbox.localdomain", "sandbox")
_RUNTIME_API_PORT = 9001

# name: (least, most, default). AWS's pages disagree on the default of maxItems (1,000 or 10,000).
_BUFFERING = {
    "maxItems": (1_000, 10_000, 10_000),
    "maxBytes": (262_144, 1_048_576, 262_144),
    "timeoutMs": (25, 30_000, 1_000),
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one extension gets, when, and where. `uri_path` is None for a TCP destination."""

    schema: str
    types: frozenset[str]
    max_items: int
    max_bytes: int
    timeout_ms: int
    port: int
    uri_path: str | None

    @property
    def protocol(self) -> str:
        return "TCP" if self.uri_path is None else "HTTP"


class Invalid(Exception):
    """The body is refused with 400 ValidationError."""

    @property
    def answer(self) -> Answer:
        return error(400, "ValidationError", str(self))


def parse(body: bytes, *, managed: bool, logs_api: bool = False) -> Subscription:
    """Raises Invalid. `managed`: Managed Instances take schema 2025-01-29 only. `logs_api`: PUT /2020-08-15/logs."""
    try:
        wanted = json.loads(body)
    except ValueError as problem:
        raise Invalid(f"failed to parse JSON: {problem}") from None
    if not isinstance(wanted, dict):
        raise Invalid("schema validation error: the body is not an object")
    schema = wanted.get("schemaVersion")
    allowed = LOGS_SCHEMAS if logs_api else SCHEMAS[-1:] if managed else SCHEMAS
    if logs_api:
        # As old as the API: subscriptions of its first version name no schema.
        schema = schema or LOGS_SCHEMAS[0]
    if not isinstance(schema, str) or schema not in allowed:
        raise Invalid(f"schema validation error: schemaVersion must be one of {', '.join(allowed)}")
    port, path = _destination(wanted.get("destination"))
    items, size, timeout_ms = _buffering(wanted.get("buffering"))
    return Subscription(schema, _types(wanted.get("types")), items, size, timeout_ms, port, path)


def _types(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value:
        raise Invalid("schema validation error: types must be a list with at least one entry")
    unknown = [name for name in value if name not in TYPES]
    if unknown:
        raise Invalid(f"schema validation error: unknown type {unknown[0]!r}")
    return frozenset(value)


def _buffering(value: Any) -> tuple[int, int, int]:
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise Invalid("schema validation error: buffering is not an object")
    chosen = []
    for name, (least, most, default) in _BUFFERING.items():
        number = value.get(name, default)
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise Invalid(f"schema validation error: buffering.{name} must be an integer from {least} to {most}")
        chosen.append(number)
    return chosen[0], chosen[1], chosen[2]


def _destination(value: Any) -> tuple[int, str | None]:
    if not isinstance(value, dict):
        raise Invalid("schema validation error: destination is missing")
    protocol = value.get("protocol")
    if protocol == "TCP":
        port = value.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65_535:
            raise Invalid("schema validation error: destination.port must be an integer from 1 to 65535")
        return _usable(port), None
    if protocol != "HTTP":
        raise Invalid("schema validation error: destination.protocol must be HTTP or TCP")
    uri = value.get("URI")
    if not isinstance(uri, str) or not uri:
        raise Invalid("schema validation error: destination.URI is missing")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as problem:
        raise Invalid(f"Invalid destination: {problem}") from None
    if parts.scheme != "http" or parts.hostname not in HOSTS:
        raise Invalid(f"Invalid destination: destination.URI host must be {HOSTS[0]}")
    if port is None:
        raise Invalid("URI port is not provided")
    return _usable(port), (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _usable(port: int) -> int:
    if port == _RUNTIME_API_PORT:
        raise Invalid(f"Invalid destination: port {_RUNTIME_API_PORT} is Lambda's own")
    return port
