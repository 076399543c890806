"""Given captured failures, when `redrive-replay` runs on an engine, then each ends as its state says, and no outcome runs twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from handlers.redrive import keys, replay
from handlers.redrive.settings import Settings
from tests.handlers.conftest import BUCKET, TABLE, World
from tests.handlers.machine import Machine, handler_function, make_function
from tests.handlers.moto_plugins.functions import FunctionFailed, Invocation, registry
from tests.handlers.records import ORDERS, record_id, sidecar_record

FINGERPRINT = "00000000000000aa"
BROKEN = {"errorType": "ValueError", "errorMessage": "no stock"}


class Replays:
    """The machine, the function it replays into, and what came of it."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        registry.clear()
        self.world = world
        parts = replay.Replay(Settings(table=TABLE, bucket=BUCKET))
        monkeypatch.setattr(replay, "_replay", lambda: parts)
        names = {
            "PlanFunctionArn": make_function("plan", handler_function(replay.plan)),
            "WorkFunctionArn": make_function("work", handler_function(replay.work)),
            "ReportFunctionArn": make_function("report", handler_function(replay.report)),
        }
        self.machine = Machine("replay.asl.json", names)
        self.parts = parts
        self.behave(lambda invocation: b"null")

    def behave(self, function: Callable[[Invocation], bytes]) -> None:
        if "orders" in registry.functions:
            registry.functions["orders"] = function
        else:
            make_function("orders", function)

    def capture(self, count: int, **details: Any) -> list[str]:
        names = [f"f-{number:03d}" for number in range(count)]
        for number, name in enumerate(names):
            event = b'{"n":1.00,"order":%d}' % number
            self.world.collect(sidecar_record(name, event, timestamp=f"2026-11-24T16:08:00.{number:03d}Z", **details))
        return [record_id(name) for name in names]

    def run(self, **request: Any) -> dict[str, Any]:
        return self.machine.run({"select": {"group": FINGERPRINT}, **request})

    def ran(self) -> list[bytes]:
        """The events the function got, in order."""
        return [one.payload for one in registry.invocations if one.function == "orders"]

    def statuses(self) -> dict[str, str]:
        return {item["failureId"]: item["status"] for item in self.world.items("Failure")}


@pytest.fixture
def replays(world: World, monkeypatch: pytest.MonkeyPatch) -> Replays:
    return Replays(world, monkeypatch)


def fail(invocation: Invocation) -> bytes:
    raise FunctionFailed(BROKEN)


def test_a_fixed_group_is_resolved_with_the_very_bytes(replays: Replays) -> None:
    ids = replays.capture(12)
    done = replays.run(concurrency=4)
    assert (done["status"], done["output"]["status"]) == ("SUCCEEDED", "completed"), done
    assert replays.statuses() == dict.fromkeys(ids, "resolved")
    assert sorted(replays.ran()) == sorted(b'{"n":1.00,"order":%d}' % number for number in range(12))
    assert {key: done["output"][key] for key in ("planned", "resolved", "failed", "ambiguous", "notRun")} == {
        "planned": 12,
        "resolved": 12,
        "failed": 0,
        "ambiguous": 0,
        "notRun": 0,
    }
    report = json.loads(replays.world.s3.get_object(Bucket=BUCKET, Key=done["output"]["report"]["key"])["Body"].read())
    assert report["outcomes"] == dict.fromkeys(ids, "resolved")


def test_a_group_that_still_fails_stops_at_the_canary_after_one_invocation(replays: Replays) -> None:
    ids = replays.capture(5)
    replays.behave(fail)
    done = replays.run(canary=3)
    assert (done["status"], done["error"]) == ("FAILED", "Redrive.Stopped")
    assert "canary" in done["cause"]
    assert len(replays.ran()) == 1
    statuses = replays.statuses()
    assert statuses.pop(ids[0]) == "failed"
    assert set(statuses.values()) == {"captured"}


def test_a_poison_event_is_quarantined_after_n_failed_replays(replays: Replays) -> None:
    ids = replays.capture(2)

    def poisoned(invocation: Invocation) -> bytes:
        if b'"order":1' in invocation.payload:
            fail(invocation)
        return b"null"

    replays.behave(poisoned)
    for attempt in range(1, 4):
        done = replays.run(canary=0, toleratedFailurePercent=100, quarantineAfter=3)
        assert done["status"] == "SUCCEEDED", done
        head = replays.world.table.get(keys.failure(ids[1]))
        assert head is not None
        assert (head["attempts"], head["status"]) == (attempt, "failed" if attempt < 3 else "quarantined")
    assert len(replays.ran()) == 1 + 3
    last = replays.run(canary=0)
    assert last["output"]["planned"] == 0
    assert len(replays.ran()) == 4


