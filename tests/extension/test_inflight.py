"""The table of invocations in flight: one failure each, bounded memory and size, and the hold that always ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from extension import http1, inflight, say
from extension.inflight import Invocation, Table
from extension.outcome import (
    CRASH,
    HANDLED_ERROR,
    INIT_ERROR,
    OUT_OF_MEMORY,
    STREAM_ERROR,
    SUCCESS,
    TIMEOUT,
    Outcome,
)

MEMORY = 1_000
FAR_MS = 600_000


def now_ms() -> int:
    return int(time.time() * 1000)


def event_head(
    request_id: str, deadline_ms: int | None = None, status: int = 200, **headers: str
) -> http1.ResponseHead:
    named = {
        "Lambda-Runtime-Aws-Request-Id": request_id,
        "Lambda-Runtime-Deadline-Ms": str(now_ms() + FAR_MS if deadline_ms is None else deadline_ms),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return http1.parse_response_head(f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode())


class Seen:
    """A table, and what left it."""

    def __init__(self, memory: int = MEMORY, concurrent: bool = False, keep_payloads: bool = True) -> None:
        self.table = Table(memory, 3, keep_payloads=keep_payloads, concurrent=concurrent)
        self.failures: list[tuple[str | None, str]] = []
        self.recovered: list[str | None] = []
        self.table.on_failure = self._failed
        self.table.on_recovery = lambda invocation: self.recovered.append(invocation.request_id)

    def _failed(self, invocation: Invocation) -> None:
        assert invocation.outcome is not None
        self.failures.append((invocation.request_id, invocation.outcome.condition))

    def open(self, request_id: str = "a", deadline_ms: int | None = None) -> Invocation:
        """GET /next and its answer."""
        self.table.asked_next()
        invocation = self.table.open(event_head(request_id, deadline_ms))
        assert invocation is not None
        return invocation

    def answer(self, outcome: Outcome, request_id: str = "a") -> None:
        """POST /response or /error and Lambda's answer."""
        over, asked = self.table.answer_begins(request_id)
        self.table.posted(request_id, outcome, asked)
        over.set()

    @property
    def room(self) -> int:
        return self.table._room


@pytest.fixture
def seen() -> Seen:
    return Seen()


# An event passes


def test_an_invocation_carries_what_lambdas_headers_say(seen: Seen) -> None:
    head = event_head(
        "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        1_542_409_706_888,
        Lambda_Runtime_Invoked_Function_Arn="arn:aws:lambda:us-east-2:123456789012:function:f",
        Lambda_Runtime_Trace_Id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        Lambda_Runtime_Client_Context='{"custom":{}}',
        Lambda_Runtime_Aws_Tenant_Id="blue",
        Lambda_Runtime_Invocation_Id="i-1",
    )
    invocation = seen.table.open(head)
    assert invocation is not None
    assert invocation.request_id == "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
    assert invocation.deadline_ms == 1_542_409_706_888
    assert invocation.arn == "arn:aws:lambda:us-east-2:123456789012:function:f"
    assert invocation.trace_id == "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"
    assert invocation.client_context == '{"custom":{}}'
    assert invocation.tenant_id == "blue"
    assert invocation.invocation_id == "i-1"
    assert invocation.observed.is_set
    assert not invocation.released.is_set
    assert not invocation.ended


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(event_head("a", status=403), id="refused"),
        pytest.param(event_head("a", status=500), id="a fault of Lambda's"),
        pytest.param(event_head(""), id="no request id"),
        pytest.param(http1.parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n"), id="no headers"),
    ],
)
def test_an_answer_to_next_that_is_no_event_opens_nothing(head: http1.ResponseHead, seen: Seen) -> None:
    assert seen.table.open(head) is None
    assert seen.table.counters["opened"] == 0


