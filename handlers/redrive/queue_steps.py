"""The two Lambda steps of a queue redrive, for state machines and schedules that want functions: start, and check.

`redrive-queue` itself needs neither. Amazon SQS API Reference, StartMessageMoveTask and ListMessageMoveTasks.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import boto3
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from types_boto3_sqs import SQSClient

_LISTED = 10
_CLOCKS_APART_MS = 5_000
_RUNNING = "RUNNING"
_QueueArn = Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:.+$")]


class StartRequest(BaseModel):
    """What `start` takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queueArn: _QueueArn
    destinationArn: _QueueArn | None = None
    maxMessagesPerSecond: int | None = Field(default=None, ge=1, le=500)


class CheckRequest(BaseModel):
    """What `check` takes: what `start` returned, or only the queue for its newest task."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    queueArn: _QueueArn
    startedTimestamp: int | None = None


def start_task(client: SQSClient, request: StartRequest, now: float) -> dict[str, Any]:
    """Start a move task, or adopt the one that runs. `now` in seconds since 1970.

    Returns {queueArn, startedTimestamp (ms) or None, adopted}. Raises ClientError where SQS refuses, but for a task
    that runs already.
    """
    arguments: dict[str, Any] = {"SourceArn": request.queueArn}
    if request.destinationArn is not None:
        arguments["DestinationArn"] = request.destinationArn
    if request.maxMessagesPerSecond is not None:
        arguments["MaxNumberOfMessagesPerSecond"] = request.maxMessagesPerSecond
    handle, refused = None, None
    try:
        handle = client.start_message_move_task(**arguments)["TaskHandle"]
    except ClientError as error:
        refused = error
    tasks: list[dict[str, Any]] = [dict(task) for task in _tasks(client, request.queueArn)]
    ours = _ours(tasks, request, handle, now)
    if refused is not None and (ours is None or ours["Status"] != _RUNNING):
        raise refused
    started = None if ours is None else ours["StartedTimestamp"]
    return {"queueArn": request.queueArn, "startedTimestamp": started, "adopted": refused is not None}


def check_task(client: SQSClient, request: CheckRequest) -> dict[str, Any]:
    """Return {status, moved, toMove, reason} of a task. `status` is SQS's own, or NOT_FOUND where it lists no such task."""
    for task in _tasks(client, request.queueArn):
        if request.startedTimestamp in (None, task.get("StartedTimestamp")):
            return {
                "status": task.get("Status"),
                "moved": task.get("ApproximateNumberOfMessagesMoved", 0),
                "toMove": task.get("ApproximateNumberOfMessagesToMove"),
                "reason": task.get("FailureReason"),
            }
    return {"status": "NOT_FOUND", "moved": 0, "toMove": None, "reason": "SQS lists no such task"}


def _tasks(client: SQSClient, queue_arn: str) -> list[Any]:
    return list(client.list_message_move_tasks(SourceArn=queue_arn, MaxResults=_LISTED).get("Results", []))


def _ours(tasks: list[dict[str, Any]], request: StartRequest, handle: str | None, now: float) -> dict[str, Any] | None:
    if handle is None:
        return next((task for task in tasks if task["Status"] == _RUNNING), None)
    for task in tasks:
        if task.get("TaskHandle") == handle:
            return task
    # It has ended already: the newest that could be ours. Without handle, destination and rate must tell.
    for task in tasks:
        same = (task.get("DestinationArn"), task.get("MaxNumberOfMessagesPerSecond")) == (
            request.destinationArn,
            request.maxMessagesPerSecond,
        )
        if same and task["StartedTimestamp"] >= now * 1000 - _CLOCKS_APART_MS:
            return task
    return None


@cache
def _client() -> SQSClient:
    return boto3.client("sqs")


def start(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry point of the first step. Raises ValidationError and ClientError."""
    return start_task(_client(), StartRequest.model_validate(event), time.time())


def check(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry point of the second step."""
    return check_task(_client(), CheckRequest.model_validate(event))
