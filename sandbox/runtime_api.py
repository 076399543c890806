"""The Runtime API ("Using the Lambda runtime API for custom runtimes") and the credentials endpoint of SnapStart."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from sandbox import answers
from sandbox.answers import Answer
from sandbox.http import BodyCut, BodyTooLarge, Request
from sandbox.invocation import Invocation
from sandbox.states import RUNTIME_TARGET, NotAllowed, RuntimeCall, RuntimeState, runtime_after

if TYPE_CHECKING:
    from sandbox.environment import Environment
    from sandbox.life import Life

ERROR_TYPE = "lambda-runtime-function-error-type"
ERROR_BODY = "lambda-runtime-function-error-body"
_MODE = "lambda-runtime-function-response-mode"
_INVOCATION_ID = "lambda-runtime-invocation-id"
_KNOWN_ERROR = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")


class RuntimeApi:
    """One method for each route."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def _life(self) -> Life:
        return self._environment.life

    # -- GET -------------------------------------------------------------------------------------------------------

    async def ping(self, request: Request) -> Answer:
        del request
        return Answer(200, b"pong", {"Content-Type": "text/plain; charset=utf-8"})

    async def next(self, request: Request) -> Answer:
        del request
        life = self._life
        if life.function.managed:
            if life.idle_runtimes >= life.function.concurrency:
                return answers.SERVER_ERROR
            if life.runtime_state is RuntimeState.STARTED:
                life.runtime_does(RuntimeCall.NEXT)
        else:
            try:
                before = life.runtime_does(RuntimeCall.NEXT)
            except NotAllowed as refused:
                return _bad_transition(refused, RuntimeCall.NEXT)
            if before is RuntimeState.RUNNING and life.current is not None:
                return self._event(life.current)
            if before is RuntimeState.RESPONSE_SENT and life.current is not None:
                life.current.runtime_ready = time.monotonic()
                life.poke()
        invocation = await life.next_invocation()
        if not life.function.managed:
            life.runtime_does(RuntimeCall.DELIVER)
        invocation.state = RuntimeState.RUNNING
        return self._event(invocation)

    def _event(self, invocation: Invocation) -> Answer:
        call = invocation.call
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self._life.function.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace.value,
            "Lambda-Runtime-Invocation-Id": invocation.invocation_id,
        }
        optional = {
            "Lambda-Runtime-Client-Context": call.client_context,
            "Lambda-Runtime-Cognito-Identity": call.cognito_identity,
            "Lambda-Runtime-Aws-Tenant-Id": call.tenant_id,
        }
        headers.update({name: value for name, value in optional.items() if value})
        return Answer(200, call.event, headers)

    async def restore_next(self, request: Request) -> Answer:
        del request
        try:
            self._life.runtime_does(RuntimeCall.RESTORE_NEXT)
        except NotAllowed as refused:
            return _bad_transition(refused, RuntimeCall.RESTORE_NEXT)
        await self._life.wait_for_restore()
        return Answer(200)

    async def credentials(self, request: Request) -> Answer:
        if request.headers.get("authorization") != self._environment.credentials_token:
            return answers.error(404, "NotFound", "no credentials for this token")
        return answers.json_answer(200, self._environment.credentials())

    # -- POST ------------------------------------------------------------------------------------------------------

    async def response(self, request: Request, request_id: str) -> Answer:
        found = self._answerable(request, request_id, RuntimeCall.RESPONSE)
        if isinstance(found, Answer):
            return found
        mode = request.headers.get(_MODE, "")
        if mode and mode.lower() != "streaming":
            found.result.fail("Runtime.InvalidResponseModeHeader", "invalid Lambda-Runtime-Function-Response-Mode")
            self._sent(found)
            return answers.INVALID_RESPONSE_MODE
        return await self._take_response(request, found, streamed=bool(mode))

    async def _take_response(self, request: Request, invocation: Invocation, *, streamed: bool) -> Answer:
        limits = self._environment.limits
        # A streamed response to a caller who did not ask for a stream is gathered, under the limit of such answers.
        streaming = streamed and invocation.call.streaming
        limit = limits.max_streamed if streaming else limits.max_payload
        result = invocation.result
        result.begin(request.headers.get("content-type", ""), "streaming" if streaming else "buffered")
        gathered: list[bytes] = []
        try:
            async for part in request.body.parts():
                if invocation.closed:
                    return answers.INVOKE_TIMEOUT
                invocation.first_byte = invocation.first_byte or time.monotonic()
                invocation.produced_bytes += len(part)
                if invocation.produced_bytes > limit:
                    raise BodyTooLarge
                if streaming:
                    result.part(part)
                else:
                    gathered.append(part)
        except BodyTooLarge:
            self._fail(
                invocation,
                "Function.ResponseSizeTooLarge",
                f"Response payload size exceeded maximum allowed payload size ({limit} bytes).",
            )
            self._sent(invocation)
            # The rest is read and thrown away: closing now could take the refusal from the runtime before it is read.
            async for _ in request.body.parts():
                pass
            return answers.too_large(limit)
        except BodyCut:
            self._fail(invocation, "Runtime.TruncatedResponse", "The response ended before it was complete")
            self._sent(invocation)
            raise
        if invocation.closed:
            return answers.INVOKE_TIMEOUT
        if not streaming:
            result.part(b"".join(gathered))
        error_type = request.body.trailers.get(ERROR_TYPE)
        if error_type is not None:
            result.error_type = _valid_error_type(error_type)
        result.end(request.body.trailers)
        self._sent(invocation)
        return answers.accepted()

    async def error(self, request: Request, request_id: str) -> Answer:
        found = self._answerable(request, request_id, RuntimeCall.ERROR)
        if isinstance(found, Answer):
            return found
        try:
            payload = await request.body.read(self._environment.limits.max_payload)
        except (BodyTooLarge, BodyCut):
            self._fail(found, "Function.Unknown", "the error's body is too large, or was cut")
            self._sent(found)
            raise
        if found.closed:
            return answers.INVOKE_TIMEOUT
        found.produced_bytes = len(payload)
        found.first_byte = found.first_byte or time.monotonic()
        found.result.give_error(_valid_error_type(request.headers.get(ERROR_TYPE, "")), payload)
        self._sent(found)
        return answers.accepted()

    async def init_error(self, request: Request) -> Answer:
        life = self._life
        payload = await request.body.read(self._environment.limits.max_payload)
        try:
            life.runtime_does(RuntimeCall.INIT_ERROR)
        except NotAllowed as refused:
            return _bad_transition(refused, RuntimeCall.INIT_ERROR)
        life.init_error = _valid_error_type(request.headers.get(ERROR_TYPE, "")), payload
        life.poke()
        return answers.accepted()

    async def restore_error(self, request: Request) -> Answer:
        life = self._life
        payload = await request.body.read(self._environment.limits.max_payload)
        try:
            life.runtime_does(RuntimeCall.RESTORE_ERROR)
        except NotAllowed as refused:
            return _bad_transition(refused, RuntimeCall.RESTORE_ERROR)
        life.init_error = _valid_error_type(request.headers.get(ERROR_TYPE, "")), payload
        life.poke()
        return answers.accepted()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _answerable(self, request: Request, request_id: str, call: RuntimeCall) -> Invocation | Answer:
        """The invocation that this call answers, its state changed; or the refusal."""
        life = self._life
        invocation = life.running.get(request_id) if life.function.managed else life.current
        if invocation is None or invocation.request_id != request_id:
            return answers.INVOKE_TIMEOUT if request_id in life.timed_out else answers.INVALID_REQUEST_ID
        echoed = request.headers.get(_INVOCATION_ID)
        if echoed is not None and echoed != invocation.invocation_id:
            return answers.INVOKE_TIMEOUT
        try:
            if life.function.managed:
                invocation.state = runtime_after(invocation.state, call)
            else:
                life.runtime_does(call)
                invocation.state = life.runtime_state
        except NotAllowed as refused:
            return answers.INVALID_REQUEST_ID if life.function.managed else _bad_transition(refused, call)
        return invocation

    def _fail(self, invocation: Invocation, error_type: str, message: str) -> None:
        if not invocation.closed:
            invocation.result.fail(error_type, message)

    def _sent(self, invocation: Invocation) -> None:
        """The runtime has answered: its caller has everything."""
        life = self._life
        if invocation.closed:
            return
        invocation.last_byte = time.monotonic()
        invocation.responded = True
        if not life.function.managed:
            life.runtime_does(RuntimeCall.SENT)
        life.poke()


def _bad_transition(refused: NotAllowed, call: RuntimeCall) -> Answer:
    return answers.bad_transition(refused.state, RUNTIME_TARGET[call], "runtime")


def _valid_error_type(named: str) -> str:
    """As AWS's source: anything that is not of the known form becomes Runtime.Unknown or Function.Unknown."""
    if _KNOWN_ERROR.search(named):
        return named
    return "Function.Unknown" if named.startswith("Function.") else "Runtime.Unknown"