@pytest.mark.parametrize("deadline", ["", "soon", "-1", "1.5", "9" * 16, "9" * 5_000])
def test_a_deadline_that_cannot_be_read_is_none(deadline: str, seen: Seen) -> None:
    head = http1.parse_response_head(
        b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: a\r\nLambda-Runtime-Deadline-Ms: "
        + deadline.encode()
        + b"\r\n\r\n"
    )
    invocation = seen.table.open(head)
    assert invocation is not None
    assert invocation.deadline_ms == 0


def test_invoke_and_the_event_meet_in_one_invocation_whichever_comes_first(seen: Seen) -> None:
    deadline = now_ms() + FAR_MS
    expected = seen.table.expect("a", deadline, "arn:x")
    assert not expected.observed.is_set
    assert seen.open("a", deadline) is expected
    assert seen.table.expect("a", deadline + 3, "arn:x") is expected
    assert expected.deadline_ms == deadline
    opened = seen.open("b", deadline)
    assert seen.table.expect("b", deadline, "arn:y") is opened
    assert opened.arn == "arn:y"


# One failure per invocation


@pytest.mark.parametrize(
    ("signals", "told"),
    [
        pytest.param([SUCCESS], [], id="success"),
        pytest.param([HANDLED_ERROR], [HANDLED_ERROR], id="an error"),
        pytest.param([HANDLED_ERROR, CRASH], [HANDLED_ERROR, CRASH], id="an error, then an exit"),
        pytest.param([CRASH, HANDLED_ERROR], [CRASH], id="the exit was seen first"),
        pytest.param([CRASH, TIMEOUT], [CRASH, TIMEOUT], id="killed at the deadline"),
        pytest.param([CRASH, OUT_OF_MEMORY, CRASH], [CRASH, OUT_OF_MEMORY], id="the platform knows better"),
        pytest.param([STREAM_ERROR, STREAM_ERROR], [STREAM_ERROR], id="twice"),
        pytest.param([SUCCESS, CRASH, TIMEOUT, OUT_OF_MEMORY], [], id="what comes after a success"),
        pytest.param([CRASH, SUCCESS], [CRASH], id="a success after a failure"),
    ],
)
def test_signals_amend_one_failure(signals: list[str], told: list[str], seen: Seen) -> None:
    invocation = seen.open()
    for condition in signals:
        seen.table.end("a", Outcome(condition))
        assert invocation.released.is_set
    assert seen.failures == [("a", condition) for condition in told]
    failed = int(bool(told))
    assert (seen.table.counters["failed"], seen.table.counters["succeeded"]) == (failed, 1 - failed)


def test_an_error_that_is_told_after_the_exit_was_seen_is_told_on(seen: Seen) -> None:
    invocation = seen.open()
    seen.table.end("a", Outcome(CRASH))
    seen.table.end("a", Outcome(HANDLED_ERROR, b"stack"))
    assert seen.failures == [("a", CRASH), ("a", CRASH)]
    assert invocation.outcome is not None
    assert invocation.outcome.error == b"stack"


def test_a_signal_about_nobody_is_passed_over(seen: Seen) -> None:
    seen.table.end("nobody", Outcome(CRASH))
    seen.table.log("nobody", "line")
    seen.table.logs_done("nobody")
    seen.table.suspect("nobody")
    seen.table.succeeded_unseen("nobody")
    over, asked = seen.table.answer_begins("nobody")
    seen.table.posted("nobody", Outcome(HANDLED_ERROR), asked)
    over.set()
    seen.open()
    seen.answer(Outcome(SUCCESS))
    seen.table.runtime_exited()
    assert seen.failures == []


