"""The HTTP API: redrives, failures and groups. API Gateway (HTTP API, IAM authorization) → Powertools resolver, validated.

`GET /openapi.json` is its document. Everything shown is masked.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, ServiceError
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from handlers.redrive import views
from handlers.redrive.dates import iso, seconds
from handlers.redrive.events import EventStore
from handlers.redrive.groups import GroupStatus
from handlers.redrive.ledger import Ledger
from handlers.redrive.request_model import ReplayRequest
from handlers.redrive.settings import BadSettings, Settings, from_environment
from handlers.redrive.states import Status
from handlers.redrive.table import Table

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from types_boto3_stepfunctions import SFNClient

logger = Logger(service="backstop-api")

_Fingerprint = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
_RedriveId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_QueueArn = Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:.+$")]


class QueueRedrive(BaseModel):
    """What `redrive-queue` takes."""

    model_config = ConfigDict(extra="forbid")

    queueArn: _QueueArn
    destinationArn: _QueueArn | None = None
    maxMessagesPerSecond: int | None = Field(default=None, ge=1, le=500)
    dryRun: bool = False
    deadlineSeconds: int | None = Field(default=None, ge=1)
    automatic: bool = False


class GroupChange(BaseModel):
    """What a person says of a group."""

    model_config = ConfigDict(extra="forbid")

    status: GroupStatus


class Conflicting(ServiceError):
    """409: it is not in the state for that."""

    def __init__(self, message: str) -> None:
        super().__init__(409, message)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with."""

    table: Table
    events: EventStore
    ledger: Ledger
    states: SFNClient
    replay_machine: str
    queue_machine: str


def make_app(parts: Parts) -> APIGatewayHttpResolver:
    """Return the API on these parts."""
    app = APIGatewayHttpResolver(enable_validation=True)
    _redrive_routes(app, parts)
    _failure_routes(app, parts)
    _group_routes(app, parts)

    @app.get("/openapi.json", include_in_schema=False)
    def document() -> Response[str]:
        text = app.get_openapi_json_schema(
            title="Backstop redrive", version="1", description="Captured Lambda failures, and their way back."
        )
        return Response(200, "application/json", text)

    return app


def _redrive_routes(app: APIGatewayHttpResolver, parts: Parts) -> None:
    @app.post("/redrives", summary="Start a replay")
    def create(request: ReplayRequest) -> Response[dict[str, Any]]:
        redrive_id = request.redriveId or f"r-{uuid.uuid4().hex[:12]}"
        value = request.model_dump(mode="json", exclude_none=True) | {"redriveId": redrive_id}
        caller = _caller(app)
        if caller is not None:
            value["requestedBy"] = caller[-256:]
        execution = _start(parts, parts.replay_machine, redrive_id, value)
        return Response(202, "application/json", {"redriveId": redrive_id, "execution": execution})

    @app.get("/redrives", summary="Replays, newest first")
    def redrives(limit: Annotated[int, Query(ge=1, le=100)] = 20) -> dict[str, Any]:
        found = []
        for item in parts.ledger.redrives():
            found.append(views.summary(item))
            if len(found) == limit:
                break
        return {"redrives": found}

    @app.get("/redrives/<redrive_id>", summary="One replay with its plan and report")
    def redrive(redrive_id: _RedriveId) -> dict[str, Any]:
        return views.summary(_redrive(parts, redrive_id))

    @app.post("/redrives/<redrive_id>/cancel", summary="Start no further event of a replay")
    def cancel(redrive_id: _RedriveId) -> Response[dict[str, Any]]:
        found = _redrive(parts, redrive_id)
        if not parts.ledger.cancel(redrive_id) and found["status"] != "cancelling":
            raise Conflicting(f"the redrive is {found['status']}: there is nothing to cancel")
        return Response(202, "application/json", {"redriveId": redrive_id, "status": "cancelling"})

    @app.post("/queue-redrives", summary="Move a dead-letter queue's messages back")
    def move(request: QueueRedrive) -> Response[dict[str, Any]]:
        name = f"q-{uuid.uuid4().hex[:12]}"
        value = request.model_dump(mode="json", exclude_none=True)
        return Response(
            202, "application/json", {"name": name, "execution": _start(parts, parts.queue_machine, name, value)}
        )

    @app.get("/queue-redrives/<name>", summary="How far a move is")
    def moved(name: _RedriveId) -> dict[str, Any]:
        execution = parts.queue_machine.replace(":stateMachine:", ":execution:") + f":{name}"
        try:
            found = parts.states.describe_execution(executionArn=execution)
        except parts.states.exceptions.ExecutionDoesNotExist:
            raise NotFoundError(f"there is no move {name}") from None
        return {
            "name": name,
            "status": found["status"],
            "output": json.loads(found["output"]) if "output" in found else None,
            "error": found.get("error"),
            "cause": found.get("cause"),
        }


