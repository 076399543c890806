"""Which invocation a telemetry record belongs to, and what it says of its end.

AWS, "Lambda Telemetry API Event schema reference".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import http1
from extension.inflight import Invocation, Table
from extension.outcome import CRASH, HANDLED_ERROR, INIT_ERROR, OUT_OF_MEMORY, TIMEOUT
from extension.telemetry.attribution import Attribution

MANY_DIGITS = "9" * 5_000
NESTED = '{"a":' * 300 + "1" + "}" * 300


class Told:
    """A table, what attribution told it, and how often logs were said to be done."""

    def __init__(self, concurrent: bool = False) -> None:
        self.table = Table(1_000, 20, keep_payloads=True, concurrent=concurrent)
        self.failures: list[Invocation] = []
        self.table.on_failure = self.failures.append
        self.done = 0
        self.attribution = Attribution(self.table, self._logs_done, concurrent=concurrent)

    def _logs_done(self) -> None:
        self.done += 1

    def proxied(self, request_id: str) -> Invocation:
        """An event that passed the proxy."""
        self.table.asked_next()
        raw = f"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: {request_id}\r\n\r\n".encode()
        invocation = self.table.open(http1.parse_response_head(raw))
        assert invocation is not None
        return invocation

    def take(self, *entries: Any) -> None:
        self.attribution.take(json.dumps(entries).encode())

    def lines(self, request_id: str) -> list[str]:
        return list(self.table._by_id[request_id].log_lines)

    @property
    def init_lines(self) -> list[str]:
        return list(self.table._init_lines)

    @property
    def conditions(self) -> list[tuple[str | None, str]]:
        return [(one.request_id, one.outcome.condition) for one in self.failures if one.outcome is not None]


def platform(kind: str, **record: Any) -> dict[str, Any]:
    return {"time": "2026-11-24T16:08:00.123Z", "type": f"platform.{kind}", "record": record}


def start(request_id: str) -> dict[str, Any]:
    return platform("start", requestId=request_id, version="$LATEST")


def done(request_id: str, status: str = "success", **record: Any) -> dict[str, Any]:
    return platform("runtimeDone", requestId=request_id, status=status, metrics={"durationMs": 1.0}, **record)


def line(record: Any) -> dict[str, Any]:
    return {"time": "2026-11-24T16:08:00.123Z", "type": "function", "record": record}


# On demand: one invocation at a time


def test_text_lines_belong_to_the_invocation_between_start_and_runtime_done() -> None:
    told = Told()
    told.take(line("init\n"), start("a"), line("one\n"), line("two"), done("a"), line("late"))
    told.take(start("b"), line("three"), done("b"))
    assert told.lines("a") == ["one", "two"]
    assert told.lines("b") == ["three"]
    assert told.init_lines == ["init", "late"]


def test_the_window_spans_batches() -> None:
    told = Told()
    for entry in (start("a"), line("one"), line("two"), done("a")):
        told.take(entry)
    assert told.lines("a") == ["one", "two"]


@pytest.mark.parametrize("key", ["requestId", "AWSRequestId"])
def test_an_object_names_its_invocation_itself(key: str) -> None:
    told = Told()
    told.take(start("a"), start("b"), line({"level": "INFO", key: "a", "message": "x"}))
    assert told.lines("a") == [f'{{"level":"INFO","{key}":"a","message":"x"}}']
    assert told.lines("b") == []


@pytest.mark.parametrize("record", [{"message": "x"}, {"requestId": None}, {"requestId": 7}, {"requestId": ["a"]}, {}])
def test_an_object_that_names_none_belongs_to_the_current_one(record: dict[str, Any]) -> None:
    told = Told()
    told.take(start("a"), line(record))
    assert told.lines("a") == [json.dumps(record, separators=(",", ":"))]


@pytest.mark.parametrize("record", [None, 7, 1.5, True, ["x"]])
def test_a_record_that_is_neither_text_nor_object_is_passed_over(record: Any) -> None:
    told = Told()
    told.take(start("a"), line(record), line("after"))
    assert told.lines("a") == ["after"]


# Managed Instances: only a line's own request id tells


def test_with_several_at_once_only_lines_that_name_one_are_attributed() -> None:
    told = Told(concurrent=True)
    told.take(
        start("a"),
        start("b"),
        line({"requestId": "a", "message": "object"}),
        line('{"requestId":"b","message":"JSON text"}\n'),
        line("plain"),
        line('{"message":"names none"}'),
        line("{not JSON"),
        line('{"requestId":7}'),
        line({"message": "names none"}),
    )
    assert told.lines("a") == ['{"requestId":"a","message":"object"}']
    assert told.lines("b") == ['{"requestId":"b","message":"JSON text"}']
    assert len(told.init_lines) == 5


def test_events_in_any_order_find_their_invocation() -> None:
    told = Told(concurrent=True)
    told.take(platform("report", requestId="a", status="success", metrics={}), start("b"), start("a"))
    told.take(line({"requestId": "a"}), platform("report", requestId="b", status="error", errorType="Function.E"))
    assert told.lines("a") == ['{"requestId":"a"}']
    assert told.conditions == [("b", HANDLED_ERROR)]


# How it ended


@pytest.mark.parametrize("kind", ["runtimeDone", "report"])
@pytest.mark.parametrize(
    ("status", "error_type", "condition"),
    [
        ("success", None, None),
        ("timeout", None, TIMEOUT),
        ("timeout", "Sandbox.Timedout", TIMEOUT),
        ("failure", None, CRASH),
        ("failure", "Runtime.ExitError", CRASH),
        ("error", "Runtime.ExitError", CRASH),
        ("failure", "Runtime.OutOfMemory", OUT_OF_MEMORY),
        ("error", "Runtime.OutOfMemory", OUT_OF_MEMORY),
        ("error", "Function.ValueError", HANDLED_ERROR),
        ("error", None, HANDLED_ERROR),
        (None, None, None),
        (7, 7, None),
        ("something new", None, None),
    ],
)
@pytest.mark.parametrize("proxied", [True, False])
def test_the_platforms_word_on_an_invocation(
    proxied: bool, status: Any, error_type: Any, condition: str | None, kind: str
) -> None:
    told = Told()
    if proxied:
        told.proxied("a")
    if proxied and condition == HANDLED_ERROR:
        condition = None  # the proxy sees that error itself, and its details
    told.take(start("a"), platform(kind, requestId="a", status=status, errorType=error_type))
    assert told.conditions == ([] if condition is None else [("a", condition)])
    invocation = told.table._by_id["a"]
    assert invocation.logs_done.is_set
    assert told.done == 1
    # A handled error has status success too: the success of what passed the proxy is the proxy's to tell.
    assert invocation.ended is (condition is not None or (status == "success" and not proxied))


def test_out_of_memory_amends_the_crash_that_was_seen_first() -> None:
    told = Told()
    told.proxied("a")
    told.table.runtime_exited()
    told.take(start("a"), done("a", "failure", errorType="Runtime.OutOfMemory"))
    assert told.conditions[-1] == ("a", OUT_OF_MEMORY)
    assert len({id(invocation) for invocation in told.failures}) == 1


def test_a_report_of_another_life_is_passed_over() -> None:
    told = Told()
    told.take(platform("report", requestId="old", status="timeout"))
    assert told.conditions == []
    assert told.table._by_id == {}


@pytest.mark.parametrize("status", ["error", "failure", "timeout"])
def test_a_failed_initialization(status: str) -> None:
    told = Told()
    told.take(
        line("Traceback"), platform("initRuntimeDone", phase="init", status=status, errorType="Runtime.ExitError")
    )
    assert told.conditions == [(None, INIT_ERROR)]
    assert list(told.failures[0].log_lines) == ["Traceback"]


@pytest.mark.parametrize("record", [{"status": "success", "phase": "init"}, {"status": "error", "phase": "invoke"}, {}])
def test_what_is_no_failed_initialization(record: dict[str, Any]) -> None:
    told = Told()
    told.take(platform("initRuntimeDone", **record))
    assert told.conditions == []


def test_a_runtime_that_started_beside_the_proxy_has_not_failed_to_start_when_it_ends() -> None:
    told = Told()
    told.take(platform("initRuntimeDone", phase="init", status="success"))
    told.table.runtime_exited()
    assert told.conditions == []


@pytest.mark.parametrize(("dropped", "count"), [(3, 3), (None, 1), ("7", 1)])
def test_dropped_lines_are_counted(dropped: Any, count: int) -> None:
    told = Told()
    told.take(platform("logsDropped", reason="slow", droppedRecords=dropped, droppedBytes=1))
    assert told.attribution.counters["logs_dropped"] == count


# Whatever comes


@pytest.mark.parametrize(
    "entry",
    [
        platform("fault", message="x"),
        platform("report", requestId=None, status="timeout"),
        platform("runtimeDone", status="failure"),
        platform("start", requestId=["a"]),
        platform("start", requestId="a", functionArn=7),
        platform("extension", name="backstop", state="Ready", events=[]),
        platform("telemetrySubscription", name="backstop", state="Subscribed", types=[]),
        {"type": "platform.start"},
        {"type": "platform.start", "record": "text"},
        {"type": "extension", "record": "another extension's line"},
        {"type": 7, "record": {}},
        {"type": None},
        {},
        [],
        None,
        7,
        "text",
    ],
)
def test_what_is_unknown_is_passed_over(entry: Any) -> None:
    told = Told()
    told.take(start("a"), entry, line("after"), done("a"))
    assert told.conditions == []
    assert told.lines("a") == ["after"]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param('{"type":"function","record":{"x":1e999}}', id="a number that is infinite"),
        pytest.param(f'{{"type":"function","record":{{"x":{MANY_DIGITS}}}}}', id="more digits than Python reads"),
        pytest.param('{"type":"function","record":{"x":"\\ud800"}}', id="a lone surrogate"),
        pytest.param(
            f'{{"type":"platform.logsDropped","record":{{"droppedRecords":{MANY_DIGITS}}}}}', id="a huge count"
        ),
        pytest.param(f'{{"type":"function","record":{NESTED}}}', id="deep nesting"),
    ],
)
def test_one_odd_record_costs_no_other(entry: str) -> None:
    told = Told()
    batch = ",".join([json.dumps(start("a")), json.dumps(line("before")), entry, json.dumps(done("a", "failure"))])
    told.attribution.take(f"[{batch}]".encode())
    assert told.conditions == [("a", CRASH)]
    assert told.lines("a")[0] == "before"


def test_a_fault_over_one_record_is_counted_and_the_others_are_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = Told()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(told.table, "log", broken)
    told.take(start("a"), line("x"), done("a", "failure"))
    assert told.conditions == [("a", CRASH)]
    assert told.attribution.counters["broken"] == 1
    assert "a bug of ours" in capfd.readouterr().out


def test_lines_of_json_are_read_too_and_broken_ones_counted() -> None:
    told = Told()
    batch = "\n".join([json.dumps(start("a")), "", "{broken", json.dumps(line("one\u2028two"), ensure_ascii=False), ""])
    told.attribution.take(batch.encode())
    assert told.lines("a") == ["one\u2028two"]
    assert told.attribution.counters["broken"] == 1


@pytest.mark.parametrize("batch", [b"", b"\xff\xfe", b"{", b"[", b"null", b"7", b'"x"', b"[" * 100_000, b"{}{}"])
def test_a_broken_batch_is_borne(batch: bytes) -> None:
    Told().attribution.take(batch)


RECORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["a", "success", "timeout"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["requestId", "status", "errorType", "phase", "functionArn"]), inner, max_size=4
        )
    ),
)
KINDS = ["start", "runtimeDone", "report", "initRuntimeDone", "initStart", "logsDropped", "restoreStart"]


@pytest.mark.parametrize("concurrent", [False, True])
@given(
    entries=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["function", "extension", *(f"platform.{kind}" for kind in KINDS)]) | RECORDS,
                "record": RECORDS,
            },
        )
        | RECORDS,
        max_size=8,
    )
)
def test_any_batch_is_borne(concurrent: bool, entries: list[Any]) -> None:
    told = Told(concurrent=concurrent)
    told.take(*entries)
    assert told.attribution.counters["broken"] <= len(entries)


# A runtime that cannot start


def test_a_failed_initialization_waits_for_its_own_lines_only() -> None:
    told = Told()
    told.table.init_error(b'{"errorMessage":"no such module"}', "Runtime.ImportModuleError")
    (failure,) = told.failures
    assert not failure.logs_done.is_set
    told.take(
        {"type": "function", "record": "Cannot find module 'pg'\n"},
        platform("initRuntimeDone", phase="init", status="error"),
    )
    assert failure.logs_done.wait(0)
    assert list(failure.log_lines) == ["Cannot find module 'pg'"]
    assert told.done == 1


def test_what_never_reached_a_runtime_that_could_not_start_is_no_second_failure() -> None:
    told = Told()
    told.table.init_error(None, "Runtime.ImportModuleError")
    told.take(
        platform("start", requestId="a"),
        platform("runtimeDone", requestId="a", status="error", errorType="Runtime.ImportModuleError"),
        platform("report", requestId="a", status="error", errorType="Runtime.ImportModuleError"),
    )
    assert told.conditions == [(None, INIT_ERROR)]
