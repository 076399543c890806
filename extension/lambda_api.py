"""The Extensions API and the Telemetry API's subscription: register, next, subscribe (AWS, "Using the Lambda Extensions API",
"Accessing real-time telemetry data for extensions using the Telemetry API"). Nothing else is known here.
"""

from __future__ import annotations

import time

from extension import fastjson, http1, net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXTENSION = "/2020-01-01/extension/"
_TELEMETRY = "/2022-07-01/telemetry"
_CALL_LIMIT_S = 5.0
_MAX_ANSWER = 1_048_576
SCHEMAS = ("2025-01-29", "2022-12-13", "2022-07-01")


class ApiError(Exception):
    """Lambda refused a call. `status` is the HTTP status, `body` the start of its answer."""

    def __init__(self, call: str, status: int, body: bytes) -> None:
        super().__init__(f"{call} was answered {status}: {body[:300].decode('utf-8', 'replace')}")
        self.status = status
        self.body = body


class Answer:
    """A whole answer of Lambda's API."""

    __slots__ = ("body", "head")

    def __init__(self, head: http1.ResponseHead, body: bytes) -> None:
        self.head = head
        self.body = body


def exchange(address: tuple[str, int], request: bytes, method: bytes, limit_s: float | None) -> Answer:
    """Send one request on a fresh connection and read the whole answer.

    `limit_s` None waits for ever (event/next: the answer comes with the next invocation). Raises OSError or http1.Malformed.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    sock = net.connect(address[0], address[1], time.monotonic() + _CALL_LIMIT_S)
    try:
        net.send_all(sock, request, deadline)
        buffer = b""
        while True:
            while (end := http1.split_head(buffer)) < 0:
                received = net.recv(sock, 65_536, deadline)
                if not received:
                    raise http1.Malformed("the connection ended before an answer came")
                buffer += received
            head = http1.parse_response_head(buffer[:end])
            if head.status >= 200:
                break
            buffer = buffer[end:]  # an interim answer; the final one may already be here
        body = http1.response_body(head, method)
        _, parts = body.feed(buffer[end:])
        size = sum(map(len, parts))
        while not body.complete:
            received = net.recv(sock, 65_536, deadline)
            if not received:
                body.eof()
                break
            _, more = body.feed(received)
            parts += more
            size += sum(map(len, more))
            if size > _MAX_ANSWER:
                raise http1.Malformed("the answer is over its limit")
        return Answer(head, b"".join(parts))
    finally:
        sock.close()


class LambdaApi:
    """This extension's conversation with Lambda. `name` is the file's name in /opt/extensions, as Lambda demands."""

    __slots__ = ("_address", "_host", "_name", "account_id", "identifier", "registered_events")

    def __init__(self, address: tuple[str, int], name: str) -> None:
        self._address = address
        self._host = f"{address[0]}:{address[1]}"
        self._name = name
        self.identifier = ""
        self.account_id = ""
        self.registered_events: tuple[str, ...] = ()

    def _request(self, method: str, path: str, headers: dict[str, str], body: str = "") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method != "GET":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _call(self, method: str, path: str, headers: dict[str, str], body: str, limit_s: float | None) -> Answer:
        return exchange(self._address, self._request(method, path, headers, body), method.encode(), limit_s)

    def register(self, events: tuple[str, ...]) -> None:
        """Register for events: `INVOKE` and `SHUTDOWN`, or fewer. Raises ApiError, OSError or http1.Malformed."""
        wanted = ",".join(f'"{event}"' for event in events)
        answer = self._call(
            "POST",
            _EXTENSION + "register",
            {"Lambda-Extension-Name": self._name, "Lambda-Extension-Accept-Feature": "accountId"},
            f'{{"events":[{wanted}]}}',
            _CALL_LIMIT_S,
        )
        identifier = answer.head.text(b"lambda-extension-identifier")
        if answer.head.status != 200 or not identifier:
            raise ApiError("register", answer.head.status, answer.body)
        self.identifier = identifier
        self.account_id = _account_id(answer.body)
        self.registered_events = events

    def subscribe(self, port: int, types: tuple[str, ...] = ("platform", "function")) -> str | None:
        """Ask for telemetry on `http://sandbox.localdomain:port`. Only possible before the first `next`.

        Returns the schema version that was granted, or None where the place has no telemetry (202, AWS's own emulator).
        Raises ApiError where no schema version is granted, OSError or http1.Malformed.
        """
        wanted = ",".join(f'"{kind}"' for kind in types)
        refused: ApiError | None = None
        for schema in SCHEMAS:
            body = (
                f'{{"schemaVersion":"{schema}","types":[{wanted}],'
                '"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},'
                f'"destination":{{"protocol":"HTTP","URI":"http://sandbox.localdomain:{port}"}}}}'
            )
            answer = self._call(
                "PUT", _TELEMETRY, {"Lambda-Extension-Identifier": self.identifier}, body, _CALL_LIMIT_S
            )
            if answer.head.status == 200:
                return schema
            if answer.head.status == 202:
                return None
            refused = ApiError("subscribe to telemetry", answer.head.status, answer.body)
            if answer.head.status != 400:
                break
        assert refused is not None
        raise refused

    def next_event(self) -> dict[str, Any]:
        """Wait, without limit, for the next event; calling this also tells Lambda that the last one is dealt with.

        Raises ApiError, OSError, or ValueError (http1.Malformed among them).
        """
        answer = self._call(
            "GET", _EXTENSION + "event/next", {"Lambda-Extension-Identifier": self.identifier}, "", None
        )
        if answer.head.status != 200:
            raise ApiError("event/next", answer.head.status, answer.body)
        event = fastjson.loads(answer.body.decode())
        if not isinstance(event, dict):
            raise ValueError("an event that is not an object")
        return event


def _account_id(body: bytes) -> str:
    """Read the account's id from a registration; empty where it is not told, as under AWS's own emulator."""
    try:
        registration = fastjson.loads(body.decode())
    except ValueError:
        return ""
    account = registration.get("accountId") if isinstance(registration, dict) else None
    return account if isinstance(account, str) and account.isdigit() else ""
