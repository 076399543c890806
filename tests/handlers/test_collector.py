"""Given messages in any order, twice, or cut off in the middle, then the table says the same."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handlers.redrive import groups, keys
from handlers.redrive.collector import Collector
from handlers.redrive.groups import GroupStatus, Tally
from handlers.redrive.linker import Linker
from handlers.redrive.record import function_name
from handlers.redrive.table import Change, Insert
from tests.handlers.conftest import BUCKET, NOW, World
from tests.handlers.records import (
    ORDERS,
    by_sns,
    destination_record,
    message,
    record_id,
    sidecar_record,
    stream_record,
)

FINGERPRINT = "00000000000000aa"


def tally(world: World, fingerprint: str = FINGERPRINT) -> Tally:
    return groups.total(
        part for shard in keys.shards() if (part := world.table.get(keys.tally(fingerprint, shard))) is not None
    )


def comparable(world: World) -> list[str]:
    """The whole table but for when things were written and to which attempt's share of time they belong."""
    loose = {"collectedAt", "createdAt", "expiresAt", "sampleId", "reopened"}
    items = [
        {name: sorted(value) if isinstance(value, set) else value for name, value in item.items() if name not in loose}
        for item in world.items()
        if item.get("count") != 0 and not (item["itemType"] == "Group" and not tally(world, item["fingerprint"]).count)
    ]
    for item in items:
        if item["itemType"] == "Group":
            for name in ("errorMessage", "errorType", "condition", "function", "seenKey"):
                item.pop(name, None)
        if item["itemType"] == "Tally":
            item.pop("firstSeen"), item.pop("lastSeen")
    return sorted(json.dumps(item, sort_keys=True, default=str) for item in items)


def test_a_failure_becomes_its_items(world: World) -> None:
    event = b'{"price":1.00,"n":12345678901234567890123}'
    assert world.collect(sidecar_record(event=event)) == ["new"]
    head = world.table.get(keys.failure(record_id("one")))
    assert head is not None
    assert (head["status"], head["attempts"], head["function"]) == ("captured", 0, "orders")
    assert head["expiresAt"] == int(NOW) + 30 * 86_400
    body = world.table.get(keys.body(record_id("one")))
    assert world.events.read(body, head["eventSha256"]) == event
    assert tally(world) == Tally(1, "2026-11-24T16:08:00.123Z", "2026-11-24T16:08:00.123Z", frozenset({"orders"}))
    group = world.table.get(keys.group(FINGERPRINT))
    assert group is not None
    assert (group["status"], group["sampleId"], group["errorType"]) == ("open", record_id("one"), "ValueError")


def test_the_same_record_again_changes_nothing(world: World) -> None:
    assert world.collect(sidecar_record(), sidecar_record()) == ["new", "known"]
    assert tally(world).count == 1
    assert len(world.items("Failure")) == 1


def test_an_amended_record_amends_and_an_older_one_does_not(world: World) -> None:
    first = sidecar_record()
    later = sidecar_record(condition="Crash", fingerprint="00000000000000bb", timestamp="2026-11-24T16:08:01.000Z")
    assert world.collect(first, later, first) == ["new", "amended", "known"]
    head = world.table.get(keys.failure(record_id("one")))
    assert head is not None
    assert (head["condition"], head["fingerprint"]) == ("Crash", "00000000000000bb")
    assert tally(world).count == 0
    assert tally(world, "00000000000000bb").count == 1


def test_of_two_records_of_one_moment_the_stronger_condition_stays(world: World) -> None:
    weak, strong = sidecar_record(), sidecar_record(condition="Timeout")
    world.collect(strong, weak)
    assert [item["condition"] for item in world.items("Failure")] == ["Timeout"]


def test_what_a_replay_did_survives_an_amendment(world: World) -> None:
    world.collect(sidecar_record())
    key = keys.failure(record_id("one"))
    world.table.change(Change(key, sets={"status": "quarantined", "attempts": 3}))
    world.collect(sidecar_record(condition="Crash", timestamp="2026-11-24T16:09:00.000Z"))
    head = world.table.get(key)
    assert head is not None
    assert (head["condition"], head["status"], head["attempts"]) == ("Crash", "quarantined", 3)


