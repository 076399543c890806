"""Given 1,000 failures a second of one function and one cause, then no key of the table is written more than a partition takes."""

from __future__ import annotations

from collections import Counter

from handlers.redrive import capacity, items, keys
from handlers.redrive.attributes import size
from handlers.redrive.capacity import PARTITION_WRITE_UNITS, Load
from handlers.redrive.record import parse
from tests.handlers.conftest import World
from tests.handlers.records import message, record_id, sidecar_record


def test_no_key_is_hot_at_1000_records_a_second_of_one_cause() -> None:
    hottest = capacity.hottest_keys(Load(failures_per_s=1000, replays_per_s=500))
    assert max(hottest.values()) <= PARTITION_WRITE_UNITS / 2, hottest
    # One key for a group's count, or for a status in an index, would be at or over the limit.
    assert hottest["tally"] * keys.SHARDS > PARTITION_WRITE_UNITS
    assert hottest["status index"] * keys.SHARDS > PARTITION_WRITE_UNITS


def test_shards_are_even() -> None:
    counts = Counter(keys.shard(record_id(str(number))) for number in range(20_000))
    assert set(counts) == set(keys.shards())
    assert max(counts.values()) < 1.2 * 20_000 / keys.SHARDS


def test_the_largest_failure_item_is_as_small_as_the_arithmetic_says() -> None:
    long = "x" * 5_000
    text = sidecar_record(
        arn=f"arn:aws:lambda:eu-central-1:123456789012:function:{'f' * 64}:{'q' * 128}",
        error={"type": long, "message": long, "stack": [long] * 9},
        tags={str(number): long[:100] for number in range(50)},
        logs=[long] * 9,
        redacted=["$.a"] * 90,
    )
    captured = parse(message(text)).captured
    assert captured is not None
    assert size(items.head(captured, 2_000_000_000, "2026-11-24T16:08:00.123Z")) <= 3072
    usual = parse(message(sidecar_record())).captured
    assert usual is not None
    assert size(items.head(usual, 2_000_000_000, "2026-11-24T16:08:00.123Z")) <= Load(1).head_bytes


def test_what_is_really_written_is_what_the_arithmetic_counts(world: World) -> None:
    """Given 80 failures of one cause, when each write is counted by its key, then no kind is written more often than computed."""
    written: Counter[str] = Counter()

    def count(params: dict[str, object], **_: object) -> None:
        for one in _writes(params):
            written[one] += 1

    for operation in ("PutItem", "UpdateItem", "TransactWriteItems"):
        world.dynamodb.meta.events.register(f"provide-client-params.dynamodb.{operation}", count)
    total = 80
    world.collect(
        *(sidecar_record(str(number), timestamp=f"2026-11-24T16:08:00.{number:03d}Z") for number in range(total))
    )
    by_kind: dict[str, int] = {}
    for key, times in written.items():
        kind = key.split("#")[0]
        by_kind[kind] = max(by_kind.get(kind, 0), times)
    hottest = capacity.hottest_keys(Load(failures_per_s=total))
    # in the transaction one write is two units; a shard may get a third more than its even part
    assert by_kind["TALLY"] * 1.5 <= hottest["tally"] * 1.9
    assert by_kind["GROUP"] == 1
    assert by_kind["FAILURE"] == 2
    assert by_kind["REQUEST"] == 1
    assert sum(written.values()) <= 5 * total + 1


def _writes(params: dict[str, object]) -> list[str]:
    if "TransactItems" in params:
        transaction: object = params["TransactItems"]
        assert isinstance(transaction, list)
        return [found for one in transaction for found in _writes(next(iter(one.values())))]
    key = params.get("Key") or params.get("Item")
    assert isinstance(key, dict)
    return [str(key["id"]["S"])]
