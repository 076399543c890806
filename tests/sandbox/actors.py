"""A test's own hands on Lambda's local APIs: it calls as the runtime, or as an extension, and waits where those would wait."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sandbox.sandbox import Running, Sandbox

RUNTIME = "/2018-06-01/runtime/"
EXTENSION = "/2020-01-01/extension/"
TELEMETRY = "/2022-07-01/telemetry"
_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error_type(self) -> str:
        return str(self.json["errorType"])


class Api:
    """host:port of AWS_LAMBDA_RUNTIME_API; every call on a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._threads = ThreadPoolExecutor(16)
        self._open: set[http.client.HTTPConnection] = set()

    def call(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        self._open.add(connection)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            self._open.discard(connection)
            connection.close()

    def later(self, *arguments: Any) -> Future[Reply]:
        """The same call, waited for elsewhere."""
        return self._threads.submit(self.call, *arguments)

    def close(self) -> None:
        for connection in list(self._open):
            if connection.sock is not None:
                connection.sock.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class Extension:
    """One extension, played by the test."""

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self.name = name
        self.identifier = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Lambda-Extension-Identifier": self.identifier}

    def register(self, *events: str, features: str | None = None) -> Reply:
        headers = {"Lambda-Extension-Name": self.name}
        if features is not None:
            headers["Lambda-Extension-Accept-Feature"] = features
        reply = self._api.call("POST", EXTENSION + "register", json.dumps({"events": events}).encode(), headers)
        self.identifier = reply.headers.get("lambda-extension-identifier", self.identifier)
        return reply

    def next(self) -> Future[Reply]:
        return self._api.later("GET", EXTENSION + "event/next", b"", self.headers)

    def report(self, which: str, error_type: str | None) -> Reply:
        headers = dict(self.headers)
        if error_type is not None:
            headers["Lambda-Extension-Function-Error-Type"] = error_type
        return self._api.call("POST", f"{EXTENSION}{which}", b"{}", headers)

    def subscribe(self, body: Any) -> Reply:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._api.call("PUT", TELEMETRY, sent, self.headers)


class Actors:
    """A scripted sandbox. `start` may wait for calls, so it runs beside the test; `sandbox` is there once it is up."""

    def __init__(self, start: Callable[[], Sandbox]) -> None:
        self.sandbox = start()
        self.api = Api(self.sandbox.environment.api)

    def close(self) -> None:
        self.api.close()

    def extension(self, name: str) -> Extension:
        return Extension(self.api, name)

    def started(self, who: str) -> None:
        """Waits until that process has been started."""
        self.sandbox.journal.wait_for(
            lambda entries: any(one.kind == "process" and one.who == who and one.what == "started" for one in entries),
            f"{who} started",
        )

    def called(self, who: str, what: str, times: int = 1) -> None:
        """Waits until the call has come in, that many times."""
        self.sandbox.journal.wait_for(
            lambda entries: sum(one.kind == "call" and one.who == who and one.what == what for one in entries) >= times,
            f"{who}: {what}",
        )

    def begin(self, event: bytes = b"{}") -> Running:
        return self.sandbox.begin(event)

    def next(self, path: str = "invocation/next") -> Future[Reply]:
        return self.api.later("GET", RUNTIME + path)

    def post(self, path: str, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> Reply:
        return self.api.call("POST", RUNTIME + path, body, headers)

    def init_without_extensions(self, event: bytes = b"{}") -> tuple[Running, Reply]:
        """A cold start with an invocation: returns it, and the runtime's first event."""
        running = self.begin(event)
        self.started("runtime")
        return running, self.next().result(_WAIT_S)
