"""Given one failure and a target that answers, refuses, throttles or is silent, then the outcome is the right one,
and claims are exclusive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from handlers.redrive import keys
from handlers.redrive.ledger import Claim, Denied, Ledger, Outcome, RedriveStatus, Result
from handlers.redrive.planner import settle
from handlers.redrive.table import Change
from handlers.redrive.targets import Unsendable
from handlers.redrive.worker import Throttled, Work, Worker
from tests.handlers.conftest import World
from tests.handlers.records import record_id, sidecar_record

Answer = Callable[[bytes], Result]


class FakeTarget:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.got: list[bytes] = []

    def send(self, failure: Mapping[str, Any], body: Mapping[str, Any], event: bytes, redrive_id: str) -> Result:
        self.got.append(event)
        return self.answer(event)


class Bench:
    """One redrive over captured failures."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = Ledger(world.table, world.settings, world.clock)
        self.target = FakeTarget(lambda event: Result(True, "again"))
        self.open("r")

    def open(self, redrive_id: str, **more: Any) -> None:
        assert self.ledger.open(
            {
                "redriveId": redrive_id,
                "kind": "replay",
                "status": RedriveStatus.RUNNING,
                "toleratedFailures": 99,
                "execution": "e",
                **more,
            }
        )

    def work(self, name: str = "one", redrive_id: str = "r", phase: str = "rest", **more: Any) -> dict[str, Any]:
        worker = Worker(self.world.table, self.world.events, self.ledger, lambda work, seconds: self.target)
        piece = Work.model_validate(
            {
                "redriveId": redrive_id,
                "failureId": record_id(name),
                "phase": phase,
                "target": {"kind": "function"},
                "quarantineAfter": 3,
                **more,
            }
        )
        return worker.run(piece, 60)

    def head(self, name: str = "one") -> dict[str, Any]:
        found = self.world.table.get(keys.failure(record_id(name)))
        assert found is not None
        return found

    def entry(self, name: str = "one", redrive_id: str = "r") -> dict[str, Any]:
        found = self.world.table.get(keys.entry(redrive_id, record_id(name)))
        assert found is not None
        return found

    def claim(self, name: str = "one", redrive_id: str = "r") -> Claim | Denied:
        return self.ledger.claim(
            redrive_id, record_id(name), seconds=60, phase="rest", quarantine_after=3, rerun_ambiguous=False
        )


@pytest.fixture
def bench(world: World) -> Bench:
    world.collect(sidecar_record("one", b'{"n":1.00}'))
    return Bench(world)


def raising(error: Exception) -> Answer:
    def answer(event: bytes) -> Result:
        raise error

    return answer


def aws_error(code: str, status: int) -> ClientError:
    told: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told, "Invoke")


@pytest.mark.parametrize(
    ("answer", "outcome", "status", "failed"),
    [
        (lambda event: Result(True, "again"), "resolved", "resolved", 0),
        (lambda event: Result(False, "again", "E: m"), "failed", "failed", 1),
        (raising(aws_error("ResourceNotFoundException", 404)), "refused", "captured", 1),
        (raising(Unsendable("not text")), "refused", "captured", 1),
        (raising(aws_error("ServiceException", 500)), "ambiguous", "ambiguous", 0),
        (raising(ReadTimeoutError(endpoint_url="u")), "ambiguous", "ambiguous", 0),
    ],
)
def test_every_answer_has_its_outcome(bench: Bench, answer: Answer, outcome: str, status: str, failed: int) -> None:
    bench.target.answer = answer
    assert bench.work()["outcome"] == outcome
    assert bench.target.got == [b'{"n":1.00}']
    assert (bench.head()["status"], bench.entry()["outcome"]) == (status, outcome)
    redrive = bench.ledger.redrive("r")
    assert redrive is not None
    assert redrive["failed"] == failed
    # What is recorded does not run again, in the same redrive.
    assert bench.work()["outcome"] == "skipped"
    assert len(bench.target.got) == 1


def test_throttling_gives_the_claim_back_and_the_same_item_runs_later(bench: Bench) -> None:
    bench.target.answer = raising(aws_error("TooManyRequestsException", 429))
    with pytest.raises(Throttled):
        bench.work()
    assert (bench.head()["status"], bench.entry()["outcome"]) == ("captured", "released")
    bench.target.answer = lambda event: Result(True, "again")
    assert bench.work()["outcome"] == "resolved"


def test_a_failed_one_that_is_throttled_stays_failed(bench: Bench) -> None:
    bench.target.answer = lambda event: Result(False, "again", "E: m")
    bench.work()
    bench.open("r2")
    bench.target.answer = raising(aws_error("TooManyRequestsException", 429))
    with pytest.raises(Throttled):
        bench.work(redrive_id="r2")
    assert (bench.head()["status"], bench.head()["attempts"]) == ("failed", 1)