def _failure_routes(app: APIGatewayHttpResolver, parts: Parts) -> None:
    @app.get("/failures", summary="Failures, newest first")
    def failures(
        group: Annotated[str | None, Query(pattern=r"^[0-9a-f]{16}$")] = None,
        function: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,140}$")] = None,
        status: Annotated[Status | None, Query()] = None,
        since: Annotated[str | None, Query()] = None,
        until: Annotated[str | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> dict[str, Any]:
        wanted = views.Filter(group, function, (status,) if status else (), _time(since), _time(until))
        page = views.failures(parts.table, wanted, limit, cursor)
        return {"failures": page.items, "cursor": page.cursor}

    @app.get("/failures/<failure_id>", summary="One failure with its error, logs and event, masked")
    def failure(failure_id: Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]) -> dict[str, Any]:
        found = views.failure(parts.table, parts.events, failure_id)
        if found is None:
            raise NotFoundError(f"there is no failure {failure_id}")
        return found


def _group_routes(app: APIGatewayHttpResolver, parts: Parts) -> None:
    @app.get("/groups", summary="Groups, the one seen last first")
    def all_groups(status: Annotated[GroupStatus | None, Query()] = None) -> dict[str, Any]:
        return {"groups": views.all_groups(parts.table, (status,) if status else tuple(GroupStatus))}

    @app.get("/groups/<fingerprint>", summary="One group with its counts")
    def group(fingerprint: _Fingerprint) -> dict[str, Any]:
        found = views.group(parts.table, fingerprint)
        if found is None:
            raise NotFoundError(f"there is no group {fingerprint}")
        return found

    @app.put("/groups/<fingerprint>", summary="Say that a group is open, resolved or muted")
    def change(fingerprint: _Fingerprint, wanted: GroupChange) -> dict[str, Any]:
        if not views.set_group(parts.table, fingerprint, wanted.status, time.time()):
            raise NotFoundError(f"there is no group {fingerprint}")
        return {"fingerprint": fingerprint, "status": wanted.status}


def _redrive(parts: Parts, redrive_id: str) -> dict[str, Any]:
    found = parts.ledger.redrive(redrive_id)
    if found is None:
        raise NotFoundError(f"there is no redrive {redrive_id}")
    return found


def _start(parts: Parts, machine: str, name: str, value: dict[str, Any]) -> str:
    try:
        return parts.states.start_execution(stateMachineArn=machine, name=name, input=json.dumps(value))["executionArn"]
    except parts.states.exceptions.ExecutionAlreadyExists:
        raise Conflicting(f"there is a redrive {name} already") from None


def _caller(app: APIGatewayHttpResolver) -> str | None:
    """Who asks: the IAM identity that API Gateway has authorized."""
    context = app.current_event.raw_event.get("requestContext", {})
    identity = context.get("authorizer", {}).get("iam", {})
    arn = identity.get("userArn")
    return arn if isinstance(arn, str) else None


def _time(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return iso(seconds(text))
    except ValueError:
        raise ServiceError(422, "since and until are ISO 8601 times") from None


def make_parts(settings: Settings) -> Parts:
    """Return the parts on real clients. Raises BadSettings."""
    if not settings.replay_machine_arn or not settings.queue_machine_arn:
        raise BadSettings("BACKSTOP_REPLAY_MACHINE_ARN and BACKSTOP_QUEUE_MACHINE_ARN must be set for the API")
    table = Table(boto3.client("dynamodb"), settings.table)
    return Parts(
        table=table,
        events=EventStore(boto3.client("s3"), settings.bucket),
        ledger=Ledger(table, settings, time.time),
        states=boto3.client("stepfunctions"),
        replay_machine=settings.replay_machine_arn,
        queue_machine=settings.queue_machine_arn,
    )


@cache
def _app() -> APIGatewayHttpResolver:
    return make_app(make_parts(from_environment(os.environ)))


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry point."""
    return _app().resolve(event, context)