def test_a_failure_that_cannot_be_filed_still_ends_the_hold(seen: Seen, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(invocation: Invocation) -> None:
        raise OSError("no room")

    say.forget()
    seen.table.on_failure = broken
    first, second = seen.open("a"), seen.open("b")
    seen.table.runtime_exited()
    assert first.released.is_set
    assert second.released.is_set
    assert "no room" in capfd.readouterr().out


# The runtime's process ends


def test_an_exit_fails_what_was_in_flight(seen: Seen) -> None:
    seen.open()
    seen.table.runtime_exited()
    assert seen.failures == [("a", CRASH)]


def test_an_exit_at_the_deadline_is_a_timeout(seen: Seen) -> None:
    seen.open(deadline_ms=now_ms() - 5)
    seen.table.runtime_exited()
    assert seen.failures == [("a", TIMEOUT)]


@pytest.mark.parametrize("outcome", [Outcome(SUCCESS), None], ids=["after a success", "before any event"])
def test_an_exit_with_nothing_in_flight_fails_nothing(outcome: Outcome | None, seen: Seen) -> None:
    if outcome is not None:
        seen.open()
        seen.answer(outcome)
    seen.table.asked_next()
    seen.table.runtime_exited()
    assert seen.failures == []


def test_an_exit_right_after_an_error_is_one_crash_with_that_error(seen: Seen) -> None:
    """A Go panic posts its error and then exits."""
    invocation = seen.open()
    seen.answer(Outcome(HANDLED_ERROR, b"panic"))
    seen.table.runtime_exited()
    assert seen.failures == [("a", HANDLED_ERROR), ("a", CRASH)]
    assert invocation.outcome is not None
    assert invocation.outcome.error == b"panic"


def test_a_runtime_that_asked_for_its_next_event_outlived_its_error(seen: Seen) -> None:
    seen.open()
    seen.answer(Outcome(HANDLED_ERROR))
    seen.table.asked_next()
    seen.table.runtime_exited()
    assert seen.failures == [("a", HANDLED_ERROR)]


def test_so_it_did_where_its_new_connection_overtook_the_note_of_its_error(seen: Seen) -> None:
    """With one connection per call, GET /next may be noted before the end of the POST that came first."""
    seen.open()
    over, asked = seen.table.answer_begins("a")
    seen.table.asked_next()
    seen.table.posted("a", Outcome(HANDLED_ERROR), asked)
    over.set()
    seen.table.runtime_exited()
    assert seen.failures == [("a", HANDLED_ERROR)]


def test_a_report_of_an_error_is_no_sign_that_the_runtime_still_handles_it() -> None:
    """On Managed Instances the platform reports errors too, long after the runtime went on."""
    seen = Seen(concurrent=True)
    seen.open()
    seen.answer(Outcome(HANDLED_ERROR, b"x"))
    seen.table.asked_next()
    seen.table.end("a", Outcome(HANDLED_ERROR, None, "Function.X"))
    seen.table.runtime_exited()
    assert seen.failures == [("a", HANDLED_ERROR)]


@pytest.mark.parametrize(
    ("reason", "failures"),
    [
        pytest.param("spindown", [("a", HANDLED_ERROR)], id="an environment that is no longer needed"),
        pytest.param("failure", [("a", HANDLED_ERROR), ("a", CRASH)], id="a crash"),
    ],
)
def test_on_managed_instances_shutdown_says_what_an_exit_after_an_error_was(
    reason: str, failures: list[tuple[str, str]]
) -> None:
    """aws-lambda-ric asks for its next event before it answers, so what it asks after an error tells nothing."""
    seen = Seen(concurrent=True)
    seen.open()
    seen.table.asked_next()
    seen.answer(Outcome(HANDLED_ERROR, b"x"))
    seen.table.runtime_exited()
    assert seen.failures == [("a", HANDLED_ERROR)]
    seen.table.shutdown(reason)
    assert seen.failures == failures


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        pytest.param(Outcome(SUCCESS), [], id="what was delivered is a success"),
        pytest.param(Outcome(HANDLED_ERROR), [("a", HANDLED_ERROR), ("a", CRASH)], id="an error becomes a crash"),
        pytest.param(None, [("a", CRASH)], id="an answer that broke off is a crash"),
    ],
)
def test_an_exit_waits_for_the_answer_that_the_runtime_posted_last(
    answer: Outcome | None, failures: list[tuple[str, str]], seen: Seen
) -> None:
    """The process ends the moment after its POST; the pidfd may be faster than Lambda's answer."""
    invocation = seen.open()
    over, asked = seen.table.answer_begins("a")
    exit_seen = in_thread(seen.table.runtime_exited)
    exit_seen.join(0.05)
    assert exit_seen.is_alive()
    assert not invocation.ended
    if answer is not None:
        seen.table.posted("a", answer, asked)
    over.set()
    exit_seen.join(10)
    assert seen.failures == failures


