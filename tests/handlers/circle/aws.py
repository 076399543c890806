"""AWS's stand-in for the circle: moto in this process behind HTTP, its function `processor` being one under AWS's own emulator."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import boto3
from moto.core.config import default_user_config
from moto.server import ThreadedMotoServer

from handlers.redrive import replay
from handlers.redrive.collect import BadRecords, CollectHandler, make_collector
from handlers.redrive.settings import Settings, from_environment
from handlers.redrive.table import definition
from tests.handlers import moto_plugins
from tests.handlers.machine import Machine, handler_function, make_function
from tests.handlers.moto_plugins.functions import FunctionFailed, Invocation

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

REGION: Literal["eu-central-1"] = "eu-central-1"
TABLE = "Failures"
BUCKET = "backstop-circle"


@dataclass
class Cloud:
    """What the circle uses of AWS. `processor` is called for each invocation that a replay makes."""

    url: str
    sqs: SQSClient
    queue_url: str
    collect: CollectHandler
    machine: Machine
    processor: Callable[[bytes], tuple[int, bytes]]

    def collect_all(self) -> int:
        """What Lambda's event source does: hand the queue's messages to the collector, delete what it took. Returns how many."""
        count = 0
        while messages := self._receive():
            event = {"Records": [_as_lambda_sees_it(one) for one in messages]}
            failed = {one["itemIdentifier"] for one in self.collect(event)["batchItemFailures"]}
            for one in messages:
                if one["MessageId"] not in failed:
                    self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=one["ReceiptHandle"])
                    count += 1
        return count

    def _receive(self) -> list[Any]:
        answer = self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        return list(answer.get("Messages", []))


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A cloud with queue, table, bucket and `redrive-replay`. Sets the environment that boto3 and the handlers read."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    os.environ.update(
        {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
            "MOTO_PORT": str(port),
            "POWERTOOLS_LOG_LEVEL": "ERROR",
            "BACKSTOP_TABLE": TABLE,
            "BACKSTOP_BUCKET": BUCKET,
        }
    )
    moto_plugins.install()
    logging.disable(logging.CRITICAL)  # the engine's and the handlers' own would hide the story
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        yield _furnished(url)
    finally:
        server.stop()


def _furnished(url: str) -> Cloud:
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    sqs = boto3.client("sqs")
    queue_url = sqs.create_queue(QueueName="failures", Attributes={"MaximumMessageSize": "1048576"})["QueueUrl"]
    boto3.client("dynamodb").create_table(**definition(TABLE))
    boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    settings: Settings = from_environment(os.environ)
    machine = Machine(
        "replay.asl.json",
        {
            "PlanFunctionArn": make_function("plan", handler_function(replay.plan)),
            "WorkFunctionArn": make_function("work", handler_function(replay.work)),
            "ReportFunctionArn": make_function("report", handler_function(replay.report)),
        },
    )
    made = Cloud(url, sqs, queue_url, CollectHandler(make_collector(settings), BadRecords(sqs, None)), machine, _nobody)

    def run(invocation: Invocation) -> bytes:
        status, body = made.processor(invocation.payload)
        answer = json.loads(body)
        if status != 200 or (isinstance(answer, dict) and "errorType" in answer):
            raise FunctionFailed(answer)
        return body

    make_function("processor", run)
    return made


def _nobody(event: bytes) -> tuple[int, bytes]:
    raise RuntimeError("the processor is not running")


def _as_lambda_sees_it(message: Any) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {"dataType": value["DataType"], "stringValue": value["StringValue"]}
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:123456789012:failures",
        "awsRegion": REGION,
    }
