"""Telemetry's events ("Lambda Telemetry API Event schema reference"), and how each schema version shows them. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sandbox.config import Function
from sandbox.registry import Extension
from sandbox.subscription import LOGS_SCHEMAS

Record = dict[str, Any] | str


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `category` is what subscriptions choose by: platform, function or extension. `at` in seconds since 1970."""

    at: float
    kind: str
    record: Record

    @property
    def category(self) -> str:
        return "platform" if self.kind.startswith("platform.") else self.kind

    def for_subscriber(self, schema: str, *, json_logs: bool) -> list[bytes]:
        """What a subscriber of this schema gets of it: mostly itself; the Logs API's schemas have fewer and simpler events."""
        if schema not in LOGS_SCHEMAS:
            return [self.encode(schema, json_logs=json_logs)]
        return [event.encode("2022-07-01", json_logs=False) for event in self._as_logs(schema)]

    def _as_logs(self, schema: str) -> list[Event]:
        """As "Lambda Logs API" has them: start, end, report; runtimeDone from 2021-03-18 on; no events of the initialization."""
        record = self.record
        if isinstance(record, str) or self.kind in ("platform.extension", "platform.logsDropped"):
            return [self]
        if self.kind == "platform.telemetrySubscription":
            return [replace(self, kind="platform.logsSubscription")]
        shown: dict[str, Any] = {
            name: record[name] for name in ("requestId", "version", "status", "metrics") if name in record
        }
        if self.kind == "platform.start":
            return [replace(self, record=shown)]
        if self.kind == "platform.runtimeDone" and schema != LOGS_SCHEMAS[0]:
            return [replace(self, record={name: shown[name] for name in ("requestId", "status")})]
        if self.kind == "platform.report":
            end = replace(self, kind="platform.end", record={"requestId": shown["requestId"]})
            return [end, replace(self, record={name: shown[name] for name in ("requestId", "metrics")})]
        return []

    def encode(self, schema: str, *, json_logs: bool) -> bytes:
        """As JSON. Schema 2022-07-01 has text only in log records; the later ones have objects where logging is in JSON."""
        record: Any = self.record
        if isinstance(record, str) and json_logs and schema != "2022-07-01" and record.startswith("{"):
            record = _object(record)
        event = {"time": iso(self.at), "type": self.kind, "record": record}
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _object(line: str) -> Any:
    """A line of JSON logging as the object that it is; anything else stays text."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return line
    return parsed if isinstance(parsed, dict) else line


def iso(at: float) -> str:
    """2022-10-12T00:00:15.064Z"""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Trace:
    """X-Ray's header of one invocation."""

    value: str

    def record(self) -> dict[str, str]:
        return {"type": "X-Amzn-Trace-Id", "value": self.value}


def milliseconds(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1000, 3)


def span(name: str, started_at: float, seconds: float) -> dict[str, Any]:
    """`started_at` in seconds since 1970."""
    return {"name": name, "start": iso(started_at), "durationMs": milliseconds(seconds)}


def _with_error(record: dict[str, Any], error_type: str | None) -> dict[str, Any]:
    if error_type is not None:
        record["errorType"] = error_type
    return record


def init_start(function: Function, phase: str, instance_id: str) -> dict[str, Any]:
    return {
        "initializationType": function.mode.value,
        "phase": phase,
        "functionName": function.name,
        "functionVersion": function.version,
        "instanceId": instance_id,
        "instanceMaxMemory": function.memory_mb * 1024 * 1024,
    }


def init_runtime_done(function: Function, phase: str, status: str, error_type: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {"initializationType": function.mode.value, "phase": phase, "status": status}
    return _with_error(record, error_type)


def init_report(function: Function, phase: str, status: str, error_type: str | None, seconds: float) -> dict[str, Any]:
    record: dict[str, Any] = {
        "initializationType": function.mode.value,
        "phase": phase,
        "status": status,
        "metrics": {"durationMs": milliseconds(seconds)},
    }
    return _with_error(record, error_type)


def restore_start(function: Function, instance_id: str) -> dict[str, Any]:
    return {
        "functionName": function.name,
        "functionVersion": function.version,
        "instanceId": instance_id,
        "instanceMaxMemory": function.memory_mb * 1024 * 1024,
    }


def restore_runtime_done(status: str, error_type: str | None) -> dict[str, Any]:
    return _with_error({"status": status}, error_type)


def restore_report(status: str, error_type: str | None, seconds: float) -> dict[str, Any]:
    return _with_error({"status": status, "metrics": {"durationMs": milliseconds(seconds)}}, error_type)


def extension(one: Extension) -> dict[str, Any]:
    return _with_error({"name": one.name, "state": one.state.value, "events": list(one.events)}, one.error_type)


def telemetry_subscription(name: str, types: Iterable[str]) -> dict[str, Any]:
    return {"name": name, "state": "Subscribed", "types": sorted(types)}


def logs_dropped(reason: str, records: int, size: int) -> dict[str, Any]:
    return {"reason": reason, "droppedRecords": records, "droppedBytes": size}


def start(function: Function, request_id: str, trace: Trace) -> dict[str, Any]:
    record: dict[str, Any] = {"requestId": request_id, "version": function.version, "tracing": trace.record()}
    if function.managed:
        record["functionArn"] = function.arn
    return record


def runtime_done(
    request_id: str,
    status: str,
    error_type: str | None,
    seconds: float,
    produced_bytes: int | None,
    spans: list[dict[str, Any]],
    trace: Trace,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {"durationMs": milliseconds(seconds)}
    if produced_bytes is not None:
        metrics["producedBytes"] = produced_bytes
    record: dict[str, Any] = {
        "requestId": request_id,
        "status": status,
        "metrics": metrics,
        "tracing": trace.record(),
    }
    if spans:
        record["spans"] = spans
    return _with_error(record, error_type)


def report(
    request_id: str,
    status: str,
    error_type: str | None,
    metrics: dict[str, Any],
    spans: list[dict[str, Any]],
    trace: Trace,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "requestId": request_id,
        "status": status,
        "metrics": metrics,
        "tracing": trace.record(),
    }
    if spans:
        record["spans"] = spans
    return _with_error(record, error_type)
