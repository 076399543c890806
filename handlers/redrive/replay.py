"""The Lambda handlers behind the state machine `redrive-replay`: plan, work, report."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from aws_lambda_powertools import Logger

from handlers.redrive.events import EventStore
from handlers.redrive.ledger import Ledger
from handlers.redrive.planner import Planner
from handlers.redrive.report import Reporter
from handlers.redrive.request_model import FunctionTarget, QueueTarget, parse_request
from handlers.redrive.settings import BadSettings, Settings, from_environment
from handlers.redrive.table import Table
from handlers.redrive.targets import InvokeFunction, PutOnBus, SendToQueue, Target, once
from handlers.redrive.worker import Work, Worker

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="backstop-replay")
# What a worker keeps of its own time to write down an outcome.
RESERVE_S = 5.0


class Replay:
    """The handlers' parts, on real clients, made once per environment."""

    def __init__(self, settings: Settings) -> None:
        if settings.bucket is None:
            raise BadSettings("BACKSTOP_BUCKET is not set: plans and reports are kept there")
        s3 = boto3.client("s3")
        table = Table(boto3.client("dynamodb"), settings.table)
        events = EventStore(s3, settings.bucket)
        ledger = Ledger(table, settings, time.time)
        self._targets: dict[tuple[str, int], Any] = {}
        self.planner = Planner(table, events, ledger, s3, settings.bucket, is_running, time.time)
        self.worker = Worker(table, events, ledger, self._target_of)
        self.reporter = Reporter(ledger, s3, settings.bucket, time.time)

    def _client(self, service: Any, seconds: float) -> Any:
        # One client per whole minute of waiting: making one takes longer than most invocations.
        minutes = max(1, int(seconds // 60))
        if (service, minutes) not in self._targets:
            wait_s = seconds if seconds < 60 else minutes * 60.0
            self._targets[service, minutes] = boto3.client(service, config=once(max(1.0, wait_s)))
        return self._targets[service, minutes]

    def _target_of(self, work: Work, seconds: float) -> Target:
        if isinstance(work.target, FunctionTarget):
            return InvokeFunction(self._client("lambda", seconds - RESERVE_S), work.target)
        if isinstance(work.target, QueueTarget):
            return SendToQueue(self._client("sqs", 10), work.target)
        return PutOnBus(self._client("events", 10), work.target)


def is_running(execution_arn: str) -> bool:
    """Whether an execution still runs; one that is no longer known does not."""
    client = boto3.client("stepfunctions")
    try:
        return client.describe_execution(executionArn=execution_arn)["status"] in ("RUNNING", "PENDING_REDRIVE")
    except client.exceptions.ExecutionDoesNotExist:
        return False


@cache
def _replay() -> Replay:
    return Replay(from_environment(os.environ))


def plan(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Plan a redrive. `event`: {"input": the request, "execution": ARN, "name": the execution's name}. Raises
    ValidationError, NotPlanned."""
    made = _replay().planner.plan(parse_request(event["input"]), event["execution"], event["name"])
    logger.info("planned", extra={"redriveId": made["redriveId"], "summary": made["summary"]})
    return made


def work(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Replay one failure. `event`: a Work. Raises Throttled."""
    seconds = context.get_remaining_time_in_millis() / 1000
    outcome = _replay().worker.run(Work.model_validate(event), seconds)
    logger.debug("worked", extra=outcome)
    return outcome


def report(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Report on a redrive. `event`: {"redriveId": …, "ending": "" | "canary" | a reason}."""
    made = _replay().reporter.report(event["redriveId"], event.get("ending") or "")
    logger.info("reported", extra=made)
    return made