def test_an_event_that_is_gone_or_not_what_was_captured_is_not_sent(bench: Bench) -> None:
    body = bench.world.table.get(keys.body(record_id("one")))
    assert body is not None
    bench.world.table.remove([keys.body(record_id("one"))])
    assert "purged" in bench.work()["reason"]
    bench.world.collect(sidecar_record("two"))
    bench.world.table.change(Change(keys.body(record_id("two")), sets={"event": b'{"other":1}'}))
    assert "hash" in bench.work("two")["reason"]
    assert bench.target.got == []


def test_of_many_workers_one_runs_a_failure(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: bench.claim(), range(16)))
    assert sum(isinstance(claim, Claim) for claim in claims) == 1


def test_of_two_attempts_of_one_request_one_runs(bench: Bench) -> None:
    bench.world.collect(sidecar_record("late", request_id="request-one", timestamp="2026-11-24T16:09:00.000Z"))
    assert bench.head()["status"] == "superseded"
    assert isinstance(bench.claim("late"), Claim)
    # One that is collected while the other is in flight does not take its place.
    bench.world.collect(sidecar_record("later", request_id="request-one", timestamp="2026-11-24T16:10:00.000Z"))
    assert bench.head("late")["status"] == "inflight"
    assert bench.head("later")["status"] == "superseded"
    assert isinstance(bench.claim("later"), Denied)


def test_a_worker_taken_for_dead_that_comes_back_still_records_its_outcome(bench: Bench) -> None:
    claim = bench.claim()
    assert isinstance(claim, Claim)
    assert settle(bench.ledger, "r") == {record_id("one"): "ambiguous"}
    assert bench.head()["status"] == "ambiguous"
    assert bench.ledger.record(claim, Result(True, "again")) is Outcome.RESOLVED
    assert (bench.head()["status"], bench.entry()["outcome"]) == ("resolved", "resolved")


def test_a_worker_whose_claim_is_another_ones_now_changes_nothing(bench: Bench) -> None:
    claim = bench.claim()
    assert isinstance(claim, Claim)
    settle(bench.ledger, "r")
    assert bench.ledger.reopen(record_id("one"))
    bench.open("r2")
    other = bench.claim(redrive_id="r2")
    assert isinstance(other, Claim)
    assert bench.ledger.record(claim, Result(False, "again", "late")) is Outcome.AMBIGUOUS
    assert bench.head()["status"] == "inflight"
    assert bench.ledger.record(other, Result(True, "again")) is Outcome.RESOLVED


def test_what_is_ambiguous_runs_once_more_when_asked_and_not_twice(bench: Bench) -> None:
    bench.target.answer = raising(ReadTimeoutError(endpoint_url="u"))
    bench.work()
    assert bench.work()["reason"] == "ambiguous"
    assert "still be running" in bench.work(rerunAmbiguous=True)["reason"]
    bench.world.clock.now += 120
    assert bench.work(rerunAmbiguous=True)["outcome"] == "ambiguous"
    bench.world.clock.now += 120
    assert "second time" in bench.work(rerunAmbiguous=True)["reason"]
    assert len(bench.target.got) == 2
    assert bench.ledger.reopen(record_id("one"))
    bench.open("r2")
    bench.target.answer = lambda event: Result(True, "again")
    assert bench.work(redrive_id="r2")["outcome"] == "resolved"


@pytest.mark.parametrize("status", [one for one in RedriveStatus if one is not RedriveStatus.RUNNING])
def test_a_redrive_that_is_not_running_starts_nothing(bench: Bench, status: RedriveStatus) -> None:
    bench.ledger.update("r", status=status)
    assert bench.work()["outcome"] == "skipped"
    assert bench.work(redrive_id="none")["reason"] == "there is no such redrive"
    assert bench.target.got == []


def test_after_a_failed_canary_no_other_canary_runs(bench: Bench) -> None:
    bench.world.collect(sidecar_record("two"))
    bench.target.answer = lambda event: Result(False, "again", "E: m")
    assert bench.work(phase="canary")["outcome"] == "failed"
    assert bench.work("two", phase="canary")["reason"] == "a canary failed"


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("cut", {"payloadTruncated": True, "encoded": True}),
        ("redacted", {"redacted": ["$.card"]}),
        ("piece", {"condition": "PartialBatch", "batch": {"key": "1", "checkpoint": "1", "range": ["1", "2"]}}),
    ],
)
def test_what_is_kept_of_an_event_is_what_a_forced_replay_sends(
    bench: Bench, name: str, details: dict[str, Any]
) -> None:
    """The record's hash is of the event as it came; the kept bytes have their own."""
    bench.world.collect(sidecar_record(name, b'{"kept":1.00}', payloadSha256="0" * 64, **details))
    assert bench.work(name)["outcome"] == "resolved"
    assert bench.target.got == [b'{"kept":1.00}']
