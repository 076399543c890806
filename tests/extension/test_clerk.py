"""From a failure to its message: on disk before it is sent, complete with its log lines, and there whatever goes wrong."""

from __future__ import annotations

import _thread
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from extension import clerk as clerks
from extension import record as records
from extension import say
from extension.clerk import Clerk
from extension.delivery import Delivery
from extension.inflight import Invocation
from extension.outcome import CRASH, HANDLED_ERROR, INIT_ERROR, SUCCESS, TIMEOUT, Outcome
from extension.record import Record
from extension.settings import Settings
from extension.spool import Spool
from extension.sqs_protocol import ACCEPTED, RETRY
from extension.sqs_protocol import Outcome as Sent
from tests.extension.invocations import NONCE, QUEUE, failed, read, settings
from tests.extension.serving import WAIT_S, until

SLOW_LOGS_MS = "2000"


class Queue:
    """What a queue is to delivery; `sqs.Queue` is tested against SQS itself."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.reachable = True
        self.before: Callable[[], None] = lambda: None
        self.came = threading.Semaphore(0)

    def send(self, sent: list[Record], deadline: float) -> list[Sent]:
        self.before()
        if not self.reachable:
            return [Sent(RETRY, "nobody answers")] * len(sent)
        self.messages += map(read, sent)
        for _ in sent:
            self.came.release()
        return [Sent(ACCEPTED)] * len(sent)

    def close(self) -> None:
        pass


class Desk:
    """A clerk with a real spool and a real delivery, in a folder of the test."""

    def __init__(self, folder: Path, options: Settings, telemetry_on: bool = False) -> None:
        self.folder = folder / "spool"
        self.queue = Queue()
        self.spool = Spool(str(self.folder), 64 << 20)
        self._options = options
        self.clerk = Clerk(options, self.spool, Delivery(self.spool, self._open_queue), NONCE)
        self.clerk.telemetry_on = telemetry_on

    def _open_queue(self) -> Queue:
        if self._options.queue_url is None:
            raise ValueError("no queue is set")
        return self.queue

    def report(self, invocation: Invocation) -> None:
        self.clerk.report(invocation)

    def next_life(self) -> list[dict[str, Any]]:
        """What a later life of the environment finds on disk."""
        later = Spool(str(self.folder), 64 << 20)
        return [read(Record.decode(later.read(record_id) or b"")) for record_id in later.pending()]

    def came(self, count: int = 1) -> list[dict[str, Any]]:
        for _ in range(count):
            assert self.queue.came.acquire(timeout=WAIT_S)
        return self.queue.messages


@pytest.fixture(autouse=True)
def _fresh_voice() -> Iterator[None]:
    say.forget()
    yield
    say.forget()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, settings(queue_url=QUEUE))


@pytest.fixture
def patient(tmp_path: Path) -> Desk:
    """One that waits long for log lines: a test that does not end the wait takes too long."""
    return Desk(tmp_path, settings(queue_url=QUEUE, log_wait_ms=SLOW_LOGS_MS), telemetry_on=True)


def condition(message: dict[str, Any]) -> str:
    found = message["requestContext"]["condition"]
    assert isinstance(found, str)
    return found


def printed(capture: pytest.CaptureFixture[str], kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capture.readouterr().out.splitlines()]
    return [line for line in lines if line["backstop"] == kind]


# Written before it is sent


def test_a_record_is_on_disk_before_it_is_sent(desk: Desk) -> None:
    on_disk: list[list[dict[str, Any]]] = []
    invocation = failed(b'{"amount":1.00}')
    desk.queue.before = lambda: on_disk.append(desk.next_life())
    desk.report(invocation)
    (message,) = desk.came()
    assert invocation.spooled.is_set
    assert invocation.filed.wait(WAIT_S)
    assert on_disk == [[message]]
    assert message["backstop"]["logsIncomplete"] is True  # there is no telemetry in this place
    assert desk.clerk.delivery.wait_idle(WAIT_S)
    assert desk.next_life() == []


def test_reporting_waits_for_nobody(desk: Desk) -> None:
    stuck, go = threading.Event(), threading.Event()
    put = desk.spool.put

    def slow_put(*arguments: Any, **keywords: Any) -> bool:
        stuck.set()
        go.wait(WAIT_S)
        return put(*arguments, **keywords)

    desk.spool.put = slow_put  # type: ignore[method-assign]
    invocation = failed()
    desk.report(invocation)
    assert stuck.wait(WAIT_S)
    assert not invocation.spooled.is_set
    assert not desk.clerk.wait_idle(0)
    go.set()
    assert invocation.filed.wait(WAIT_S)


def test_many_failures_at_once_are_all_recorded(desk: Desk) -> None:
    invocations = [failed(b"%d" % number, request_id=f"id-{number}") for number in range(64)]
    threads = [threading.Thread(target=desk.report, args=(one,)) for one in invocations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = desk.came(64)
    assert {message["requestPayload"] for message in messages} == set(range(64))
    assert desk.clerk.wait_idle(WAIT_S)


# Complete with its log lines


def test_the_record_waits_for_its_log_lines_and_no_longer(patient: Desk) -> None:
    invocation = failed()
    invocation.log_lines.append("before")
    patient.report(invocation)
    assert invocation.spooled.wait(WAIT_S)
    (kept,) = patient.next_life()  # a kill while it waits loses nothing
    assert kept["backstop"]["logsIncomplete"] is True
    assert not patient.clerk.delivery.counters["attempts"]
    assert not invocation.filed.is_set
    invocation.log_lines.append("after")
    invocation.logs_done.set()
    started = time.monotonic()
    patient.clerk.logs_arrived()
    (message,) = patient.came()
    assert time.monotonic() - started < 1.5
    assert message["backstop"]["logs"] == ["before", "after"]
    assert "logsIncomplete" not in message["backstop"]
    assert patient.clerk.counters["written"] == 2


def test_lines_that_were_there_already_cost_no_wait(patient: Desk) -> None:
    invocation = failed()
    invocation.logs_done.set()
    started = time.monotonic()
    patient.report(invocation)
    patient.came()
    assert time.monotonic() - started < 1.5
    assert patient.clerk.counters["written"] == 1


def test_lines_that_do_not_come_are_waited_for_as_long_as_set(tmp_path: Path) -> None:
    desk = Desk(tmp_path, settings(queue_url=QUEUE, log_wait_ms="150"), telemetry_on=True)
    started = time.monotonic()
    desk.report(failed())
    (message,) = desk.came()
    assert 0.15 <= time.monotonic() - started < 1.5
    assert message["backstop"]["logsIncomplete"] is True


def test_logs_that_arrive_for_nobody_are_no_matter(patient: Desk) -> None:
    patient.clerk.logs_arrived()
    assert patient.clerk.wait_idle(0)


def test_a_failed_initialization_waits_for_no_lines(patient: Desk) -> None:
    """No runtimeDone names it."""
    patient.report(failed(None, Outcome(INIT_ERROR), request_id=None))
    (message,) = patient.came()
    assert condition(message) == INIT_ERROR


# Amended


def test_a_stronger_signal_amends_the_message_under_the_same_id(desk: Desk) -> None:
    invocation = failed(b'{"a":1}')
    desk.report(invocation)
    desk.came()
    assert desk.clerk.delivery.wait_idle(WAIT_S)
    invocation.outcome = Outcome(CRASH, b'{"errorMessage":"boom"}')
    desk.report(invocation)
    first, second = desk.came()
    assert (condition(first), condition(second)) == (HANDLED_ERROR, CRASH)
    assert first["backstop"]["id"] == second["backstop"]["id"]
    assert second["requestPayload"] == {"a": 1}


def test_one_that_comes_while_lines_are_waited_for_makes_one_message(patient: Desk) -> None:
    invocation = failed()
    patient.report(invocation)
    assert invocation.spooled.wait(WAIT_S)
    invocation.outcome = Outcome(TIMEOUT)
    invocation.logs_done.set()
    patient.report(invocation)
    assert patient.clerk.wait_idle(WAIT_S)
    assert patient.clerk.delivery.wait_idle(WAIT_S)
    assert [condition(message) for message in patient.queue.messages] == [TIMEOUT]


def test_an_amendment_never_replaces_an_event_by_none(desk: Desk) -> None:
    desk.queue.reachable = False
    invocation = failed(b'{"a":1}')
    desk.report(invocation)
    assert invocation.filed.wait(WAIT_S)
    invocation.payload = None  # let go for a later event
    invocation.outcome = Outcome(CRASH)
    desk.report(invocation)
    assert desk.clerk.wait_idle(WAIT_S)
    (kept,) = desk.next_life()
    assert kept["requestPayload"] == {"a": 1}


# Near the deadline


def running() -> Invocation:
    invocation = failed(b'{"a":1}')
    invocation.outcome = None
    invocation.ended_at = None
    return invocation


def test_an_event_near_its_deadline_is_kept_for_the_next_life_only(desk: Desk) -> None:
    invocation = running()
    desk.clerk.provisional(invocation)
    assert invocation.provisional
    assert desk.spool.pending() == []
    (kept,) = desk.next_life()
    assert condition(kept) == TIMEOUT
    assert kept["requestPayload"] == {"a": 1}


def test_it_is_taken_out_again_after_a_success(desk: Desk) -> None:
    invocation = running()
    desk.clerk.provisional(invocation)
    invocation.outcome = Outcome(SUCCESS)
    desk.clerk.recovered(invocation)
    assert desk.next_life() == []
    assert not invocation.provisional


def test_after_a_failure_the_true_record_takes_its_place(desk: Desk) -> None:
    invocation = running()
    desk.clerk.provisional(invocation)
    invocation.outcome = Outcome(HANDLED_ERROR)
    desk.report(invocation)
    assert [condition(message) for message in desk.came()] == [HANDLED_ERROR]
    assert desk.clerk.delivery.wait_idle(WAIT_S)
    assert desk.next_life() == []


@pytest.mark.parametrize("ended", [SUCCESS, HANDLED_ERROR])
def test_an_end_while_the_provisional_record_is_written_wins(ended: str, desk: Desk) -> None:
    desk.queue.reachable = False
    invocation = running()
    put = desk.spool.put

    def put_meanwhile(record_id: str, data: bytes, provisional: bool = False) -> bool:
        desk.spool.put = put  # type: ignore[method-assign]
        invocation.outcome = Outcome(ended)
        if ended != SUCCESS:
            desk.report(invocation)
            assert invocation.filed.wait(WAIT_S)
        return put(record_id, data, provisional)

    desk.spool.put = put_meanwhile  # type: ignore[method-assign]
    desk.clerk.provisional(invocation)
    assert desk.clerk.wait_idle(WAIT_S)
    assert [condition(kept) for kept in desk.next_life()] == ([] if ended == SUCCESS else [HANDLED_ERROR])


def test_an_invocation_that_has_ended_needs_none(desk: Desk) -> None:
    invocation = failed()
    desk.clerk.provisional(invocation)
    assert not invocation.provisional
    assert desk.next_life() == []


# SHUTDOWN


def test_what_is_left_is_sent_at_shutdown(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.report(failed())
    desk.clerk.close(time.monotonic() + 5)
    assert len(desk.queue.messages) == 1
    assert printed(capfd, "undelivered") == []


def test_what_an_earlier_life_left_is_sent_too(desk: Desk) -> None:
    made = records.build(failed(), Outcome(CRASH), None, settings(), NONCE)
    Spool(str(desk.folder), 1 << 20).put(made.id, made.encode())
    desk.clerk.resume()
    assert [condition(message) for message in desk.came()] == [CRASH]


def test_resuming_with_nothing_left_asks_nothing(desk: Desk) -> None:
    desk.clerk.resume()
    assert not desk.clerk.delivery._started


def test_what_cannot_be_sent_is_printed_and_stays_for_the_next_life(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.queue.reachable = False
    desk.report(failed())
    started = time.monotonic()
    desk.clerk.close(started + 0.4)
    assert time.monotonic() - started < 1.5
    (line,) = printed(capfd, "undelivered")
    assert line["condition"] == HANDLED_ERROR
    assert line["why"] == "nobody answers"
    assert len(desk.next_life()) == 1


def test_a_queue_that_hangs_does_not_stretch_the_shutdown(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    go = threading.Event()

    def hang() -> None:
        go.wait(WAIT_S)

    desk.queue.before = hang
    desk.report(failed())
    started = time.monotonic()
    desk.clerk.close(started + 0.3)
    assert time.monotonic() - started < 1.2
    assert len(printed(capfd, "undelivered")) == 1
    go.set()


def test_waiting_for_log_lines_leaves_time_to_send(patient: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    invocation = failed()
    patient.report(invocation)
    assert invocation.spooled.wait(WAIT_S)
    patient.clerk.close(time.monotonic() + 1.0)
    assert len(patient.queue.messages) == 1
    assert printed(capfd, "undelivered") == []


@pytest.mark.parametrize("telemetry_on", [True, False])
def test_a_shutdown_whose_deadline_is_over_still_keeps_and_tells(
    telemetry_on: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, settings(queue_url=QUEUE, log_wait_ms=SLOW_LOGS_MS), telemetry_on)
    desk.queue.reachable = False
    desk.report(failed())
    started = time.monotonic()
    desk.clerk.close(started - 1.0)
    assert time.monotonic() - started < 1.0
    assert len(printed(capfd, "undelivered")) == 1
    assert len(desk.next_life()) == 1


def test_without_a_queue_the_line_is_the_destination(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, settings())
    desk.report(failed())
    desk.clerk.close(time.monotonic() + 1)
    (line,) = printed(capfd, "undelivered")
    assert line["why"] == "BACKSTOP_QUEUE_URL is not set"
    assert desk.next_life() == []  # else each later life would print it again


@pytest.mark.parametrize("mode", ["metadata", "masked", "off"])
def test_what_the_line_holds_is_a_setting(mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, settings(last_resort=mode))
    desk.report(failed(b'{"password":"x","a":1}'))
    desk.clerk.close(time.monotonic() + 1)
    lines = printed(capfd, "undelivered")
    assert len(lines) == (mode != "off")
    for line in lines:
        assert line.get("maskedPayload") == ({"password": "***", "a": 1} if mode == "masked" else None)


def test_a_broken_file_in_the_spool_costs_no_other_its_line(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.queue.reachable = False
    for name, data in (("a", b"no header"), ("b", b'["i","f","c","m",1,2,3]\nbody'), ("c", b"\xff\n")):
        desk.spool.put(name, data)
    desk.report(failed())
    desk.clerk.close(time.monotonic() + 0.3)
    assert len(printed(capfd, "undelivered")) == 1


def test_printing_ends_in_time_however_many_are_left(
    desk: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.queue.reachable = False
    for number in range(10):
        made = records.build(failed(request_id=str(number)), Outcome(CRASH), None, settings(), NONCE)
        desk.spool.put(made.id, made.encode())
    monkeypatch.setattr(clerks, "_PRINT_S", -1.0)
    desk.clerk.close(time.monotonic() + 0.1)
    (warning,) = [line for line in printed(capfd, "warning") if line["what"] == "last resort"]
    assert "10 more" in warning["why"]


# Whatever goes wrong


@pytest.mark.parametrize("broken", ["build", "put"])
def test_a_fault_ends_no_thread_and_holds_nobody(
    broken: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    invocation = failed(request_id="first")
    with monkeypatch.context() as patch:
        if broken == "build":
            patch.setattr(records, "build", fault)
        else:
            patch.setattr(desk.spool, "put", fault)
        desk.report(invocation)
        assert invocation.spooled.wait(WAIT_S)
        assert invocation.filed.wait(WAIT_S)
        desk.clerk.provisional(running())
    assert desk.clerk.counters["faults"] == 2
    assert "a bug of ours" in capfd.readouterr().out
    desk.report(failed(request_id="second"))
    assert [message["requestContext"]["requestId"] for message in desk.came()] == ["second"]


def test_a_fault_in_completing_a_record_sends_it_as_it_is(patient: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    invocation = failed()
    patient.report(invocation)
    assert invocation.spooled.wait(WAIT_S)

    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(records, "build", fault)
    invocation.logs_done.set()
    patient.clerk.logs_arrived()
    (message,) = patient.came()
    assert message["backstop"]["logsIncomplete"] is True
    assert invocation.filed.wait(WAIT_S)


def test_without_a_thread_it_is_done_on_the_spot(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    invocation = failed()
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        desk.report(invocation)
    assert invocation.filed.is_set
    assert len(desk.next_life()) == 1
    desk.report(failed(request_id="later"))
    desk.came(2)


def test_a_folder_that_cannot_be_made_is_borne(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file in its place")
    desk = Desk(tmp_path, settings(queue_url=QUEUE))
    desk.report(failed())
    assert len(desk.came()) == 1


def test_a_failure_over_the_rate_lets_its_event_go(tmp_path: Path) -> None:
    """Else a storm of failures would take the memory of the events that are recorded."""
    desk = Desk(tmp_path, settings(queue_url=QUEUE, max_records_per_minute="1"))
    desk.report(failed(request_id="1"))
    suppressed = failed(request_id="2")
    desk.report(suppressed)
    assert suppressed.settled
    until(lambda: desk.clerk.wait_idle(0))
    desk.came(1)


def test_the_parts_are_put_together_as_they_are_in_the_sidecar(tmp_path: Path) -> None:
    clerk = clerks.open_clerk(settings(state_dir=str(tmp_path)), {})
    invocation = failed()
    clerk.report(invocation)
    assert invocation.filed.wait(WAIT_S)
    assert clerk.delivery.wait_idle(WAIT_S)
    assert len(Spool(str(tmp_path / "spool"), 1 << 20).pending()) == 1
