"""What may be subscribed to, when a batch goes, what is dropped, and how each schema version shows an event. No I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox import events
from sandbox.batching import Batcher
from sandbox.config import Function, Limits, Mode
from sandbox.events import Event
from sandbox.subscription import Invalid, Subscription, parse

HTTP: dict[str, Any] = {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/events?x=1"}
GOOD: dict[str, Any] = {"schemaVersion": "2025-01-29", "types": ["platform"], "destination": HTTP}

# The table of subscription_api_test.go of AWS's emulator, and the limits that AWS's pages state.
ACCEPTED: dict[str, dict[str, Any]] = {
    "valid HTTP": GOOD,
    "valid TCP": {**GOOD, "destination": {"protocol": "TCP", "port": 8081}},
    "the other host name": {**GOOD, "destination": {"protocol": "HTTP", "URI": "http://sandbox:8080"}},
    "all types": {**GOOD, "types": ["platform", "function", "extension"]},
    "default buffering": {**GOOD, "buffering": {}},
    "partial buffering": {**GOOD, "buffering": {"maxItems": 2000}},
    "least": {**GOOD, "buffering": {"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25}},
    "most": {**GOOD, "buffering": {"maxItems": 10000, "maxBytes": 1048576, "timeoutMs": 30000}},
}
REFUSED: dict[str, Any] = {
    "missing required fields": {"schemaVersion": "2025-01-29"},
    "unknown schema": {**GOOD, "schemaVersion": "invalid-version"},
    "no schema": {"types": ["platform"], "destination": HTTP},
    "empty types": {**GOOD, "types": []},
    "unknown type": {**GOOD, "types": ["platform", "invocations"]},
    "missing destination": {"schemaVersion": "2025-01-29", "types": ["platform"]},
    "unknown protocol": {**GOOD, "destination": {"protocol": "INVALID", "URI": "http://localhost:8080"}},
    "TCP without a port": {**GOOD, "destination": {"protocol": "TCP"}},
    "HTTP without a URI": {**GOOD, "destination": {"protocol": "HTTP"}},
    "HTTP without a port": {**GOOD, "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain"}},
    "localhost": {**GOOD, "destination": {"protocol": "HTTP", "URI": "http://localhost:8080"}},
    "127.0.0.1": {**GOOD, "destination": {"protocol": "HTTP", "URI": "http://127.0.0.1:8080"}},
    "https": {**GOOD, "destination": {"protocol": "HTTP", "URI": "https://sandbox.localdomain:8080"}},
    "Lambda's own port": {**GOOD, "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:9001"}},
    "bad port": {**GOOD, "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:http"}},
    "port 0": {**GOOD, "destination": {"protocol": "TCP", "port": 0}},
    "maxItems too small": {**GOOD, "buffering": {"maxItems": 999}},
    "maxItems too large": {**GOOD, "buffering": {"maxItems": 10001}},
    "maxBytes too small": {**GOOD, "buffering": {"maxBytes": 262143}},
    "maxBytes too large": {**GOOD, "buffering": {"maxBytes": 1048577}},
    "timeoutMs too small": {**GOOD, "buffering": {"timeoutMs": 24}},
    "timeoutMs too large": {**GOOD, "buffering": {"timeoutMs": 30001}},
    "timeoutMs no number": {**GOOD, "buffering": {"timeoutMs": "100"}},
    "timeoutMs a boolean": {**GOOD, "buffering": {"timeoutMs": True}},
    "no object": [],
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    assert parse(json.dumps(ACCEPTED[case]).encode(), managed=False).schema == "2025-01-29"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse(json.dumps(REFUSED[case]).encode(), managed=False)
    assert raised.value.answer.status == 400
    assert json.loads(raised.value.answer.body)["errorType"] == "ValidationError"


def test_refused_because_it_is_no_json() -> None:
    with pytest.raises(Invalid, match="failed to parse JSON"):
        parse(b'{"invalid": json}', managed=False)


@pytest.mark.parametrize("schema", ["2022-07-01", "2022-12-13", "2025-01-29"])
def test_schema_versions(schema: str) -> None:
    body = json.dumps({**GOOD, "schemaVersion": schema}).encode()
    assert parse(body, managed=False).schema == schema
    if schema == "2025-01-29":
        assert parse(body, managed=True).schema == schema
    else:
        with pytest.raises(Invalid):
            parse(body, managed=True)


def test_what_is_asked_for() -> None:
    wanted = {**GOOD, "buffering": {"maxItems": 2000, "maxBytes": 300_000, "timeoutMs": 30}}
    assert parse(json.dumps(wanted).encode(), managed=False) == Subscription(
        "2025-01-29", frozenset({"platform"}), 2000, 300_000, 30, 8080, "/events?x=1"
    )


# -- batches -------------------------------------------------------------------------------------------------------


def batcher(**limits: Any) -> Batcher:
    subscription = Subscription("2025-01-29", frozenset({"platform"}), 3, 100, 1000, 8080, "/")
    return Batcher(subscription, Limits(**limits))


def test_a_batch_goes_after_its_time() -> None:
    one = batcher()
    assert one.next_time() is None
    one.add(b"1", now=10.0)
    one.add(b"2", now=10.9)
    assert (one.due(10.99), one.next_time()) == (None, 11.0)
    batch = one.due(11.0)
    assert batch is not None
    assert (batch.body(), batch.lines()) == (b"[1,2]", b"1\n2\n")
    one.delivered()
    assert one.empty


def test_a_batch_goes_when_it_is_full() -> None:
    one = batcher()
    for _ in range(3):
        one.add(b"1", now=10.0)
    assert one.due(10.0) is not None
    two = batcher()
    two.add(b"x" * 100, now=10.0)
    assert two.due(10.0) is not None


def test_a_batch_that_is_not_taken_is_sent_again_later_and_later_then_dropped() -> None:
    one = batcher(telemetry_attempts=3, telemetry_first_backoff_s=0.1)
    for _ in range(3):
        one.add(b"1", now=0.0)
    first = one.due(0.0)
    assert one.failed(0.0, "status 500") is None
    assert (one.due(0.09), one.due(0.1)) == (None, first)
    assert one.failed(0.1, "status 500") is None
    assert (one.due(0.29), one.due(0.31)) == (None, first)
    dropped = one.failed(0.31, "status 500")
    assert dropped is not None
    assert (dropped.records, dropped.size, dropped.reason) == (3, 3, "could not send events: status 500")
    assert one.empty


def test_too_much_that_waits_is_dropped_newest_first() -> None:
    one = batcher(telemetry_backlog_batches=2)
    dropped = [one.add(b"%d" % number, now=0.0) for number in range(9)]
    assert [entry.records for entry in dropped if entry is not None] == [3]
    batch = one.due(0.0)
    assert batch is not None
    assert batch.records == [b"0", b"1", b"2"]


def test_a_flush_does_not_wait() -> None:
    one = batcher()
    assert one.flush() is None
    one.add(b"1", now=0.0)
    one.flush()
    assert one.due(0.0) is not None


# -- events --------------------------------------------------------------------------------------------------------

LINE = '{"level":"INFO","message":"a"}'


@pytest.mark.parametrize(
    ("schema", "json_logs", "line", "record"),
    [
        ("2022-07-01", True, LINE, LINE),
        ("2022-12-13", True, LINE, {"level": "INFO", "message": "a"}),
        ("2025-01-29", True, LINE, {"level": "INFO", "message": "a"}),
        ("2025-01-29", False, LINE, LINE),
        ("2025-01-29", True, "plain", "plain"),
        ("2025-01-29", True, "{broken", "{broken"),
        ("2025-01-29", True, "[1]", "[1]"),
    ],
)
def test_log_records(schema: str, json_logs: bool, line: str, record: Any) -> None:
    encoded = json.loads(Event(0.5, "function", line).encode(schema, json_logs=json_logs))
    assert encoded == {"time": "1970-01-01T00:00:00.500Z", "type": "function", "record": record}


Shown = list[tuple[str, Any]]
START: Shown = [("platform.start", {"requestId": "1", "version": "2"})]
DONE: Shown = [("platform.runtimeDone", {"requestId": "1", "status": "success"})]
METRICS = {"durationMs": 1}
REPORT: Shown = [("platform.end", {"requestId": "1"}), ("platform.report", {"requestId": "1", "metrics": METRICS})]
LINE_SHOWN: Shown = [("function", "line")]
# The record, and what the Logs API's two schemas make of it.
LOGS: dict[str, tuple[Any, Shown, Shown]] = {
    "platform.initStart": ({"phase": "init"}, [], []),
    "platform.start": ({"requestId": "1", "version": "2", "tracing": {}}, START, START),
    "platform.runtimeDone": ({"requestId": "1", "status": "success", "spans": []}, [], DONE),
    "platform.report": ({"requestId": "1", "status": "success", "metrics": METRICS}, REPORT, REPORT),
    "function": ("line", LINE_SHOWN, LINE_SHOWN),
}


@pytest.mark.parametrize("kind", LOGS)
def test_what_subscribers_of_the_logs_api_get(kind: str) -> None:
    record, oldest, newest = LOGS[kind]
    for schema, expected in (("2020-08-15", oldest), ("2021-03-18", newest)):
        encoded = Event(0.0, kind, record).for_subscriber(schema, json_logs=False)
        assert [(one["type"], one["record"]) for one in map(json.loads, encoded)] == expected


def test_lone_surrogates_do_not_break_a_batch() -> None:
    assert json.loads(Event(0, "function", "a\ud800b").encode("2025-01-29", json_logs=False))["record"] == "a?b"


def test_only_managed_instances_name_the_function_in_start(tmp_path: Any) -> None:
    trace = events.Trace("Root=1")
    assert "functionArn" not in events.start(Function(tmp_path), "id", trace)
    assert events.start(Function(tmp_path, mode=Mode.MANAGED), "id", trace)["functionArn"].endswith(":function")