def test_it_does_not_wait_for_ever(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflight, "_ANSWER_S", 0.05)
    seen.open()
    seen.table.answer_begins("a")
    seen.table.runtime_exited()
    assert seen.failures == [("a", CRASH)]


def test_an_exit_before_the_first_event_is_a_failed_initialization(seen: Seen) -> None:
    seen.table.log(None, "ImportError: no module")
    seen.table.runtime_exited()
    seen.table.runtime_exited()
    assert seen.failures == [(None, INIT_ERROR)]


def test_an_error_in_initialization_and_the_exit_after_it_are_one_failure(seen: Seen) -> None:
    seen.table.init_error(b"error", "Runtime.ImportModuleError")
    seen.table.runtime_exited()
    seen.table.init_error(None, "Runtime.ExitError")
    assert seen.failures == [(None, INIT_ERROR)]


@pytest.mark.parametrize("sign", ["INVOKE", "telemetry"])
def test_a_runtime_that_passes_the_proxy_by_has_not_failed_to_start(sign: str, seen: Seen) -> None:
    """The wrapper waited 50 ms in vain, or another vendor's wrapper set another address: then the real API is used."""
    if sign == "INVOKE":
        seen.table.expect("a", now_ms() + FAR_MS, "arn:x")
    else:
        seen.table.runtime_started()
    seen.table.runtime_exited()
    assert seen.failures == []


# SHUTDOWN


@pytest.mark.parametrize(
    ("reason", "condition"),
    [("timeout", TIMEOUT), ("Timeout", TIMEOUT), ("failure", CRASH), ("ReleaseFail", CRASH), ("spindown", CRASH)],
)
def test_shutdown_fails_what_is_in_flight(reason: str, condition: str, seen: Seen) -> None:
    seen.open()
    seen.table.shutdown(reason)
    assert seen.failures == [("a", condition)]


@pytest.mark.parametrize("reason", ["timeout", "failure", "spindown"])
@pytest.mark.parametrize("ended", [SUCCESS, HANDLED_ERROR, OUT_OF_MEMORY, TIMEOUT])
def test_shutdown_changes_nothing_that_has_ended(reason: str, ended: str, seen: Seen) -> None:
    seen.open()
    seen.answer(Outcome(ended))
    seen.failures.clear()
    seen.table.shutdown(reason)
    assert seen.failures == []


def test_a_kill_that_was_seen_just_before_shutdown_says_timeout_is_a_timeout(seen: Seen) -> None:
    seen.open()
    seen.table.runtime_exited()
    seen.table.shutdown("timeout")
    assert seen.failures == [("a", CRASH), ("a", TIMEOUT)]


