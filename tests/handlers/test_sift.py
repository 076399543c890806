"""Given a dead-letter queue and rules, then each message is archived, sent, marked and deleted in this order, and a
dying sift loses none."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest
from pydantic import ValidationError

from handlers.redrive.sift import Places, Sift
from handlers.redrive.sift_archive import INTENTS, SENT, Bucket, Folder
from handlers.redrive.sift_rules import Action, Rules, decide
from tests.handlers.conftest import BUCKET, World

RULES = {
    "rules": [
        {"name": "gone", "when": "body.tenant == 'gone'", "do": "delete"},
        {"name": "wrong", "when": "body.currency == 'DEM'", "do": "resend", "set": {"currency": "EUR",
        "was.currency": "DEM"}},
        {"name": "odd", "when": "body == null", "do": "quarantine"},
        {"name": "web", "when": "attributes.source == 'web'", "do": "resend"},
    ]
}  # fmt: skip


def rules(**changes: Any) -> Rules:
    return Rules.model_validate({**RULES, **changes})


def message(body: str, **attributes: str) -> dict[str, Any]:
    return {
        "MessageId": "m",
        "Body": body,
        "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    }


@pytest.mark.parametrize(
    ("body", "attributes", "action", "rule"),
    [
        ('{"tenant":"gone"}', {}, Action.DELETE, "gone"),
        ('{"tenant":"gone","currency":"DEM"}', {}, Action.DELETE, "gone"),
        ("no json", {}, Action.QUARANTINE, "odd"),
        ('{"tenant":"other"}', {"source": "web"}, Action.RESEND, "web"),
        ('{"tenant":"other"}', {"source": "app"}, Action.SKIP, "(default)"),
    ],
)
def test_the_first_rule_that_holds_decides(body: str, attributes: dict[str, str], action: Action, rule: str) -> None:
    decision = decide(rules(), message(body, **attributes))
    assert (decision.action, decision.rule, decision.body) == (action, rule, body)


def test_changes_are_made_in_the_body_and_what_is_not_changed_goes_as_it_was() -> None:
    changed = decide(rules(), message('{"currency": "DEM", "n": 1.00}'))
    assert json.loads(changed.body) == {"currency": "EUR", "n": 1.0, "was": {"currency": "DEM"}}
    assert decide(rules(), message('{"n": 1.00}', source="web")).body == '{"n": 1.00}'
    broken = decide(rules(), message('{"currency": "DEM", "was": 1}'))
    assert (broken.action, broken.note) == (Action.SKIP, "was in the body is no object")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rules": []}, "at least 1"),
        ({"rules": [{"name": "a", "when": "x[", "do": "skip"}]}, "JMESPath"),
        ({"rules": [{"name": "a", "when": "x", "do": "burn"}]}, "resend"),
        ({"rules": [{"name": "a", "when": "x", "do": "delete", "set": {"a": 1}}]}, "only for do: resend"),
        ({"rules": [{"name": "a", "when": "x", "do": "skip"}] * 2}, "same name"),
        ({"default": "resend"}, "default cannot be resend"),
    ],
)
def test_rules_that_make_no_sense_say_why(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        rules(**changes)


class Queues:
    def __init__(self, world: World, fifo: bool = False) -> None:
        self.client = world.sqs
        suffix = ".fifo" if fifo else ""
        attributes = {"FifoQueue": "true"} if fifo else {}
        self.dlq, self.orders, self.quarantine = (
            self.client.create_queue(QueueName=name + suffix, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
            for name in ("dlq", "orders", "quarantine")
        )
        self.places = Places(self.dlq, self.orders, self.quarantine)

    def depth(self, url: str) -> int:
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return sum(
            map(int, self.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values())
        )

    def drain(self, url: str) -> list[Any]:
        found: list[Any] = []
        while got := self.client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages"):
            found += got
            for one in got:
                self.client.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
        return found


def put(queues: Queues, bodies: list[str], **more: Any) -> None:
    for start in range(0, len(bodies), 10):
        entries: Any = [
            {"Id": str(n), "MessageBody": body, **more} for n, body in enumerate(bodies[start : start + 10])
        ]
        queues.client.send_message_batch(QueueUrl=queues.dlq, Entries=entries)


def test_a_dry_run_counts_by_rule_and_touches_nothing(world: World) -> None:
    queues = Queues(world)
    put(queues, ['{"tenant":"gone"}', '{"tenant":"gone"}', "odd", '{"other":1}'])
    shown = Sift(queues.client, queues.places, rules(), None).run().shown()
    assert shown["rules"] == {"gone": {"delete": 2}, "odd": {"quarantine": 1}, "(default)": {"skip": 1}}
    assert (queues.depth(queues.dlq), queues.depth(queues.orders)) == (4, 0)
    assert len(queues.drain(queues.dlq)) == 4  # visible again


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_messages_go_where_the_rules_say_with_their_attributes_and_an_archive(
    world: World, tmp_path: Path, kind: str
) -> None:
    queues = Queues(world)
    archive = Folder(tmp_path) if kind == "folder" else Bucket(world.s3, BUCKET, "sift")
    source = {
        "source": {"DataType": "String", "StringValue": "web"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\0"},
    }
    put(queues, ['{"n": 1.00}'], MessageAttributes=source)
    put(queues, ['{"tenant":"gone"}', '{"currency":"DEM"}', "odd", '{"other":1}'])
    tally = Sift(queues.client, queues.places, rules(), archive).run()
    assert tally.failed == Counter()
    assert [one["Body"] for one in queues.drain(queues.dlq)] == ['{"other":1}']
    assert [one["Body"] for one in queues.drain(queues.quarantine)] == ["odd"]
    resent = {one["Body"]: one for one in queues.drain(queues.orders)}
    assert set(resent) == {'{"n": 1.00}', '{"currency":"EUR","was":{"currency":"DEM"}}'}
    attributes = resent['{"n": 1.00}']["MessageAttributes"]
    assert attributes["source"]["StringValue"] == "web"
    assert attributes["raw"]["BinaryValue"] == b"\0"
    intents = {line["body"]: line for line in archive.read(INTENTS)}
    assert {body: line["action"] for body, line in intents.items()} == {
        '{"n": 1.00}': "resend",
        '{"tenant":"gone"}': "delete",
        '{"currency":"DEM"}': "resend",
        "odd": "quarantine",
    }
    assert len(list(archive.read(SENT))) == 3


def test_a_fifo_queue_keeps_groups_and_order(world: World, tmp_path: Path) -> None:
    queues = Queues(world, fifo=True)
    for number in range(24):
        queues.client.send_message(
            QueueUrl=queues.dlq,
            MessageBody=json.dumps({"n": number}),
            MessageGroupId=f"g{number % 3}",
            MessageDeduplicationId=str(number),
        )
    all_of_them = rules(rules=[{"name": "all", "when": "id", "do": "resend"}])
    Sift(queues.client, queues.places, all_of_them, Folder(tmp_path)).run()
    assert queues.depth(queues.dlq) == 0
    got = queues.drain(queues.orders)
    for group in ("g0", "g1", "g2"):
        numbers = [json.loads(one["Body"])["n"] for one in got if one["Attributes"]["MessageGroupId"] == group]
        assert len(numbers) == 8
        assert numbers == sorted(numbers)


class Death(BaseException):
    """The process is gone: from now on nothing of it reaches AWS."""


class Mortal:
    """An SQS client whose process dies before or after its n-th call."""

    def __init__(self, dies_at: int, after: bool) -> None:
        self.client = boto3.client("sqs")
        self._left = dies_at
        self._after = after
        self.client.meta.events.register("before-parameter-build.sqs", self._before)
        self.client.meta.events.register("after-call.sqs", self._after_call)

    def _before(self, **_: Any) -> None:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            self._left = min(self._left, 0)
            raise Death

    def _after_call(self, **_: Any) -> None:
        if self._left <= 0:
            raise Death


@pytest.mark.parametrize("count", [80])
def test_a_sift_that_dies_again_and_again_loses_nothing_and_sends_nothing_unarchived(
    world: World, tmp_path: Path, count: int
) -> None:
    queues = Queues(world)
    kinds = ('{"tenant":"gone","n":%d}', '{"currency":"DEM","n":%d}', "odd %d", '{"tenant":"stays","n":%d}')
    put(queues, [kinds[number % 4] % number for number in range(count)])
    dice = random.Random(5)
    deaths = 0
    deadline = time.monotonic() + 1200
    while True:
        assert time.monotonic() < deadline
        mortal = Mortal(dice.randint(2, max(12, count // 40)), dice.random() < 0.5)
        try:
            sift = Sift(mortal.client, queues.places, rules(), Folder(tmp_path), visibility_s=1 if count < 1000 else 20)
            sift.run()
        except Death:
            deaths += 1
        if deaths >= (4 if count < 1000 else 20) and queues.depth(queues.dlq) == count // 4:
            break
    archived = {line["body"] for line in Folder(tmp_path).read(INTENTS)}
    orders, odd = queues.drain(queues.orders), queues.drain(queues.quarantine)
    sent = Counter(json.loads(one["Body"])["n"] for one in orders) + Counter(int(one["Body"][4:]) for one in odd)
    assert set(sent) == {number for number in range(count) if number % 4 in (1, 2)}
    # Between sending and its mark one batch can be sent twice for each death, no more.
    assert sum(sent.values()) - len(sent) <= 10 * deaths
    assert archived == {kinds[number % 4] % number for number in range(count) if number % 4 != 3}
