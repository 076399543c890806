"""Which route is which method, and the journal's account of every call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sandbox.answers import METHOD_NOT_ALLOWED, NOT_FOUND, Answer
from sandbox.config import Mode
from sandbox.extensions_api import ExtensionsApi
from sandbox.http import Request
from sandbox.registry import IDENTIFIER, NAME
from sandbox.runtime_api import RuntimeApi

if TYPE_CHECKING:
    from sandbox.environment import Environment

Route = Callable[..., Awaitable[Answer]]


class Router:
    """Answers every request to AWS_LAMBDA_RUNTIME_API."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        runtime, extensions = RuntimeApi(environment), ExtensionsApi(environment)
        table: list[tuple[str, str, Route]] = [
            ("GET", "/2018-06-01/ping", runtime.ping),
            ("GET", "/2018-06-01/runtime/invocation/next", runtime.next),
            ("POST", "/2018-06-01/runtime/invocation/([^/]+)/response", runtime.response),
            ("POST", "/2018-06-01/runtime/invocation/([^/]+)/error", runtime.error),
            ("POST", "/2018-06-01/runtime/init/error", runtime.init_error),
            ("POST", "/2020-01-01/extension/register", extensions.register),
            ("GET", "/2020-01-01/extension/event/next", extensions.next),
            ("POST", "/2020-01-01/extension/init/error", extensions.init_error),
            ("POST", "/2020-01-01/extension/exit/error", extensions.exit_error),
            ("PUT", "/2022-07-01/telemetry/?", extensions.subscribe),
            ("PUT", "/2020-08-15/logs/?", extensions.subscribe_to_logs),
        ]
        if environment.function.mode is Mode.SNAP_START:
            table += [
                ("GET", "/2018-06-01/runtime/restore/next", runtime.restore_next),
                ("POST", "/2018-06-01/runtime/restore/error", runtime.restore_error),
                ("GET", "/2021-04-23/credentials", runtime.credentials),
            ]
        self._table = [(method, re.compile(pattern), route) for method, pattern, route in table]

    async def handle(self, request: Request) -> Answer:
        """The answer; what it was is in the journal, with who asked and what for."""
        who = self._who(request)
        what = f"{request.method} {request.path}"
        journal = self._environment.journal
        journal.add("call", who, what)
        status = 0
        try:
            answer = await self._route(request)
            status = answer.status
        finally:
            # 0: the client went away before it was answered.
            journal.add("answer", who, what, status=status)
        return answer

    async def _route(self, request: Request) -> Answer:
        known = False
        for method, pattern, route in self._table:
            found = pattern.fullmatch(request.path)
            if found is not None:
                known = True
                if method == request.method:
                    return await route(request, *found.groups())
        return METHOD_NOT_ALLOWED if known else NOT_FOUND

    def _who(self, request: Request) -> str:
        identifier = request.headers.get(IDENTIFIER.lower())
        if identifier is not None:
            extension = self._environment.life.registry.by_identifier(identifier)
            return extension.name if extension is not None else "?"
        return request.headers.get(NAME.lower()) or "runtime"
