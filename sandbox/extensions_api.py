"""The Extensions API and the Telemetry API's subscription ("Using the Lambda Extensions API to create extensions")."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from sandbox import answers, subscription
from sandbox.answers import Answer
from sandbox.http import Request
from sandbox.registry import Refused
from sandbox.states import ExtensionCall

if TYPE_CHECKING:
    from sandbox.environment import Environment
    from sandbox.life import Life

_MAX_BODY = 262_144
EVENT_IDENTIFIER = "Lambda-Extension-Event-Identifier"


class ExtensionsApi:
    """One method for each route."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def _life(self) -> Life:
        return self._environment.life

    async def register(self, request: Request) -> Answer:
        body = await request.body.read(_MAX_BODY)
        try:
            _, answer = self._life.registry.register(request.headers, body)
        except Refused as refused:
            return refused.answer
        self._life.poke()
        return answer

    async def next(self, request: Request) -> Answer:
        life = self._life
        try:
            extension = life.registry.identify(request.headers)
            life.registry.next(extension)
        except Refused as refused:
            return refused.answer
        life.poke()
        event = await life.next_event(extension)
        return Answer(
            200,
            json.dumps(event, separators=(",", ":")).encode(),
            {"Content-Type": answers.JSON_TYPE, EVENT_IDENTIFIER: str(uuid.uuid4())},
        )

    async def init_error(self, request: Request) -> Answer:
        return await self._report(request, ExtensionCall.INIT_ERROR)

    async def exit_error(self, request: Request) -> Answer:
        return await self._report(request, ExtensionCall.EXIT_ERROR)

    async def _report(self, request: Request, call: ExtensionCall) -> Answer:
        await request.body.read(_MAX_BODY)
        try:
            extension = self._life.registry.identify(request.headers)
            answer = self._life.registry.report_error(extension, call, request.headers)
        except Refused as refused:
            return refused.answer
        self._life.poke()
        return answer

    async def subscribe(self, request: Request) -> Answer:
        return await self._subscribe(request, logs_api=False)

    async def subscribe_to_logs(self, request: Request) -> Answer:
        """The Logs API, which the Telemetry API supersedes. Managed Instances never had it."""
        if self._life.function.managed:
            await request.body.read(_MAX_BODY)
            return answers.error(202, "Logs.NotSupported", "Logs API is not supported")
        return await self._subscribe(request, logs_api=True)

    async def _subscribe(self, request: Request, *, logs_api: bool) -> Answer:
        life = self._life
        body = await request.body.read(_MAX_BODY)
        try:
            extension = life.registry.identify(request.headers)
        except Refused as refused:
            return refused.answer
        api = "Logs" if logs_api else "Telemetry"
        if not life.hub.open:
            return answers.forbidden(f"{api}.SubscriptionClosed", f"{api} API subscription is closed")
        try:
            wanted = subscription.parse(body, managed=life.function.managed, logs_api=logs_api)
        except subscription.Invalid as invalid:
            return invalid.answer
        if extension.name in life.hub.subscribers:
            # As AWS's source; what production answers is not documented. The two APIs exclude one another.
            return answers.SERVER_ERROR
        life.hub.subscribe(extension.name, wanted)
        return Answer(200, b'"OK"', {"Content-Type": answers.JSON_TYPE})


def invoke_event(request_id: str, deadline_ms: int, arn: str, trace: str) -> dict[str, object]:
    """What an extension gets for an invocation: never its payload."""
    return {
        "eventType": "INVOKE",
        "deadlineMs": deadline_ms,
        "requestId": request_id,
        "invokedFunctionArn": arn,
        "tracing": {"type": "X-Amzn-Trace-Id", "value": trace},
    }


def shutdown_event(reason: str, deadline_ms: int) -> dict[str, object]:
    return {"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms}
