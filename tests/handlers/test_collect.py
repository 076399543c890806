"""Given a batch from SQS, then each message succeeds or fails by itself, and bad records go aside with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError

from handlers.redrive.collect import BadRecords, CollectHandler
from handlers.redrive.settings import BadSettings, from_environment
from tests.handlers.conftest import World
from tests.handlers.records import QUEUE, record_id, sidecar_record


def sqs_event(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"m-{number}",
                "receiptHandle": "r",
                "body": body,
                "attributes": {"SentTimestamp": "1795536480123", "ApproximateReceiveCount": "1"},
                "messageAttributes": {"backstop.id": {"dataType": "String", "stringValue": "x"}},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": QUEUE,
                "awsRegion": "eu-central-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def test_bad_records_go_aside_with_the_reason_and_the_rest_is_collected(world: World) -> None:
    bad = world.sqs.create_queue(QueueName="bad")["QueueUrl"]
    collect = CollectHandler(world.collector, BadRecords(world.sqs, bad))
    assert collect(sqs_event(sidecar_record("a"), "no json", sidecar_record("b"))) == {"batchItemFailures": []}
    assert {item["failureId"] for item in world.items("Failure")} == {record_id("a"), record_id("b")}
    (aside,) = world.sqs.receive_message(QueueUrl=bad, MessageAttributeNames=["All"])["Messages"]
    assert aside["Body"] == "no json"
    assert aside["MessageAttributes"]["backstop.reason"]["StringValue"] == "not JSON: JSONDecodeError"
    assert aside["MessageAttributes"]["backstop.source"]["StringValue"] == QUEUE


def test_without_a_place_for_bad_records_sqs_keeps_them(world: World) -> None:
    collect = CollectHandler(world.collector, BadRecords(world.sqs, None))
    answer = collect(sqs_event("no json", sidecar_record("b")))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-0"}]}
    with pytest.raises(BatchProcessingError):
        collect(sqs_event("no json"))


def test_the_log_tells_the_reason_and_nothing_of_an_event(world: World, caplog: pytest.LogCaptureFixture) -> None:
    collect = CollectHandler(world.collector, BadRecords(world.sqs, None))
    collect(sqs_event(sidecar_record("a", b'{"card":"4111"}'), '{"card":"4111"}'))
    told = [str(vars(record)) for record in caplog.records]
    assert any("bad record" in one for one in told)
    assert not any("4111" in one for one in told)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "BACKSTOP_TABLE"),
        ({"BACKSTOP_TABLE": "t", "BACKSTOP_RETENTION_DAYS": "0"}, "RETENTION_DAYS"),
        ({"BACKSTOP_TABLE": "t", "BACKSTOP_DLQ_FUNCTIONS": "[]"}, "DLQ_FUNCTIONS"),
    ],
)
def test_wrong_settings_say_what_to_do(environ: dict[str, str], told: str) -> None:
    with pytest.raises(BadSettings, match=told):
        from_environment(environ)
