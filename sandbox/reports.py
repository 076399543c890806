"""What telemetry tells of an invocation's end: the spans and metrics of runtimeDone and report. No I/O."""

from __future__ import annotations

import math
import time
from typing import Any

from sandbox import events
from sandbox.config import Function
from sandbox.invocation import Invocation


def response_spans(invocation: Invocation) -> list[dict[str, Any]]:
    """responseLatency and responseDuration, where there was a response."""
    if invocation.first_byte is None:
        return []
    last = invocation.last_byte or time.monotonic()
    return [
        events.span("responseLatency", invocation.started_at, invocation.first_byte - invocation.started),
        events.span("responseDuration", invocation.at(invocation.first_byte), last - invocation.first_byte),
    ]


def runtime_done(invocation: Invocation, status: str, error_type: str | None) -> dict[str, Any]:
    """The record of platform.runtimeDone, as of now."""
    spans = response_spans(invocation)
    ready = invocation.runtime_ready
    if ready is not None and invocation.last_byte is not None:
        overhead = ready - invocation.last_byte
        spans.append(events.span("runtimeOverhead", invocation.at(invocation.last_byte), overhead))
    return events.runtime_done(
        invocation.request_id,
        status,
        error_type,
        (ready or time.monotonic()) - invocation.started,
        invocation.produced_bytes if invocation.responded else None,
        spans,
        invocation.trace,
    )


def report(
    function: Function,
    invocation: Invocation,
    status: str,
    error_type: str | None,
    spans: list[dict[str, Any]],
    more: dict[str, float | int | None],
) -> dict[str, Any]:
    """The record of platform.report, as of now. `more` are metrics by name; those that are None are left out."""
    metrics: dict[str, Any] = {"durationMs": events.milliseconds(time.monotonic() - invocation.started)}
    if not function.managed:
        metrics["billedDurationMs"] = math.ceil(metrics["durationMs"])
        metrics["memorySizeMB"] = function.memory_mb
        metrics.update({name: value for name, value in more.items() if value is not None})
    return events.report(invocation.request_id, status, error_type, metrics, spans, invocation.trace)