def test_an_old_crash_is_none(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    seen.open()
    seen.table.runtime_exited()
    monkeypatch.setattr(inflight, "_AMENDABLE_S", 0.0)
    seen.table.shutdown("timeout")
    assert seen.failures == [("a", CRASH)]


@pytest.mark.parametrize(
    ("reason", "failures"),
    [("timeout", [("a", TIMEOUT)]), ("failure", [("a", CRASH)]), ("spindown", []), ("", [])],
)
def test_without_the_proxy_only_a_reason_that_means_failure_is_one(
    reason: str, failures: list[tuple[str, str]], seen: Seen
) -> None:
    seen.table.expect("before", now_ms() + FAR_MS, "arn:x")
    seen.table.expect("a", now_ms() + FAR_MS, "arn:x")
    seen.table.shutdown(reason)
    assert seen.failures == failures


# The hold


def test_a_lost_connection_ends_the_hold_and_nothing_else(seen: Seen) -> None:
    invocation = seen.open()
    seen.table.suspect("a")
    assert invocation.released.is_set
    assert not invocation.ended
    seen.answer(Outcome(HANDLED_ERROR))
    assert seen.failures == [("a", HANDLED_ERROR)]


def test_an_end_that_was_missed_does_not_hold_until_the_deadline(seen: Seen) -> None:
    """Whatever went wrong in the noting: a runtime that asks for another event has dealt with the last."""
    invocation = seen.open("a")
    seen.table.asked_next()
    assert invocation.released.is_set
    assert invocation.overtaken
    assert seen.failures == []


def test_an_answer_under_way_is_not_overtaken(seen: Seen) -> None:
    invocation = seen.open("a")
    over, asked = seen.table.answer_begins("a")
    seen.table.asked_next()
    assert not invocation.overtaken
    seen.table.posted("a", Outcome(SUCCESS), asked)
    over.set()


def test_with_several_workers_asking_for_more_ends_nothing() -> None:
    seen = Seen(concurrent=True)
    first, second = seen.open("a"), seen.open("b")
    seen.table.asked_next()
    assert not first.released.is_set
    assert not second.released.is_set


def test_a_provisional_record_is_taken_back_after_a_success_only(seen: Seen) -> None:
    seen.open("a").provisional = True
    seen.answer(Outcome(SUCCESS), "a")
    seen.open("b").provisional = True
    seen.answer(Outcome(HANDLED_ERROR), "b")
    seen.open("c")
    seen.answer(Outcome(SUCCESS), "c")
    assert seen.recovered == ["a"]


def test_the_platforms_success_counts_only_where_the_proxy_saw_nothing(seen: Seen) -> None:
    """A handled error has status success on demand: what passed the proxy is judged by it alone."""
    unseen = seen.table.expect("a", now_ms() + FAR_MS, "")
    seen.table.succeeded_unseen("a")
    assert unseen.ended
    passed = seen.open("b")
    seen.table.succeeded_unseen("b")
    assert not passed.ended


# Retries


@pytest.mark.parametrize("first", ["INVOKE", "event"])
@pytest.mark.parametrize("outcome", [SUCCESS, HANDLED_ERROR])
def test_a_retry_with_the_same_request_id_is_a_new_invocation(first: str, outcome: str, seen: Seen) -> None:
    deadline = now_ms() + FAR_MS
    before = seen.open("a", deadline)
    seen.answer(Outcome(outcome))
    seen.failures.clear()
    if first == "INVOKE":
        expected = seen.table.expect("a", deadline + 60_000, "arn:x")
        opened = seen.open("a", deadline + 60_000)
        assert opened is expected
    else:
        opened = seen.open("a", deadline + 60_000)
        assert seen.table.expect("a", deadline + 60_000, "arn:x") is opened
    assert opened is not before
    assert not opened.ended
    assert not opened.released.is_set
    seen.answer(Outcome(HANDLED_ERROR))
    assert seen.failures == [("a", HANDLED_ERROR)]


def test_an_invoke_that_is_read_after_the_end_is_of_the_invocation_that_ended(seen: Seen) -> None:
    deadline = now_ms() + FAR_MS
    opened = seen.open("a", deadline)
    seen.answer(Outcome(SUCCESS))
    assert seen.table.expect("a", deadline + 1, "arn:x") is opened
    assert seen.table.expect("a", 0, "") is opened


def test_an_event_that_is_delivered_again_replaces_the_one_nobody_answered(seen: Seen) -> None:
    before = seen.open("a")
    seen.table.keep(before, b"x" * 100)
    again = seen.open("a")
    assert again is not before
    assert before.released.is_set
    assert seen.room == MEMORY


# Bounds


def test_the_event_of_a_success_is_let_go_at_once(seen: Seen) -> None:
    invocation = seen.open()
    seen.table.keep(invocation, b"x" * 600)
    assert seen.room == 400
    seen.answer(Outcome(SUCCESS))
    assert seen.room == MEMORY
    assert invocation.payload is None


def test_over_the_bound_an_event_is_cut_and_counted(seen: Seen) -> None:
    invocation = seen.open()
    for _ in range(3):
        seen.table.keep(invocation, b"x" * 600)
    seen.table.whole(invocation)
    assert invocation.payload is not None
    assert (invocation.payload.kept, invocation.payload.seen, invocation.payload.cut) == (MEMORY, 1_800, True)
    assert seen.room == 0
    assert seen.table.counters["payloads_cut"] == 1
    seen.answer(Outcome(SUCCESS))
    assert seen.room == MEMORY


def test_a_failure_that_is_in_the_spool_makes_room_for_the_next_event() -> None:
    seen = Seen(concurrent=True)
    failed = seen.open("a")
    seen.table.keep(failed, b"x" * 900)
    seen.answer(Outcome(HANDLED_ERROR), "a")
    waiting = seen.open("b")
    seen.table.keep(waiting, b"y" * 900)
    assert waiting.payload is not None
    assert waiting.payload.cut  # the first one's record is not written yet
    failed.settled = True
    third = seen.open("c")
    seen.table.keep(third, b"z" * 900)
    assert third.payload is not None
    assert not third.payload.cut
    assert failed.payload is None


def test_bytes_that_arrive_after_an_event_was_let_go_cost_nothing(seen: Seen) -> None:
    invocation = seen.open()
    seen.table.keep(invocation, b"x" * 10)
    seen.table.end("a", Outcome(SUCCESS))
    seen.table.keep(invocation, b"x" * 10)
    seen.table.whole(invocation)
    assert seen.room == MEMORY


def test_without_payloads_nothing_is_kept() -> None:
    seen = Seen(keep_payloads=False)
    invocation = seen.open()
    seen.table.keep(invocation, b"x" * 10)
    seen.table.whole(invocation)
    assert invocation.payload is None
    assert seen.room == MEMORY


@pytest.mark.parametrize(
    ("how", "concurrent"),
    [
        *[
            (how, place)
            for how in ("success", "failure", "expected only", "past its deadline")
            for place in (False, True)
        ],
        ("missed", False),  # on Managed Instances only the deadline tells
    ],
)
def test_traffic_does_not_make_the_table_grow(how: str, concurrent: bool) -> None:
    seen = Seen(concurrent=concurrent)
    for number in range(500):
        request_id = str(number)
        if how == "expected only":
            seen.table.expect(request_id, now_ms() + FAR_MS, "arn:x")
            continue
        invocation = seen.open(request_id, now_ms() - 70_000 if how == "past its deadline" else None)
        seen.table.keep(invocation, b"x")
        if how == "success":
            seen.answer(Outcome(SUCCESS), request_id)
        elif how == "failure":
            seen.answer(Outcome(HANDLED_ERROR), request_id)
    assert len(seen.table._by_id) <= 66
    assert seen.room >= MEMORY - 66


def test_many_in_flight_at_once_are_all_kept() -> None:
    seen = Seen(concurrent=True)
    invocations = [seen.open(str(number)) for number in range(200)]
    for number in range(200):
        seen.answer(Outcome(HANDLED_ERROR), str(number))
    assert len(seen.failures) == 200
    assert all(invocation.released.is_set for invocation in invocations)


def test_the_last_log_lines_are_kept_and_long_ones_are_cut(seen: Seen) -> None:
    invocation = seen.open()
    for number in range(5):
        seen.table.log("a", f"line {number}")
    seen.table.log("a", "x" * 10_000)
    assert list(invocation.log_lines)[:2] == ["line 3", "line 4"]
    assert invocation.log_lines[2] == "x" * 4_096 + "…"
    seen.table.log(None, "init")
    assert len(invocation.log_lines) == 3


def test_the_logs_are_done_when_telemetry_says_so(seen: Seen) -> None:
    invocation = seen.open()
    assert not invocation.logs_done.is_set
    seen.table.logs_done("a")
    assert invocation.logs_done.is_set


# Signals in any order

IDS = st.sampled_from(["a", "b", "c"])
POSTED = st.sampled_from([SUCCESS, HANDLED_ERROR, STREAM_ERROR])
REPORTED = st.sampled_from([HANDLED_ERROR, CRASH, OUT_OF_MEMORY, TIMEOUT])
STRENGTH = [HANDLED_ERROR, STREAM_ERROR, CRASH, OUT_OF_MEMORY, TIMEOUT]


class AnyOrder(RuleBasedStateMachine):
    """Every signal of every thread, in any order, and what must hold all the while."""

    answers = Bundle("answers")

    @initialize(concurrent=st.booleans())
    def start(self, concurrent: bool) -> None:
        self.table = Table(MEMORY, 2, keep_payloads=True, concurrent=concurrent)
        self.table.on_failure = self.failed
        self.told: dict[int, list[str]] = {}
        self.known: dict[int, Invocation] = {}
        self.delivered: set[int] = set()
        self.last_error: Invocation | None = None
        self.asked = 0

    def failed(self, invocation: Invocation) -> None:
        assert invocation.outcome is not None
        assert id(invocation) not in self.delivered, "a delivered success failed later"
        self.known[id(invocation)] = invocation
        self.told.setdefault(id(invocation), []).append(invocation.outcome.condition)

    def in_table(self, request_id: str) -> Invocation | None:
        return self.table._by_id.get(request_id)

    @rule()
    def the_runtime_asks_for_an_event(self) -> None:
        self.asked += 1
        self.last_error = None
        self.table.asked_next()

    @rule(request_id=IDS, deadline_ms=st.integers(-100_000, 100_000))
    def an_event_passes(self, request_id: str, deadline_ms: int) -> None:
        before = self.in_table(request_id)
        invocation = self.table.open(event_head(request_id, now_ms() + deadline_ms))
        assert invocation is not None
        assert not invocation.ended
        assert not invocation.released.is_set or not before or before is invocation
        if before is not None and (before.ended or before is not invocation):
            assert invocation is not before, "a retry is a new invocation"
            assert before.released.is_set
        self.known[id(invocation)] = invocation

    @rule(request_id=IDS, size=st.integers(0, 700))
    def a_piece_of_it_passes(self, request_id: str, size: int) -> None:
        invocation = self.in_table(request_id)
        if invocation is not None:
            self.table.keep(invocation, b"x" * size)

    @rule(request_id=IDS)
    def its_last_byte_passes(self, request_id: str) -> None:
        invocation = self.in_table(request_id)
        if invocation is not None:
            self.table.whole(invocation)

    @rule(target=answers, request_id=IDS)
    def an_answer_begins(self, request_id: str) -> Any:
        invocation = self.in_table(request_id)
        if invocation is None:
            return multiple()
        over, asked = self.table.answer_begins(request_id)
        assert asked == self.asked
        return (request_id, over, asked)

    @rule(answer=consumes(answers), condition=st.none() | POSTED)
    def an_answer_is_over(self, answer: Any, condition: str | None) -> None:
        request_id, over, asked = answer
        if condition is not None:
            invocation = self.in_table(request_id)
            fresh = invocation is not None and not invocation.ended
            self.table.posted(request_id, Outcome(condition, b"e"), asked)
            if fresh and condition == SUCCESS:
                self.delivered.add(id(invocation))
            if condition == HANDLED_ERROR and asked == self.asked:
                self.last_error = invocation
        over.set()

    @rule(request_id=IDS, condition=REPORTED)
    def the_platform_reports(self, request_id: str, condition: str) -> None:
        self.table.end(request_id, Outcome(condition))

    @rule(request_id=IDS)
    def the_platform_reports_success(self, request_id: str) -> None:
        invocation = self.in_table(request_id)
        if invocation is not None and not invocation.observed.is_set and not invocation.ended:
            self.delivered.add(id(invocation))
        self.table.succeeded_unseen(request_id)
        self.table.logs_done(request_id)

    @rule(request_id=IDS, deadline_ms=st.just(0) | st.integers(-100_000, 100_000))
    def invoke(self, request_id: str, deadline_ms: int) -> None:
        invocation = self.table.expect(request_id, deadline_ms and now_ms() + deadline_ms, "arn:x")
        self.known[id(invocation)] = invocation
        assert self.in_table(request_id) is invocation

    @rule()
    def the_runtime_exits(self) -> None:
        posted = self.last_error
        self.table.runtime_exited()
        self.last_error = None
        watched = self.table.runtime_ready and not self.table.concurrent
        if posted is not None and watched and id(posted) not in self.delivered:
            assert posted.outcome is not None
            assert posted.outcome.failed
            assert STRENGTH.index(posted.outcome.condition) >= STRENGTH.index(CRASH)
        if self.table.runtime_ready:
            for invocation in self.table._by_id.values():
                assert invocation.ended or not invocation.observed.is_set

    @rule(reason=st.sampled_from(["timeout", "failure", "spindown", "?"]))
    def shutdown(self, reason: str) -> None:
        self.table.shutdown(reason)
        for invocation in self.table._by_id.values():
            assert invocation.ended or not invocation.observed.is_set

    @rule(request_id=IDS)
    def its_record_is_written(self, request_id: str) -> None:
        invocation = self.in_table(request_id)
        if invocation is not None and invocation.outcome is not None and invocation.outcome.failed:
            invocation.settled = True

    @rule(number=st.integers(1, 80))
    def much_else_happens(self, number: int) -> None:
        for index in range(number):
            self.table.expect(f"other {index}", 0, "")
            self.table.end(f"other {index}", Outcome(SUCCESS))

    @invariant()
    def every_byte_of_memory_is_accounted_for(self) -> None:
        if not hasattr(self, "table"):
            return
        kept = sum(one.payload.kept for one in self.table._by_id.values() if one.payload is not None)
        assert self.table._room + kept == MEMORY
        assert self.table._room >= 0
        for invocation in self.known.values():
            if self.in_table(invocation.request_id or "") is not invocation:
                assert invocation.payload is None

    @invariant()
    def the_table_is_bounded(self) -> None:
        if hasattr(self, "table"):
            assert len(self.table._by_id) <= 64 + 1 + 3

    @invariant()
    def one_failure_each_that_only_gets_stronger_or_clearer(self) -> None:
        for conditions in getattr(self, "told", {}).values():
            ranks = [STRENGTH.index(condition) for condition in conditions if condition != INIT_ERROR]
            assert ranks == sorted(ranks)
            assert len(ranks) <= len(set(ranks)) + 1  # once more at most, where its error came late

    @invariant()
    def nobody_holds_for_what_has_ended(self) -> None:
        for invocation in getattr(self, "known", {}).values():
            assert invocation.released.is_set or not invocation.ended

    def teardown(self) -> None:
        if not hasattr(self, "table"):
            return
        for request_id in ("a", "b", "c"):
            self.table.end(request_id, Outcome(HANDLED_ERROR))
        for index in range(200):
            self.table.expect(f"flush {index}", 0, "")
        assert self.table._room == MEMORY


@pytest.fixture(autouse=True)
def _no_waiting_for_answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.name == "runTest":
        monkeypatch.setattr(inflight, "_ANSWER_S", 0.0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(
    stateful_step_count=40, max_examples=max(50, hypothesis_settings().max_examples // 4)
)
