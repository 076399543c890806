"""AWS in this process: moto, with one table, a bucket and queues for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import boto3
import pytest
from moto import mock_aws

from handlers.redrive.collector import Collector
from handlers.redrive.events import EventStore
from handlers.redrive.settings import Settings
from handlers.redrive.table import Table, definition
from tests.handlers import moto_plugins
from tests.handlers.records import message

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

REGION: Literal["eu-central-1"] = "eu-central-1"
TABLE = "Failures"
BUCKET = "backstop-failures"
# 2026-11-24T17:00:00Z: an hour after the records of records.py.
NOW = 1_795_539_600.0
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
    "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
    "POWERTOOLS_SERVICE_NAME": "backstop-tests",
    "POWERTOOLS_LOG_LEVEL": "WARNING",
}


class Clock:
    """A clock that stands until it is moved. Seconds since 1970."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """What a test works with."""

    dynamodb: DynamoDBClient
    s3: S3Client
    sqs: SQSClient
    table: Table
    events: EventStore
    settings: Settings
    clock: Clock
    collector: Collector

    def collect(self, *bodies: str) -> list[str]:
        """Collect messages in this order; returns what each came to."""
        return [str(self.collector.collect(message(body))) for body in bodies]

    def items(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Every item of the table, or those of one type."""
        from handlers.redrive.attributes import from_item

        pages = self.dynamodb.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
        found = [from_item(item) for page in pages for item in page["Items"]]
        return [item for item in found if kind is None or item["itemType"] == kind]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "BACKSTOP_"))]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


moto_plugins.install()


@pytest.fixture
def mocked() -> Iterator[None]:
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield


@pytest.fixture
def world(mocked: None) -> World:
    dynamodb, s3, sqs = boto3.client("dynamodb"), boto3.client("s3"), boto3.client("sqs")
    dynamodb.create_table(**definition(TABLE))
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    settings = Settings(table=TABLE, bucket=BUCKET)
    clock = Clock()
    table = Table(dynamodb, TABLE, sleep=lambda seconds: None, seed=1)
    events = EventStore(s3, BUCKET)
    return World(dynamodb, s3, sqs, table, events, settings, clock, Collector(table, events, settings, clock))