def test_events_over_300_kb_and_bodies_over_an_items_size_go_to_s3(world: World) -> None:
    noise = random.Random(1).randbytes
    large = json.dumps(noise(170_000).hex()).encode()
    edge = json.dumps("x" * (300 * 1024 - 2)).encode()
    world.collect(
        sidecar_record("large", large),
        sidecar_record("edge", edge),
        sidecar_record("with-logs", edge, logs=["y" * 1000] * 100),
        sidecar_record("small"),
    )
    bodies = {item["id"]: item for item in world.items("Body")}
    in_s3 = {
        name: "eventKey" in bodies[f"FAILURE#{record_id(name)}"] for name in ("large", "edge", "with-logs", "small")
    }
    assert in_s3 == {"large": True, "edge": False, "with-logs": True, "small": False}
    assert world.events.read(bodies[f"FAILURE#{record_id('large')}"], None) == large
    stored = world.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert all(one["Key"].startswith("events/") and one["Size"] < 300_000 for one in stored)


def test_attempts_of_one_request_are_replayed_as_one(world: World) -> None:
    attempts = [
        sidecar_record(f"try-{number}", request_id="r", timestamp=f"2026-11-24T16:0{number}:00.000Z", owner="lambda")
        for number in range(3)
    ]
    world.collect(attempts[2], attempts[0], attempts[1])
    status = {item["failureId"]: item["status"] for item in world.items("Failure")}
    assert status == {
        record_id("try-0"): "superseded",
        record_id("try-1"): "superseded",
        record_id("try-2"): "captured",
    }


def test_the_order_in_which_attempts_and_aws_own_record_come_does_not_matter(world: World) -> None:
    for number, order in enumerate(itertools.permutations(range(4))):
        request, a, b = f"r-{number}", f"a-{number}", f"b-{number}"
        crash: dict[str, Any] = {"condition": "Crash", "fingerprint": "00000000000000bb"}
        texts = [
            sidecar_record(a, request_id=request, timestamp="2026-11-24T16:01:00.000Z", owner="lambda"),
            sidecar_record(b, request_id=request, timestamp="2026-11-24T16:02:00.000Z", owner="lambda"),
            sidecar_record(b, request_id=request, timestamp="2026-11-24T16:02:01.000Z", owner="lambda", **crash),
            destination_record(request),
        ]
        world.collect(*(texts[index] for index in order))
        first, last = (world.table.get(keys.failure(record_id(name))) for name in (a, b))
        assert first is not None
        assert last is not None
        assert (first["status"], last["status"], last["condition"]) == ("superseded", "captured", "Crash")
        assert {first["exhausted"], last["exhausted"]} == {"AWS: RetriesExhausted"}
    # AWS's own stands only where it came before any sidecar's; then it is superseded.
    assert {item["status"] for item in world.items("Failure") if item["by"] == "aws"} == {"superseded"}
    assert (tally(world).count, tally(world, "00000000000000bb").count) == (24, 24)


def test_aws_own_record_alone_is_a_failure_with_its_retries_used_up(world: World) -> None:
    world.collect(destination_record("r"), by_sns(destination_record("r")))
    (head,) = world.items("Failure")
    assert (head["by"], head["status"], head["exhausted"]) == ("aws", "captured", "AWS: RetriesExhausted")


def test_a_streams_record_before_or_after_the_sidecars_marks_it(world: World) -> None:
    world.collect(stream_record("r1"), sidecar_record("x", request_id="r1", owner="stream"))
    world.collect(sidecar_record("y", request_id="r2", owner="stream"), stream_record("r2"))
    assert {item["exhausted"] for item in world.items("Failure")} == {"AWS: RetryAttemptsExhausted"}