def test_more_failures_than_tolerated_leave_the_rest_alone(replays: Replays) -> None:
    replays.capture(20)
    good = {b'{"n":1.00,"order":0}'}

    def mostly_broken(invocation: Invocation) -> bytes:
        return b"null" if invocation.payload in good else fail(invocation)

    replays.behave(mostly_broken)
    done = replays.run(concurrency=1, toleratedFailurePercent=10)
    assert (done["status"], done["error"]) == ("FAILED", "Redrive.Stopped")
    assert "tolerated" in done["cause"]
    # the canary, two that are tolerated, and the one that is one too many
    assert len(replays.ran()) == 4


def test_a_dry_run_runs_nothing_and_tells_the_plan(replays: Replays) -> None:
    replays.capture(3, owner="unknown")
    done = replays.run(dryRun=True)
    assert done["status"] == "SUCCEEDED"
    assert done["output"]["summary"]["planned"] == 0
    assert list(done["output"]["summary"]["reasons"].values()) == [3]
    confirmed = replays.run(dryRun=True, confirmUnknown=True)
    assert confirmed["output"]["summary"]["planned"] == 3
    assert replays.ran() == []


def test_a_request_that_makes_no_sense_fails_with_the_reason(replays: Replays) -> None:
    done = replays.machine.run({"select": {}})
    assert (done["status"], done["error"]) == ("FAILED", "ValidationError")
    assert "not a selection" in done["cause"]


def test_cancelling_stops_before_the_next_item(replays: Replays) -> None:
    replays.capture(10)

    def cancel_at_the_third(invocation: Invocation) -> bytes:
        if len(replays.ran()) == 3:
            (redrive,) = replays.world.items("Redrive")
            assert replays.parts.reporter._ledger.cancel(redrive["redriveId"])
        return b"null"

    replays.behave(cancel_at_the_third)
    done = replays.run(concurrency=1)
    assert (done["status"], done["output"]["status"]) == ("SUCCEEDED", "cancelled")
    assert (done["output"]["resolved"], done["output"]["notRun"]) == (3, 7)


def test_a_redrive_that_was_cut_off_goes_on_without_running_anything_recorded_again(replays: Replays) -> None:
    ids = replays.capture(10)
    first = replays.machine.start({"select": {"group": FINGERPRINT}, "concurrency": 1, "redriveId": "cut"})

    def stop_the_execution(invocation: Invocation) -> bytes:
        if len(replays.ran()) == 4:
            replays.machine.client.stop_execution(executionArn=first)
            raise ConnectionResetError  # moto's own; the worker does not hear of an answer
        return b"null"

    replays.behave(stop_the_execution)
    assert replays.machine.wait(first)["status"] == "ABORTED"
    replays.behave(lambda invocation: b"null")
    done = replays.machine.run({"resume": "cut"})
    assert (done["status"], done["output"]["status"]) == ("SUCCEEDED", "completed"), done
    assert done["output"]["ambiguous"] <= 1
    ran = replays.ran()
    assert len(ran) == len(set(ran))
    assert set(replays.statuses().values()) <= {"resolved", "ambiguous"}
    assert done["output"]["resolved"] + done["output"]["ambiguous"] == len(ids)
    again = replays.machine.run({"resume": "cut"})
    assert again["output"]["resolved"] == done["output"]["resolved"]
    assert len(replays.ran()) == len(ran)


def test_a_failing_replay_is_linked_to_its_root(replays: Replays) -> None:
    (root,) = replays.capture(1)
    replays.behave(fail)
    replays.run()
    (invocation,) = [one for one in registry.invocations if one.function == "orders"]
    replays.world.collect(sidecar_record("child", request_id=invocation.request_id, arn=ORDERS))
    child = replays.world.table.get(keys.failure(record_id("child")))
    assert child is not None
    assert (child["status"], child["rootId"]) == ("linked", root)


def test_an_asynchronous_replay_is_resolved_until_its_failure_is_captured(replays: Replays) -> None:
    (root,) = replays.capture(1)
    done = replays.run(target={"kind": "function", "asynchronous": True})
    assert done["output"]["resolved"] == 1
    (invocation,) = [one for one in registry.invocations if one.function == "orders"]
    assert invocation.kind == "Event"
    replays.world.collect(sidecar_record("child", request_id=invocation.request_id))
    assert replays.statuses() == {root: "failed", record_id("child"): "linked"}


def test_events_can_go_to_a_queue_or_a_bus_instead(replays: Replays) -> None:
    url = replays.world.sqs.create_queue(QueueName="instead")["QueueUrl"]
    replays.capture(3)
    done = replays.run(target={"kind": "queue", "url": url})
    assert done["output"]["resolved"] == 3
    got = replays.world.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert sorted(one["Body"] for one in got) == [f'{{"n":1.00,"order":{number}}}' for number in range(3)]
    assert replays.ran() == []


def test_a_rate_is_kept(replays: Replays) -> None:
    replays.capture(4)
    done = replays.run(ratePerSecond=1, concurrency=10, canary=0)
    assert done["output"]["resolved"] == 4
    # Waits are in whole seconds, and the first second has begun already.
    assert (done["stopDate"] - done["startDate"]).total_seconds() >= 1
