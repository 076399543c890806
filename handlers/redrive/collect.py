"""The handler behind the failure queue (and behind dead-letter queues that are to be collected): SQS → table.

A record that cannot be read goes to the bad-records queue with the reason; anything else that fails is given back to SQS alone.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from handlers.redrive.collector import Collected, Collector
from handlers.redrive.events import EventStore
from handlers.redrive.record import BadRecord, Message
from handlers.redrive.settings import Settings, from_environment
from handlers.redrive.table import Table

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from types_boto3_sqs import SQSClient

logger = Logger(service="backstop-collect")
_REASON_LENGTH = 512


class BadRecords:
    """Where records go that cannot be read."""

    def __init__(self, client: SQSClient, url: str | None) -> None:
        self._client = client
        self._url = url

    def put(self, message: Message, reason: str) -> bool:
        """Send the message on as it came, with the reason as an attribute. False where no queue is set."""
        if self._url is None:
            return False
        self._client.send_message(
            QueueUrl=self._url,
            MessageBody=message.body,
            MessageAttributes={
                "backstop.reason": {"DataType": "String", "StringValue": reason[:_REASON_LENGTH]},
                "backstop.source": {"DataType": "String", "StringValue": message.queue_arn or "unknown"},
            },
        )
        return True


class CollectHandler:
    """One batch of SQS messages."""

    def __init__(self, collector: Collector, bad_records: BadRecords) -> None:
        self._collector = collector
        self._bad_records = bad_records

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return SQS's partial batch response. Raises BatchProcessingError where every message failed."""
        processor = BatchProcessor(event_type=EventType.SQS)
        with processor(event["Records"], handler=self._one):
            processor.process()
        return dict(processor.response())

    def _one(self, record: SQSRecord) -> Collected | None:
        message = message_of(record)
        try:
            outcome = self._collector.collect(message)
        except BadRecord as error:
            logger.warning("bad record", extra={"messageId": message.id, "why": str(error)})
            if not self._bad_records.put(message, str(error)):
                raise
            return None
        logger.debug("collected", extra={"messageId": message.id, "outcome": outcome})
        return outcome


def message_of(record: SQSRecord) -> Message:
    """Return an SQS record of a Lambda event as a Message."""
    attributes = {
        name: attribute.string_value
        for name, attribute in record.message_attributes.items()
        if attribute.string_value is not None
    }
    return Message(
        id=record.message_id,
        body=record.body,
        attributes=attributes,
        queue_arn=record.event_source_arn,
        sent_ms=int(record.attributes.sent_timestamp or 0),
    )


def make_collector(settings: Settings) -> Collector:
    """Return a collector on real clients."""
    table = Table(boto3.client("dynamodb"), settings.table)
    return Collector(table, EventStore(boto3.client("s3"), settings.bucket), settings, time.time)


@cache
def _handler() -> CollectHandler:
    settings = from_environment(os.environ)
    return CollectHandler(make_collector(settings), BadRecords(boto3.client("sqs"), settings.bad_queue_url))


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry point."""
    return _handler()(event)