@pytest.mark.parametrize("replay_first", [True, False])
def test_the_failure_of_a_replay_is_linked_to_its_root_in_either_order(world: World, replay_first: bool) -> None:
    world.collect(sidecar_record("root"))
    note = Insert(
        {
            **keys.replay("again"),
            "itemType": "Replay",
            "rootId": record_id("root"),
            "redriveId": "redrive-1",
        }
    )
    if replay_first:
        world.table.insert(note)
    world.collect(sidecar_record("child", request_id="again"))
    if not replay_first:
        world.table.insert(note)
        Linker(world.table).relate("again")
    child = world.table.get(keys.failure(record_id("child")))
    assert child is not None
    assert (child["status"], child["rootId"], child["redriveId"]) == ("linked", record_id("root"), "redrive-1")


def test_a_resolved_group_opens_again_and_a_muted_one_does_not(world: World) -> None:
    for fingerprint, status in (("00000000000000aa", GroupStatus.RESOLVED), ("00000000000000bb", GroupStatus.MUTED)):
        world.collect(sidecar_record(f"first-{status}", fingerprint=fingerprint))
        change = Change(keys.group(fingerprint), sets={"status": status, "resolvedAt": "2026-11-24T16:30:00.000Z"})
        world.table.change(change)
    world.clock.now += 60
    for fingerprint in ("00000000000000aa", "00000000000000bb"):
        old = sidecar_record(f"old-{fingerprint}", fingerprint=fingerprint, timestamp="2026-11-24T16:20:00.000Z")
        world.collect(old)
    assert world.table.get(keys.group("00000000000000aa"))["status"] == "resolved"  # type: ignore[index]
    world.clock.now += 60
    for fingerprint in ("00000000000000aa", "00000000000000bb"):
        new = sidecar_record(f"new-{fingerprint}", fingerprint=fingerprint, timestamp="2026-11-24T16:40:00.000Z")
        world.collect(new)
    assert world.table.get(keys.group("00000000000000aa"))["status"] == "open"  # type: ignore[index]
    assert world.table.get(keys.group("00000000000000bb"))["status"] == "muted"  # type: ignore[index]


def test_first_and_last_seen_do_not_depend_on_order(world: World) -> None:
    times = [f"2026-11-24T16:{minute:02d}:00.000Z" for minute in (5, 1, 9, 3)]
    world.collect(*(sidecar_record(f"at-{time}", timestamp=time) for time in times))
    assert tally(world) == Tally(4, min(times), max(times), frozenset({function_name(ORDERS)}))


def test_a_crash_after_any_write_is_mended_by_the_redelivery(world: World) -> None:
    """Given a collector that dies before its n-th write, when the message comes again, then all is as if it had not died."""
    texts = [
        sidecar_record("a", request_id="r", timestamp="2026-11-24T16:01:00.000Z", owner="lambda"),
        destination_record("r"),
        sidecar_record("b", request_id="r", timestamp="2026-11-24T16:02:00.000Z", owner="lambda"),
    ]
    world.collect(*texts)
    wanted = comparable(world)
    for dies_at in range(1, 25):
        for item in world.items():
            world.table.remove([{"id": item["id"], "sk": item["sk"]}])
        fuse = itertools.count(1)

        def burn(dies_at: int = dies_at, fuse: itertools.count[int] = fuse, **_: object) -> None:
            if next(fuse) == dies_at:
                raise ClientError({"Error": {"Code": "InternalServerError", "Message": "cut"}}, "Write")

        events = world.dynamodb.meta.events
        operations = ("PutItem", "UpdateItem", "TransactWriteItems")
        for operation in operations:
            events.register(f"before-parameter-build.dynamodb.{operation}", burn, unique_id=f"fuse-{operation}")
        try:
            for text in texts:
                for _ in range(2):
                    try:
                        Collector(world.table, world.events, world.settings, world.clock).collect(message(text))
                        break
                    except ClientError:
                        continue
        finally:
            for operation in operations:
                events.unregister(f"before-parameter-build.dynamodb.{operation}", unique_id=f"fuse-{operation}")
        assert comparable(world) == wanted, f"cut at write {dies_at}"
        if next(fuse) <= dies_at:  # it was not cut any more: there are fewer writes
            break
    else:
        pytest.fail("there are more writes than were cut off")
