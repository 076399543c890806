"""`python -m tests.handlers.move_task_story URL`: the same story of move tasks, told to any stand-in for SQS; prints
what it answered.

`move_task_story.json` is what localstack-core 4.13.1 answered. The plugin for moto is held against it.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

_ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Teller:
    """One client, and the answers so far."""

    def __init__(self, client: SQSClient) -> None:
        self.client = client
        self.answers: dict[str, Any] = {}

    def queue(self, name: str, **attributes: str) -> tuple[str, str]:
        given: Any = attributes
        url = self.client.create_queue(QueueName=f"{name}-{uuid.uuid4().hex[:6]}", Attributes=given)["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return url, arn

    def pair(self) -> tuple[str, str, str, str]:
        """A dead-letter queue and a queue whose messages go there after one receive."""
        dlq, dlq_arn = self.queue("dlq")
        policy = json.dumps({"deadLetterTargetArn": dlq_arn, "maxReceiveCount": 1})
        url, arn = self.queue("source", RedrivePolicy=policy, VisibilityTimeout="0")
        return dlq, dlq_arn, url, arn

    def fail(self, url: str, dlq: str, count: int) -> None:
        for number in range(count):
            self.client.send_message(QueueUrl=url, MessageBody=str(number))
        self.until(
            lambda: self.depth(dlq) >= count, lambda: self.client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        )

    def depth(self, url: str) -> int:
        names: Any = ["ApproximateNumberOfMessages"]
        return int(self.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][names[0]])

    def until(self, holds: Any, do: Any) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, "nothing happened in time"
            do()
            time.sleep(0.05)

    def error(self, step: str, call: Any, **arguments: Any) -> None:
        try:
            call(**arguments)
        except ClientError as error:
            self.answers[step] = error.response["Error"]["Code"]
        else:
            self.answers[step] = "no error"

    def tasks(self, arn: str) -> list[dict[str, Any]]:
        return [
            dict(one) for one in self.client.list_message_move_tasks(SourceArn=arn, MaxResults=10).get("Results", [])
        ]

    def ended(self, arn: str) -> dict[str, Any]:
        self.until(lambda: self.tasks(arn)[0]["Status"] in _ENDED, lambda: None)
        return self.tasks(arn)[0]

    def shown(self, task: dict[str, Any]) -> dict[str, Any]:
        names = ("Status", "ApproximateNumberOfMessagesMoved", "FailureReason", "MaxNumberOfMessagesPerSecond")
        return {
            **{name: task[name] for name in names if name in task},
            "hasHandle": "TaskHandle" in task,
            "hasDestination": "DestinationArn" in task,
            "startedInMs": task["StartedTimestamp"] > 1_000_000_000_000,
        }


def tell(client: SQSClient) -> dict[str, Any]:
    """Tell the story; returns each step's answer."""
    teller = Teller(client)
    dlq, dlq_arn, url, _ = teller.pair()
    other, other_arn = teller.queue("other")
    start, answers = client.start_message_move_task, teller.answers
    teller.error("start on a queue that is no DLQ", start, SourceArn=other_arn)
    teller.error("start on a queue that is not there", start, SourceArn=other_arn + "-gone")
    answers["list before any"] = teller.tasks(dlq_arn)

    teller.fail(url, dlq, 3)
    start(SourceArn=dlq_arn)
    answers["back to where they came from"] = teller.shown(teller.ended(dlq_arn))
    answers["where they are"] = [teller.depth(dlq), teller.depth(url)]

    teller.fail(url, dlq, 5)
    client.purge_queue(QueueUrl=other)
    handle = start(SourceArn=dlq_arn, DestinationArn=other_arn, MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
    running = teller.tasks(dlq_arn)
    answers["running"] = {**teller.shown(running[0]), "ApproximateNumberOfMessagesMoved": "some"}
    answers["newest first, and none forgotten"] = [one["Status"] for one in running]
    teller.error("start while one runs", start, SourceArn=dlq_arn)
    client.cancel_message_move_task(TaskHandle=handle)
    answers["cancelled"] = {**teller.shown(teller.ended(dlq_arn)), "ApproximateNumberOfMessagesMoved": "some"}
    teller.error("cancel what has ended", client.cancel_message_move_task, TaskHandle=handle)
    teller.error("a rate of 501", start, SourceArn=dlq_arn, MaxNumberOfMessagesPerSecond=501)

    straight, straight_arn, _, _ = teller.pair()
    client.send_message(QueueUrl=straight, MessageBody="straight to the dead-letter queue")
    start(SourceArn=straight_arn)
    answers["sent straight to the DLQ"] = teller.shown(teller.ended(straight_arn))
    answers["it is still there"] = teller.depth(straight)
    answers["MaxResults is 1 unless asked"] = len(client.list_message_move_tasks(SourceArn=dlq_arn)["Results"])
    return answers


if __name__ == "__main__":
    peer = boto3.client(
        "sqs",
        endpoint_url=sys.argv[1],
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    print(json.dumps(tell(peer), indent=1))
