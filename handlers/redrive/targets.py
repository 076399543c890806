"""Where a replay sends an event: to the function, to a queue, or to a bus. Each call is made once; what is retried
is the worker's choice.

The clients must not retry by themselves (`once`): botocore would run a function again after a lost answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from botocore.config import Config

from handlers.redrive.judge import failure_in
from handlers.redrive.ledger import Result
from handlers.redrive.request_model import BusTarget, FunctionTarget, QueueTarget

if TYPE_CHECKING:
    from types_boto3_events import EventBridgeClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_sqs import SQSClient

_CLIENT_CONTEXT_BYTES = 3583
_GROUP_LENGTH = 128


class Unsendable(ValueError):
    """The target cannot take this event, ever; nothing was sent."""


class Target(Protocol):
    """Takes one event. Raises Unsendable, and what botocore raises."""

    def send(self, failure: Mapping[str, Any], body: Mapping[str, Any], event: bytes, redrive_id: str) -> Result:
        """Send an event, and return what became of it."""
        ...


def once(read_timeout_s: float) -> Config:
    """Return the configuration of a client that makes each call once and waits `read_timeout_s` for its answer."""
    return Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout_s, connect_timeout=5)


@dataclass(frozen=True, slots=True)
class InvokeFunction:
    """The function that failed, or another one, with the very bytes."""

    client: LambdaClient
    target: FunctionTarget

    def send(self, failure: Mapping[str, Any], body: Mapping[str, Any], event: bytes, redrive_id: str) -> Result:
        arn, qualifier = address(self.target, failure["functionArn"])
        arguments: dict[str, Any] = {
            "FunctionName": arn,
            "InvocationType": "Event" if self.target.asynchronous else "RequestResponse",
            "Payload": event,
        }
        if qualifier is not None:
            arguments["Qualifier"] = qualifier
        if failure.get("tenantId"):
            arguments["TenantId"] = failure["tenantId"]
        context = body.get("clientContext")
        if context and not self.target.asynchronous and len(context.encode()) <= _CLIENT_CONTEXT_BYTES:
            arguments["ClientContext"] = base64.b64encode(context.encode()).decode()
        answer = self.client.invoke(**arguments)
        headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
        request_id = headers.get("x-amzn-requestid") or answer["ResponseMetadata"].get("RequestId")
        if self.target.asynchronous:
            return Result(True, request_id, accepted=True)
        error = failure_in(answer["Payload"].read(), answer.get("FunctionError"), failure.get("eventSource"))
        return Result(error is None, request_id, error)


def address(target: FunctionTarget, captured_arn: str) -> tuple[str, str | None]:
    """Return the function and the qualifier to invoke: the target's, or else those of the failed invocation.

    `$LATEST` needs no qualifier; a sidecar that did not know the account leaves it empty, then the name alone is used.
    """
    arn = target.function or captured_arn
    prefix, _, rest = arn.partition(":function:")
    name, _, in_arn = rest.partition(":")
    qualifier = target.qualifier or in_arn or None
    account = prefix.split(":")[4] if prefix.count(":") >= 4 else ""
    return (f"{prefix}:function:{name}" if account else name), (None if qualifier == "$LATEST" else qualifier)


@dataclass(frozen=True, slots=True)
class SendToQueue:
    """A queue: the event becomes a message's body."""

    client: SQSClient
    target: QueueTarget

    def send(self, failure: Mapping[str, Any], body: Mapping[str, Any], event: bytes, redrive_id: str) -> Result:
        arguments: dict[str, Any] = {
            "QueueUrl": self.target.url,
            "MessageBody": _text(event),
            "MessageAttributes": {
                "backstop.id": {"DataType": "String", "StringValue": failure["failureId"]},
                "backstop.redrive": {"DataType": "String", "StringValue": redrive_id},
            },
        }
        if self.target.url.endswith(".fifo"):
            arguments["MessageGroupId"] = failure["function"][:_GROUP_LENGTH]
            arguments["MessageDeduplicationId"] = f"{failure['failureId']}-{failure.get('attempts', 0)}"
        answer = self.client.send_message(**arguments)
        return Result(True, f"message {answer['MessageId']}")


@dataclass(frozen=True, slots=True)
class PutOnBus:
    """A bus: the event becomes `detail`."""

    client: EventBridgeClient
    target: BusTarget

    def send(self, failure: Mapping[str, Any], body: Mapping[str, Any], event: bytes, redrive_id: str) -> Result:
        text = _text(event)
        if not text.lstrip().startswith("{"):
            raise Unsendable("a bus takes only JSON objects")
        answer = self.client.put_events(
            Entries=[
                {
                    "EventBusName": self.target.name,
                    "Source": self.target.source,
                    "DetailType": self.target.detailType,
                    "Detail": text,
                    "Resources": [failure["functionArn"]] if failure.get("functionArn") else [],
                }
            ]
        )
        entry = answer["Entries"][0]
        if answer.get("FailedEntryCount"):
            return Result(False, None, f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")
        return Result(True, f"event {entry.get('EventId')}")


def _text(event: bytes) -> str:
    try:
        return event.decode()
    except UnicodeDecodeError:
        raise Unsendable("the event is not UTF-8 text, and this target takes only text") from None
