"""What the commands work with: the table, the events and the state machines, found from options and environment."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3

from cli.output import CommandError
from handlers.redrive.events import EventStore
from handlers.redrive.ledger import Ledger
from handlers.redrive.settings import Settings
from handlers.redrive.table import Table

if TYPE_CHECKING:
    from types_boto3_stepfunctions import SFNClient


@dataclass
class Session:
    """Options of every command. boto3 reads the rest (profile, region, AWS_ENDPOINT_URL) by itself."""

    table_name: str | None
    bucket: str | None
    as_json: bool
    machines: dict[str, str] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """The handlers' settings, as far as the command knows them."""
        if not self.table_name:
            raise CommandError(
                "the table is not known", "give --table, or set BACKSTOP_TABLE (output TableName of the stack)"
            )
        return Settings(table=self.table_name, bucket=self.bucket)

    @cached_property
    def table(self) -> Table:
        """The table."""
        return Table(boto3.client("dynamodb"), self.settings.table)

    @cached_property
    def events(self) -> EventStore:
        """The events."""
        return EventStore(boto3.client("s3"), self.bucket)

    @cached_property
    def ledger(self) -> Ledger:
        """What replays did."""
        return Ledger(self.table, self.settings, time.time)

    @cached_property
    def states(self) -> SFNClient:
        """Step Functions."""
        return boto3.client("stepfunctions")

    def machine(self, name: str) -> str:
        """Return a state machine's ARN: as set in the environment, else the one of that name in this account."""
        given = self.machines.get(name) or os.environ.get(
            {"redrive-replay": "BACKSTOP_REPLAY_MACHINE_ARN", "redrive-queue": "BACKSTOP_QUEUE_MACHINE_ARN"}[name]
        )
        if given:
            return given
        for page in self.states.get_paginator("list_state_machines").paginate():
            for machine in page["stateMachines"]:
                if machine["name"] == name:
                    return machine["stateMachineArn"]
        raise CommandError(
            f"there is no state machine {name} in this account and region",
            "deploy handlers/redrive/template.yaml, or name it (--machine)",
        )


def plain(value: Any) -> Any:
    """Return a value of boto3 as JSON can hold it."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items() if name != "ResponseMetadata"}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
